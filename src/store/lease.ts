// What a process at work on a store has registered: a locked file that says which content it needs, and a folder for what it
// is making. With the process the lock goes, and whoever comes next removes what is left.
// Invariants: a lease has its name only once it is locked; content that a live lease lists is not removed, because it is
// listed under the lock that `clean` looks under.
import { randomBytes } from "node:crypto";
import {
  closeSync,
  constants,
  ftruncateSync,
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
import { fault } from "./fault.js";
import { isStill, underLock } from "./locks.js";
import type { Measure, Store } from "./store.js";

/** The lock under which leases list content, shared, and `clean` looks at them. */
export const GC_LOCK = "groot-gc-lock";

export class Lease {
  readonly name: string;
  /** For what is being made; on the store's filesystem. */
  readonly folder: string;
  private readonly store: Store;
  private readonly fd: number;
  private readonly needed = new Set<string>();

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
    mkdirSync(lease.folder, { mode: 0o700 });
    return lease;
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
    for (const name of names) this.needed.add(name);
    await underLock(this.store.path, GC_LOCK, "shared", options, () => {
      fault("lease.list");
      const text = Buffer.from(JSON.stringify([...this.needed]));
      ftruncateSync(this.fd, 0);
      writeSync(this.fd, text, 0, text.length, 0);
    });
  }

  /** Gives it back, with what is left in its folder. */
  end(): void {
    rmSync(this.folder, { recursive: true, force: true });
    rmSync(join(this.store.path, "leases", this.name), { force: true });
    closeSync(this.fd);
  }
}

/** Makes a lease's file. Whoever sweeps may take one for left over before it is locked: then another is made. */
function register(folder: string): { name: string; fd: number } {
  for (;;) {
    const name = `${process.pid}-${randomBytes(6).toString("hex")}`;
    const path = join(folder, name);
    fault("lease.make");
    const fd = openSync(`${path}.new`, constants.O_RDWR | constants.O_CREAT | constants.O_EXCL, 0o600);
    if (flockFd(fd, LOCK_EX | LOCK_NB) === 0 && isStill(`${path}.new`, fd)) {
      renameSync(`${path}.new`, path);
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
  try {
    return openSync(join(store.path, "leases", name), constants.O_RDWR | constants.O_NOFOLLOW);
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
      const text = readFileSync(fd, "utf8");
      for (const name of text === "" ? [] : (JSON.parse(text) as string[])) names.add(name);
    } finally {
      closeSync(fd);
    }
  }
  return names;
}

/** Removes what processes have left that died. */
export function sweep(store: Store): void {
  const leases = join(store.path, "leases");
  for (const name of readdirSync(leases)) {
    const fd = openLease(store, name);
    if (fd === undefined) continue;
    try {
      if (flockFd(fd, LOCK_EX | LOCK_NB) < 0 || !isStill(join(leases, name), fd)) continue;
      fault("sweep.remove");
      rmSync(join(store.path, "tmp", name.replace(/\.new$/, "")), { recursive: true, force: true });
      rmSync(join(leases, name), { force: true });
    } finally {
      closeSync(fd);
    }
  }
}
