// Serving a mount in the process that was called, which leaves its caller behind: session, directory and terminal.
import { closeSync, openSync } from "node:fs";
import { exitNow, newSession } from "../sys/process.js";
import { givenFd } from "./given-fd.js";
import { keepsLog } from "./log-place.js";
import { type MountFailure, type MountOptions, resolveOptions } from "./options.js";
import { runMount } from "./process.js";
import type { ServingThread } from "./thread.js";

/**
 * Mounts, calls `onLive`, and serves until the mount is gone; then resolves to the exit code. Rejects with MountFailure
 * when the mount never served. From `onLive` on standard input and output are /dev/null.
 */
export async function serveDetached(
  options: MountOptions,
  thread: ServingThread,
  onLive: () => void,
): Promise<number> {
  const given = givenFd(options.mountpoint);
  const resolved = { ...resolveOptions(options), ...(given === undefined ? {} : { channelFd: given }) };
  newSession();
  process.chdir("/");
  const onReady = (): void => {
    leaveStream(0);
    leaveStream(1);
    if (!keepsLog(2)) leaveStream(2);
    onLive();
  };
  const onAbandon = (exitCode: number, failure?: MountFailure): void => {
    if (failure !== undefined) process.stderr.write(`imgfs: ${failure.message}\n`);
    exitNow(exitCode);
  };
  return runMount(resolved, { onReady, onAbandon }, thread);
}

/** Closes a standard descriptor; open(2) takes the lowest that is free, so /dev/null has its number then. */
export function leaveStream(fd: number): void {
  try {
    closeSync(fd);
  } catch {
    // It was closed from the start.
  }
  openSync("/dev/null", "r+");
}
