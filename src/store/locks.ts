// Locks of a store: flock(2) on files in STORE/locks, one for each object. The kernel frees what a dead process held.
// Invariants: who holds a lock exclusively removes its file; so whoever gets one looks whether the name is still that file,
// and tries again where it is not. Where the disk has no room for another file a spare one gets the name.
import { closeSync, constants, fstatSync, openSync, rmSync, statSync } from "node:fs";
import { join } from "node:path";
import { setTimeout as sleep } from "node:timers/promises";
import { Errno, errnoName, errnoText } from "../base/errno.js";
import { AT_FDCWD, flockFd, LOCK_EX, LOCK_NB, LOCK_SH, RENAME_NOREPLACE, renameAt } from "../sys/files.js";
import { StoreError } from "./errors.js";
import { isFile } from "./files.js";
import type { Measure } from "./store.js";

const FIRST_PAUSE = 2;
const LONGEST_PAUSE = 50;

export interface Lock {
  release(): void;
}

export type LockMode = "shared" | "exclusive";

function lockPath(store: string, name: string): string {
  return join(store, "locks", `${name}.lock`);
}

const { O_RDWR, O_CREAT, O_EXCL, O_NOFOLLOW } = constants;

function sparePath(store: string): string {
  return join(store, "locks", "spare");
}

/** Makes the spare file where there is none and there is room for it. */
export function keepSpare(store: string): void {
  if (isFile(sparePath(store))) return;
  try {
    closeSync(openSync(sparePath(store), O_RDWR | O_CREAT | O_EXCL, 0o600));
  } catch {
    // Somebody else has just made it, or it is for another time.
  }
}

/** Renames where nothing has the new name: 0 or a negative errno. */
function renameFree(from: string, to: string): number {
  return renameAt(AT_FDCWD, Buffer.from(from), AT_FDCWD, Buffer.from(to), RENAME_NOREPLACE);
}

/** Opens a lock's file, which is made where it is not there. Throws StoreError. */
function openLock(store: string, path: string): number {
  for (;;) {
    try {
      return openSync(path, O_RDWR | O_CREAT | O_NOFOLLOW, 0o600);
    } catch (cause) {
      const code = (cause as NodeJS.ErrnoException).code ?? "EIO";
      const full = code === "ENOSPC" || code === "EDQUOT";
      // Somebody else may have made it meanwhile, and that is as good.
      const spared = full ? renameFree(sparePath(store), path) : -Errno.ENOENT;
      if (spared !== 0 && spared !== -Errno.EEXIST) throw lockError(path, code);
    }
  }
}

function lockError(path: string, code: string): StoreError {
  return new StoreError("locked", `${path}: ${errnoText(code)}`);
}

/** Takes a lock that is free now; undefined where somebody else has it. Throws StoreError. */
export function tryLock(store: string, name: string, mode: LockMode): Lock | undefined {
  const path = lockPath(store, name);
  for (;;) {
    const fd = openLock(store, path);
    const result = flockFd(fd, (mode === "shared" ? LOCK_SH : LOCK_EX) | LOCK_NB);
    if (result === -Errno.EAGAIN) {
      closeSync(fd);
      return undefined;
    }
    if (result < 0) {
      closeSync(fd);
      throw lockError(path, errnoName(-result));
    }
    if (isStill(path, fd)) return { release: () => release(store, path, fd, mode) };
    closeSync(fd);
  }
}

/** True while the name is still the file that is open. */
export function isStill(path: string, fd: number): boolean {
  const named = statSync(path, { throwIfNoEntry: false, bigint: true });
  return named !== undefined && named.ino === fstatSync(fd, { bigint: true }).ino;
}

/** Its file becomes the spare one where there is none, as after a disk that was full. */
function release(store: string, path: string, fd: number, mode: LockMode): void {
  if (mode === "exclusive" && renameFree(path, sparePath(store)) !== 0) rmSync(path, { force: true });
  closeSync(fd);
}

/**
 * Takes a lock, waiting for at most `patience` milliseconds. Rejects with StoreError of kind `locked`, or with the signal's
 * reason.
 */
export async function takeLock(
  store: string,
  name: string,
  mode: LockMode,
  {
    patience = Infinity,
    signal,
    measure,
  }: { patience?: number; signal?: AbortSignal | undefined; measure?: Measure | undefined } = {},
): Promise<Lock> {
  const start = performance.now();
  for (let pause = FIRST_PAUSE; ; pause = Math.min(pause * 2, LONGEST_PAUSE)) {
    const lock = tryLock(store, name, mode);
    if (lock !== undefined) {
      const waited = Math.round((performance.now() - start) * 1e6);
      measure?.(mode === "shared" ? "SharedLockingTime" : "ExclusiveLockingTime", waited, "nanos");
      return lock;
    }
    if (performance.now() - start > patience) {
      throw new StoreError(
        "locked",
        `timed out waiting for the '${name}' file lock after '${Math.round(patience / 1000)}s'`,
      );
    }
    await sleep(pause, undefined, { signal });
  }
}

/** Runs `work` under a lock. Rejects as {@link takeLock}. */
export async function underLock<T>(
  store: string,
  name: string,
  mode: LockMode,
  options: Parameters<typeof takeLock>[3],
  work: () => T | Promise<T>,
): Promise<T> {
  const lock = await takeLock(store, name, mode, options);
  try {
    return await work();
  } finally {
    lock.release();
  }
}
