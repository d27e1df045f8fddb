// Finds the file of the command in the image and starts it. The process is inside already.
import { accessSync, constants, statSync } from "node:fs";
import { Errno, errnoName, errnoText } from "../base/errno.js";
import { spawnProgram } from "../sys/spawn.js";
import { RunCode, RunFailure } from "./request.js";

const shells = ["/bin/bash", "/bin/sh"];

export interface Found {
  /** As the kernel of this process finds it. */
  readonly file: string;
  readonly args: readonly string[];
}

/** Where the files of the image are for this process. */
type Place = (path: string) => string;

/**
 * The file of the command, by PATH of the image. Throws RunFailure: 127 when there is no such command, 126 when it cannot
 * be run, 125 when none was named and there is no shell.
 */
export function findCommand(words: readonly string[], path: string, at: Place): Found {
  const args = words.length > 0 ? words : [shellOfImage(at)];
  return { file: findFile(args[0] as string, path, at), args };
}

/** Starts it in the root of this process; the pid. Throws as {@link findCommand}, also for what execve(2) says. */
export function startCommand(words: readonly string[], env: Readonly<Record<string, string>>): number {
  const { file, args } = findCommand(words, env["PATH"] ?? "", (path) => path);
  const name = args[0] as string;
  const pid = spawnProgram({ file, args, env, blocked: false });
  if (pid > 0) return pid;
  if (pid === -Errno.ENOENT) {
    throw new RunFailure(`${name}: its interpreter or loader is not in the image`, RunCode.notFound);
  }
  if (pid === -Errno.ENOEXEC) {
    throw new RunFailure(
      `${name}: no program for this machine, and no script that names its interpreter`,
      RunCode.notExecutable,
    );
  }
  throw new RunFailure(`${name}: ${errnoText(errnoName(-pid))}`, RunCode.notExecutable);
}

function shellOfImage(at: Place): string {
  const shell = shells.find((path) => statSync(at(path), { throwIfNoEntry: false })?.isFile());
  if (shell === undefined) {
    throw new RunFailure(
      "the image's config names no command, and there is no shell in it",
      RunCode.failure,
      "name a command: imgfs run IMAGE -- COMMAND",
    );
  }
  return shell;
}

/** As execvp(3) looks for it: a name with a slash is a path, any other is in one of PATH's directories. */
function findFile(name: string, path: string, at: Place): string {
  if (name === "") throw new RunFailure("the command is an empty word", RunCode.notFound);
  const places = name.includes("/") ? [name] : path.split(":").map((folder) => `${folder || "."}/${name}`);
  let refused: string | undefined;
  for (const place of places) {
    try {
      const file = at(place);
      const stat = statSync(file);
      if (stat.isDirectory()) {
        refused ??= errnoText("EISDIR");
        continue;
      }
      accessSync(file, constants.X_OK);
      return place;
    } catch (cause) {
      if (cause instanceof RunFailure) throw cause;
      const { code } = cause as NodeJS.ErrnoException;
      if (code === "EACCES") refused ??= errnoText(code);
    }
  }
  if (refused !== undefined) throw new RunFailure(`${name}: ${refused}`, RunCode.notExecutable);
  const where = name.includes("/") ? "in the image" : `in the image's PATH, ${path}`;
  throw new RunFailure(`${name}: not found ${where}`, RunCode.notFound);
}
