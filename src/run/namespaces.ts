// Starts a program in fresh namespaces, by util-linux's unshare: a process with threads, as Node is, cannot enter a user
// namespace itself (unshare(2)).

import { spawnSync } from "node:child_process";
import { closeSync, readSync, writeFileSync, writeSync } from "node:fs";
import { errnoName, errnoText } from "../base/errno.js";
import { createSocketPair } from "../sys/socket.js";
import { spawnProgram, waitForChild } from "../sys/spawn.js";
import { findProgram } from "./programs.js";
import { type MapLine, type NamespaceMaps, RunFailure } from "./request.js";

export interface Start {
  /** Options of unshare(1), at least one. */
  readonly namespaces: readonly string[];
  /** For a fresh user namespace around them. */
  readonly maps?: NamespaceMaps | undefined;
  readonly words: readonly string[];
  readonly env: Readonly<Record<string, string>>;
  /** Our descriptors that are the program's 3, 4, ...; it has our standard ones. */
  readonly fds: readonly number[];
}

/**
 * In the user namespace, and in the others: descriptor 8 tells that they are there, and gives word when the id maps are
 * written. 9 is the real stderr, 2 until then a pipe on which unshare complains. Every signal is blocked until the program
 * itself changes that: unshare, which stays to wait for a forked program, is not to end by a Ctrl-C that is the command's.
 */
const inUserNamespace = 'echo in >&8; read -r go <&8 && exec "$@"';
const inNamespaces = 'exec 2>&9 9>&-; echo up >&8; exec 8>&-; exec "$@"';

/** The pid of the process that is to be waited for. Throws RunFailure: no unshare, no such namespace, no such map. */
export async function startInNamespaces({ namespaces, maps, words, env, fds }: Start): Promise<number> {
  const unshare = findProgram("unshare");
  if (unshare === undefined) throw new RunFailure("unshare is not installed", 125, "install util-linux");
  const [errors, theirErrors] = createSocketPair();
  const [talk, theirTalk] = createSocketPair();
  const inner = [unshare, ...namespaces, "--", "/bin/sh", "-c", inNamespaces, "sh", ...words];
  const outer =
    maps === undefined
      ? inner
      : [unshare, ...userNamespace(maps), "--", "/bin/sh", "-c", inUserNamespace, "sh", ...inner];
  const pid = spawnProgram({
    file: unshare,
    args: outer,
    env,
    fds: new Map([[2, theirErrors], ...fds.map((fd, i) => [3 + i, fd] as const), [8, theirTalk], [9, 2]]),
    blocked: true,
  });
  closeSync(theirErrors);
  closeSync(theirTalk);
  if (pid < 0) throw new RunFailure(`${unshare}: ${errnoText(errnoName(-pid))}`);
  let failure: unknown;
  try {
    if (maps !== undefined && readAll(talk, 3) === "in\n") {
      writeMaps(pid, maps);
      writeSync(talk, "go\n");
    }
    if (readAll(talk, 3) === "up\n") {
      closeSync(errors);
      return pid;
    }
  } catch (cause) {
    failure = cause;
  } finally {
    // Who waits for word there ends by this.
    closeSync(talk);
  }
  const said = readAll(errors, 4096).trim().split("\n").at(-1);
  closeSync(errors);
  await waitForChild(pid);
  throw failure ?? new RunFailure(said || "unshare ended without a word");
}

/** Where root inside is another user than this one, the rights inside must outlast execve(2) until the program is root. */
function userNamespace({ uids }: NamespaceMaps): readonly string[] {
  const isOwn = uids.some(([inside, outside]) => inside === 0 && outside === process.geteuid?.());
  return isOwn ? ["--user"] : ["--user", "--keep-caps"];
}

/** Up to `limit` bytes, waiting for them until the other side has closed. */
function readAll(fd: number, limit: number): string {
  const bytes = Buffer.alloc(limit);
  let length = 0;
  while (length < limit) {
    const got = readSync(fd, bytes, length, limit - length, null);
    if (got === 0) break;
    length += got;
  }
  return bytes.toString("utf8", 0, length);
}

/** By our own right where one id of ours is mapped, or all are ours to map; else by newuidmap(1) and newgidmap(1). */
function writeMaps(pid: number, { uids, gids }: NamespaceMaps): void {
  const isRoot = process.geteuid?.() === 0;
  const isSingle = [uids, gids].every((map) => map.length === 1 && map[0]?.[2] === 1);
  if (!isRoot && !isSingle) {
    runMapper("newuidmap", pid, uids);
    runMapper("newgidmap", pid, gids);
    return;
  }
  if (!isRoot) writeFileSync(`/proc/${pid}/setgroups`, "deny");
  const text = (map: readonly MapLine[]): string => map.map((line) => `${line.join(" ")}\n`).join("");
  try {
    writeFileSync(`/proc/${pid}/gid_map`, text(gids));
    writeFileSync(`/proc/${pid}/uid_map`, text(uids));
  } catch (cause) {
    throw new RunFailure(`the id map is refused: ${(cause as Error).message}`);
  }
}

function runMapper(name: string, pid: number, map: readonly MapLine[]): void {
  const file = findProgram(name);
  if (file === undefined) throw new RunFailure(`${name} is not installed`, 125, "install the package uidmap");
  const { status, stderr, error } = spawnSync(file, [String(pid), ...map.flat().map(String)], {
    stdio: ["ignore", "ignore", "pipe"],
    encoding: "utf8",
  });
  if (status !== 0) throw new RunFailure(error?.message ?? (stderr.trim() || `${name} failed`));
}
