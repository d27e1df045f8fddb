// Entry of the first process of the command's namespaces. Descriptor 3 gives an InitRequest as one line of JSON, then
// lines with numbers of signals that are for the command; at its end, whoever asked for the run is gone.
// Everything that is needed is loaded before the image becomes the root: afterwards no file of the host can be read.
import { read, readFileSync, statSync } from "node:fs";
import { dieWithParent, limitCapabilities } from "../sys/container.js";
import { closeOnExec } from "../sys/files.js";
import { exitNow } from "../sys/process.js";
import { waitForChild } from "../sys/spawn.js";
import { type Account, findAccount } from "./account.js";
import { type InitRequest, RunCode, RunFailure } from "./request.js";
import { startCommand } from "./start-command.js";
import { readLine, releaseStreams, tellFailure } from "./streams.js";
import { enterRoot } from "./surroundings.js";

const CONTROL_FD = 3;

/** What docker leaves to a container: chown, dac_override, fowner, fsetid, kill, setgid, setuid, setpcap, net_bind_service, net_raw, sys_chroot, mknod, audit_write, setfcap. */
const dockerCapabilities = [0, 1, 3, 4, 5, 6, 7, 8, 10, 13, 18, 27, 29, 31];

/** A file of the image that a person would read; empty where there is none. */
function textOf(path: string): string {
  const stat = statSync(path, { throwIfNoEntry: false });
  return stat?.isFile() && stat.size < 16 << 20 ? readFileSync(path, "latin1") : "";
}

/**
 * The host's root, in a user namespace where it has no id, becomes the root of that. Not before: what this program is
 * loaded from may be open to the host's root alone.
 */
function becomeRoot(): void {
  if (process.geteuid?.() === 0) return;
  process.setgroups?.([]);
  process.setgid?.(0);
  process.setuid?.(0);
  dieWithParent();
}

/** Becomes the account, for good. */
function become({ uid, gid, groups }: Account): void {
  const id = `${uid}:${gid}`;
  try {
    // Where groups may not be set there is one id, and the caller's groups remain.
    if (readFileSync("/proc/self/setgroups", "latin1").trim() !== "deny") process.setgroups?.([...groups]);
    if (gid !== 0) process.setgid?.(gid);
    if (uid !== 0) process.setuid?.(uid);
  } catch (cause) {
    if ((cause as NodeJS.ErrnoException).code !== "EINVAL") throw cause;
    throw new RunFailure(
      `user ${id}: this user namespace has no such id`,
      RunCode.failure,
      "an entry in /etc/subuid and /etc/subgid and the package uidmap give more ids; --user 0 needs none",
    );
  }
  if (uid !== 0) dieWithParent();
}

function enterWorkdir(workdir: string): void {
  try {
    process.chdir(workdir);
  } catch (cause) {
    throw new RunFailure(`workdir ${workdir}: ${(cause as Error).message}`, RunCode.notExecutable);
  }
}

/** Hands signals on until the other side is gone, which ends everything here. */
function listen(onSignal: (signal: number) => void): void {
  const bytes = Buffer.alloc(256);
  let text = "";
  const next = (): void => {
    read(CONTROL_FD, bytes, 0, bytes.length, null, (error, length) => {
      if (error !== null || length === 0) exitNow(128 + 9);
      const lines = (text + bytes.toString("latin1", 0, length)).split("\n");
      text = lines.pop() as string;
      for (const line of lines) onSignal(Number(line));
      next();
    });
  };
  next();
}

async function main(): Promise<number> {
  closeOnExec(CONTROL_FD);
  const { rootfs, command, surroundings, hostRoot } = JSON.parse(readLine(CONTROL_FD)) as InitRequest;
  process.umask(0o022);
  becomeRoot();
  enterRoot(rootfs, surroundings, command.workdir, hostRoot);
  const account = findAccount(command.user, textOf("/etc/passwd"), textOf("/etc/group"));
  if (hostRoot) limitCapabilities(dockerCapabilities);
  become(account);
  enterWorkdir(command.workdir);
  const pid = startCommand(command.words, { HOME: account.home, ...command.env });
  releaseStreams([0, 1, 2]);
  listen((signal) => {
    try {
      process.kill(pid, signal);
    } catch {
      // It has ended, or has become somebody else.
    }
  });
  for (;;) {
    const ended = await waitForChild(-1);
    if (ended === undefined || ended.pid === pid) return ended?.code ?? RunCode.failure;
  }
}

void main()
  .catch(tellFailure)
  // With the first process of a pid namespace every other one in it ends.
  .then(exitNow);
