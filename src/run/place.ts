// The temporary folder of one run: the mountpoint, and the upper directory where none was named. It is locked as long as
// anybody of the run lives, so that the next run can tell what a killed one has left, and remove it.
// Never: touching a folder that is not this user's, or whose lock is held.
import {
  closeSync,
  lstatSync,
  mkdirSync,
  mkdtempSync,
  openSync,
  readdirSync,
  renameSync,
  rmSync,
} from "node:fs";
import { tmpdir } from "node:os";
import { basename, join } from "node:path";
import { flockFd, LOCK_EX, LOCK_NB } from "../sys/files.js";
import { RunFailure } from "./request.js";

const PREFIX = "imgfs-run-";
/** A folder that is not locked yet. */
const NEW_PREFIX = "imgfs-new-";
const LOCK = "lock";
/** The mountpoint in the folder. */
export const ROOTFS = "rootfs";

export interface Place {
  readonly folder: string;
  readonly rootfs: string;
  /** For an upper directory that goes with the folder. */
  readonly upper: string;
  /** Holds the lock; whoever inherits it holds it, too. */
  readonly lockFd: number;
}

/** Makes the folder, for this user alone. Throws RunFailure. */
export function makePlace(): Place {
  try {
    const fresh = mkdtempSync(join(tmpdir(), NEW_PREFIX));
    const lockFd = openSync(join(fresh, LOCK), "w", 0o600);
    flockFd(lockFd, LOCK_EX | LOCK_NB);
    const folder = join(tmpdir(), basename(fresh).replace(NEW_PREFIX, PREFIX));
    renameSync(fresh, folder);
    const rootfs = join(folder, ROOTFS);
    mkdirSync(rootfs);
    return { folder, rootfs, upper: join(folder, "upper"), lockFd };
  } catch (cause) {
    throw new RunFailure(`temporary folder: ${(cause as Error).message}`, 125, "TMPDIR names another one");
  }
}

/** Folders of runs that were killed, of this user. */
export function findLeftovers(): string[] {
  const parent = tmpdir();
  try {
    const names = readdirSync(parent).filter((name) => name.startsWith(PREFIX));
    return names.map((name) => join(parent, name)).filter(isDead);
  } catch {
    // Where nothing can be listed nothing is found; a new folder may still be made.
    return [];
  }
}

function isDead(folder: string): boolean {
  try {
    const { uid } = lstatSync(folder);
    if (uid !== process.geteuid?.() || !lstatSync(join(folder, LOCK)).isFile()) return false;
    const fd = openSync(join(folder, LOCK), "r+");
    const held = flockFd(fd, LOCK_EX | LOCK_NB);
    closeSync(fd);
    return held === 0;
  } catch {
    // Gone meanwhile, or not readable.
    return false;
  }
}

/** Removes a run's folder; false where something in it is not this user's to remove. The lock's file goes last. */
export function removePlace(folder: string): boolean {
  try {
    for (const name of readdirSync(folder).filter((each) => each !== LOCK)) {
      rmSync(join(folder, name), { recursive: true, force: true });
    }
    rmSync(folder, { recursive: true, force: true });
    return true;
  } catch {
    return false;
  }
}
