// Unmounting for the command line: takes the mount away and waits until its process has ended, so that the upper
// directory is free when the command returns.
import { setTimeout as sleep } from "node:timers/promises";
import { nameFromText } from "../base/bytes.js";
import { Errno, errnoName, errnoText } from "../base/errno.js";
import { type TakenAway, takeAway } from "../fuse/take-away.js";
import { readMounts } from "../sys/mountinfo.js";
import { processStartTime } from "../sys/process-time.js";
import { MountFailure } from "./options.js";
import { isOurs } from "./place.js";
import { type ProbeAnswer, probeMount } from "./probe.js";
import { resolveTarget } from "./target.js";

/** How long a process may take to end after its mount is gone, in milliseconds. */
const END_LIMIT = 60_000;

/** How long a mount must be in use to be called that, in milliseconds. */
const BUSY_LIMIT = 500;

export interface UnmountOptions {
  /** Detach a mount that is in use; its process ends with the last user. Then nothing is waited for. */
  readonly lazy: boolean;
}

/** Rejects with MountFailure: no imgfs mount there, in use, or a process that does not end. */
export async function unmount(mountpoint: string, options: UnmountOptions): Promise<void> {
  const mounts = readMounts();
  let target: string;
  try {
    target = resolveTarget(mountpoint, mounts);
  } catch (cause) {
    throw cause instanceof MountFailure ? new MountFailure(`umount: ${cause.message}`) : cause;
  }
  if (!isOurs(mounts, nameFromText(target))) throw new MountFailure(`umount: ${target}: not an imgfs mount`);
  const owner = await probeMount(target);
  if (owner.kind === "hung" && !options.lazy) {
    throw new MountFailure(`umount: ${target}: its process does not answer (--lazy takes the mount away)`);
  }
  const lazy = options.lazy || owner.kind === "dead";
  const { status: result, said } = await takeAwayPatiently(target, lazy);
  if (result === -Errno.EBUSY) throw new MountFailure(`umount: ${target}: target is busy`);
  if (result === -Errno.EPERM) {
    const why = said === "" ? "" : ` (${said})`;
    throw new MountFailure(`umount: ${target}: must be who mounted it, or root${why}`);
  }
  // EINVAL: somebody else has just unmounted it. What is left is to wait for its process, as for our own unmount.
  if (result < 0 && result !== -Errno.EINVAL) {
    throw new MountFailure(`umount: ${target}: ${errnoText(errnoName(-result))}`);
  }
  if (!lazy) await waitForEnd(target, owner);
}

/** Who only passes through (a process that is just ending, a scan of the disk) is waited for. */
async function takeAwayPatiently(target: string, lazy: boolean): Promise<TakenAway> {
  const deadline = performance.now() + BUSY_LIMIT;
  for (;;) {
    const taken = await takeAway(target, lazy);
    if (taken.status !== -Errno.EBUSY || performance.now() > deadline) return taken;
    await sleep(20);
  }
}

async function waitForEnd(target: string, owner: ProbeAnswer): Promise<void> {
  if (owner.kind !== "daemon") return;
  const deadline = performance.now() + END_LIMIT;
  for (let pause = 2; processStartTime(owner.pid) === owner.startTime; pause = Math.min(pause * 2, 50)) {
    if (performance.now() > deadline) {
      throw new MountFailure(
        `umount: ${target}: unmounted, but process ${owner.pid} still serves it, perhaps in another mount namespace`,
      );
    }
    await sleep(pause);
  }
}
