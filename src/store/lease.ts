// What a process at work on a store has registered: a locked file that says which content it needs, and a folder for what it
// is making. With the process the lock goes, and whoever comes next removes what is left.
// Invariants: a lease has its name only once it is locked; content that a live lease lists is not removed, because it is
// listed under the lock that `clean` looks under, one name a line; nothing is ever taken off that list.
import { randomBytes } from "node:crypto";
import {
  closeSync,
  constants,
  mkdirSync,
  openSync,
  readdirSync,
  readFileSync,
  renameSync,
  rmSync,
  writeSync,
} from "node:fs";
import { join } from "node:path";
import { flockFd, LOCK_EX, LOCK_NB, LOCK_SH } from "../sys/files.js";
import { isAside, removeAsides } from "./aside.js";
import { wordsOf } from "./errors.js";
import { fault } from "./fault.js";
import { isFile, isThere } from "./files.js";
import { isStill, keepSpare, underLock } from "./locks.js";
import { removeTree } from "./remove.js";
import type { Measure, Store } from "./store.js";

/** The lock under which leases list content, shared, and `clean` looks at them. */
export const GC_LOCK = "groot-gc-lock";

const NEW_SUFFIX = ".new";
const NEW = /\.new$/;

export class Lease {
  readonly name: string;
  /** For what is being made; on the store's filesystem. */
  readonly folder: string;
  private readonly store: Store;
  private readonly fd: number;
  private readonly needed = new Set<string>();
  private listed = 0;

  private constructor(store: Store, name: string, fd: number) {
    this.store = store;
    this.name = name;
    this.folder = join(store.path, "tmp", name);
    this.fd = fd;
  }

  /** Registers this process, and removes what dead ones have left. */
  static begin(store: Store): Lease {
    sweep(store);
    const { name, fd } = register(join(store.path, "leases"));
    const lease = new Lease(store, name, fd);
    try {
      mkdirSync(lease.folder, { mode: 0o700 });
      return lease;
    } catch (cause) {
      lease.end();
      throw cause;
    }
  }

  /** A path in the lease's folder. */
  path(name: string): string {
    return join(this.folder, name);
  }

  /** From here on these files of STORE/content stay, whether they are there yet or not. */
  async need(
    names: Iterable<string>,
    options: { signal?: AbortSignal | undefined; measure?: Measure | undefined } = {},
  ): Promise<void> {
    const more = [...new Set(names)].filter((name) => !this.needed.has(name));
    if (more.length === 0) return;
    await underLock(this.store.path, GC_LOCK, "shared", options, () => {
      fault("lease.list");
      const text = Buffer.from(more.map((name) => `${name}\n`).join(""));
      for (let at = 0; at < text.length; ) {
        const written = writeSync(this.fd, text, at, text.length - at, this.listed);
        at += written;
        this.listed += written;
      }
      for (const name of more) this.needed.add(name);
    });
  }

  /** Gives it back, with what is left in its folder. What cannot be removed is left to the next one that sweeps. */
  end(): void {
    try {
      removeTree(this.folder);
      rmSync(join(this.store.path, "leases", this.name), { force: true });
    } catch (cause) {
      this.store.warn?.(wordsOf(cause));
    } finally {
      closeSync(this.fd);
    }
  }
}

/** Makes a lease's file. Whoever sweeps may take one for left over before it is locked: then another is made. */
function register(folder: string): { name: string; fd: number } {
  for (;;) {
    const name = `${process.pid}-${randomBytes(6).toString("hex")}`;
    const path = join(folder, name);
    fault("lease.make");
    const fd = openSync(path + NEW_SUFFIX, constants.O_RDWR | constants.O_CREAT | constants.O_EXCL, 0o600);
    if (flockFd(fd, LOCK_EX | LOCK_NB) === 0 && isStill(path + NEW_SUFFIX, fd)) {
      renameSync(path + NEW_SUFFIX, path);
      return { name, fd };
    }
    closeSync(fd);
  }
}

/** Runs `work` with a lease of its own. */
export async function withLease<T>(store: Store, work: (lease: Lease) => Promise<T>): Promise<T> {
  const lease = Lease.begin(store);
  try {
    return await work(lease);
  } finally {
    lease.end();
  }
}

/** True while the process that has this lease lives. */
export function isLive(store: Store, name: string): boolean {
  const fd = openLease(store, name);
  if (fd === undefined) return false;
  try {
    return isHeld(fd);
  } finally {
    closeSync(fd);
  }
}

/** Shared: two that look at a dead lease at once do not take each other for its process. */
function isHeld(fd: number): boolean {
  return flockFd(fd, LOCK_SH | LOCK_NB) < 0;
}

function openLease(store: Store, name: string): number | undefined {
  const path = join(store.path, "leases", name);
  try {
    return isFile(path) ? openSync(path, constants.O_RDWR | constants.O_NOFOLLOW) : undefined;
  } catch {
    return undefined;
  }
}

/** Names of content that live leases list. To be called under {@link GC_LOCK}, exclusively. */
export function leasedContent(store: Store): Set<string> {
  const names = new Set<string>();
  for (const lease of readdirSync(join(store.path, "leases"))) {
    const fd = openLease(store, lease);
    if (fd === undefined) continue;
    try {
      if (!isHeld(fd)) continue;
      // By the descriptor: the name goes when the process is done.
      for (const name of readFileSync(fd, "utf8").split("\n")) names.add(name);
    } finally {
      closeSync(fd);
    }
  }
  return names;
}

/**
 * Removes what processes have left that died; what cannot be removed stays for the next one, with a warning. Content that a
 * clean took out is left to the next clean.
 */
export function sweep(store: Store): void {
  const onFailure = (cause: unknown): void => {
    store.warn?.(`left by a process that died: ${wordsOf(cause)}`);
  };
  const attempt = (step: () => void): void => {
    try {
      fault("sweep.remove");
      step();
    } catch (cause) {
      onFailure(cause);
    }
  };
  const [leases, tmp] = [join(store.path, "leases"), join(store.path, "tmp")];
  // Before the leases: what a process makes comes after its lease, and goes before it.
  const making = readdirSync(tmp).filter((name) => !isAside(name));
  for (const name of readdirSync(leases)) {
    const path = join(leases, name);
    const fd = openLease(store, name);
    if (fd === undefined) {
      // Gone meanwhile, or no lease.
      if (isThere(path) && !isFile(path)) attempt(() => removeTree(path));
      continue;
    }
    try {
      if (flockFd(fd, LOCK_EX | LOCK_NB) < 0 || !isStill(path, fd)) continue;
      attempt(() => {
        removeTree(join(tmp, name.replace(NEW, "")));
        rmSync(path, { force: true });
      });
    } finally {
      closeSync(fd);
    }
  }
  for (const name of making) {
    if (!isThere(join(leases, name))) attempt(() => removeTree(join(tmp, name)));
  }
  removeAsides(store, "gone", "sweep.remove", onFailure);
  keepSpare(store.path);
}
