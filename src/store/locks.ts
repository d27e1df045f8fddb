// Locks of a store: flock(2) on files in STORE/locks, one for each object. The kernel frees what a dead process held.
// Invariant: who holds a lock exclusively removes its file; so whoever gets one looks whether the name is still that file,
// and tries again where it is not.
import { closeSync, constants, fstatSync, openSync, rmSync, statSync } from "node:fs";
import { join } from "node:path";
import { setTimeout as sleep } from "node:timers/promises";
import { Errno, errnoName, errnoText } from "../base/errno.js";
import { flockFd, LOCK_EX, LOCK_NB, LOCK_SH } from "../sys/files.js";
import { StoreError } from "./errors.js";
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

/** Takes a lock that is free now; undefined where somebody else has it. Throws StoreError. */
export function tryLock(store: string, name: string, mode: LockMode): Lock | undefined {
  const path = lockPath(store, name);
  for (;;) {
    const fd = openSync(path, constants.O_RDWR | constants.O_CREAT | constants.O_NOFOLLOW, 0o600);
    const result = flockFd(fd, (mode === "shared" ? LOCK_SH : LOCK_EX) | LOCK_NB);
    if (result === -Errno.EAGAIN) {
      closeSync(fd);
      return undefined;
    }
    if (result < 0) {
      closeSync(fd);
      throw new StoreError("locked", `${path}: ${errnoText(errnoName(-result))}`);
    }
    if (isStill(path, fd)) return { release: () => release(path, fd, mode) };
    closeSync(fd);
  }
}

/** True while the name is still the file that is open. */
export function isStill(path: string, fd: number): boolean {
  const named = statSync(path, { throwIfNoEntry: false, bigint: true });
  return named !== undefined && named.ino === fstatSync(fd, { bigint: true }).ino;
}

function release(path: string, fd: number, mode: LockMode): void {
  if (mode === "exclusive") rmSync(path, { force: true });
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
