// Runs one command, and turns what it throws into one line and an exit code.
import { type Command, CommanderError } from "commander";
import { RunCode } from "../run/request.js";
import type { MountHere } from "../store/mounts.js";
import { type Called, GROOTFS, mountExitCode, readWords } from "./called-as.js";
import { containerWords } from "./container-words.js";
import { ExitCode, Failure, messageOf } from "./failure.js";
import { afterCommand } from "./groot/leading-words.js";
import { ClosedPipe, print, printError } from "./output.js";
import { type GlobalOptions, program, type StartMount } from "./program.js";

/**
 * Runs the command line and returns the exit code. Where there is a `mountHere`, `create` may leave a mount in this process,
 * which then has to serve.
 */
export async function run(
  argv: readonly string[],
  startMount: StartMount,
  mountHere?: MountHere,
): Promise<number> {
  const words = argv.slice(2);
  if (words[0] === GROOTFS) return (await import("./groot/grootfs.js")).runGrootfs(words.slice(1), mountHere);
  const root = program(startMount, mountHere);
  const ofContainer = containerWords(root, words);
  if (ofContainer !== undefined)
    return runWords(root, { words: ofContainer, byMount: false }, RunCode.failure);
  const called = readWords(
    afterCommand(root, words),
    new Set(["help", ...root.commands.map((each) => each.name())]),
  );
  const code = await runWords(root, called);
  if (code === 0 && called.done !== undefined) print(called.done);
  return called.byMount ? mountExitCode(code) : code;
}

/** With `failureCode` every failure has at least that exit code. */
async function runWords(root: Command, called: Called, failureCode?: number): Promise<number> {
  try {
    if (called.refused !== undefined) throw new Failure(ExitCode.usage, called.refused);
    if (called.namespace !== undefined) return (await import("./namespace.js")).runInNamespace(called);
    await root.parseAsync(called.words, { from: "user" });
    return typeof process.exitCode === "number" ? process.exitCode : 0;
  } catch (cause) {
    if (cause instanceof ClosedPipe) return 0;
    if (cause instanceof CommanderError) return cause.exitCode === 0 ? 0 : (failureCode ?? ExitCode.usage);
    printError(`imgfs: ${messageOf(cause)}\n`);
    if (cause instanceof Failure && cause.hint !== undefined) printError(`hint: ${cause.hint}\n`);
    if (root.opts<GlobalOptions>().debug && cause instanceof Error) printError(`${cause.stack}\n`);
    const code = cause instanceof Failure ? cause.exitCode : ExitCode.failure;
    return failureCode === undefined ? code : Math.max(code, failureCode);
  }
}
