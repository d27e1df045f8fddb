// What was taken out of the store and is to be removed: it lies in tmp under a name of its own, `gone.*` from an image and
// `gc.*` from the content. Who removes it holds its flock(2), so that nobody else does the same work beside it; what a dead
// process has left is removed by whoever comes next, or where it is content by the next clean.
// Invariant: to take something out needs no room on the disk but for a name.
import { randomBytes } from "node:crypto";
import { closeSync, constants, lstatSync, openSync, readdirSync, renameSync } from "node:fs";
import { join } from "node:path";
import { flockFd, LOCK_EX, LOCK_NB } from "../sys/files.js";
import { fault, type StoreFaultPoint } from "./fault.js";
import { isFolder } from "./files.js";
import { removeTree } from "./remove.js";
import type { Store } from "./store.js";

export type AsideKind = "gone" | "gc";

export interface Aside {
  readonly path: string;
  /** Removes it. Throws StoreError; then the next one may. */
  remove(): void;
}

/** True for a name in tmp that is of this module. */
export function isAside(name: string, kind?: AsideKind): boolean {
  return kind === undefined ? /^(gone|gc)\./.test(name) : name.startsWith(`${kind}.`);
}

/** Takes what is called `path` out of the store. Throws what rename(2) fails with. */
export function takeAside(store: Store, path: string, kind: AsideKind): Aside {
  const name = `${kind}.${process.pid}-${randomBytes(6).toString("hex")}`;
  const fd = lockedFd(path);
  const aside = join(store.path, "tmp", name);
  try {
    renameSync(path, aside);
  } catch (cause) {
    if (typeof fd === "number") closeSync(fd);
    throw cause;
  }
  return {
    path: aside,
    remove: () => {
      try {
        removeTree(aside);
      } finally {
        if (typeof fd === "number") closeSync(fd);
      }
    },
  };
}

/** Makes way for a file where a folder is in its place, which nothing of ours is; any other thing a rename replaces. */
export function clearPlace(store: Store, path: string): void {
  if (isFolder(path)) takeAside(store, path, "gone").remove();
}

/** Removes what nobody is removing. `onFailure` is told what cannot be removed, and `before` each may end it by throwing. */
export function removeAsides(
  store: Store,
  kind: AsideKind,
  point: StoreFaultPoint,
  onFailure: (cause: unknown) => void,
  before: () => void = () => {},
): void {
  const folder = join(store.path, "tmp");
  for (const name of readdirSync(folder)) {
    if (!isAside(name, kind)) continue;
    before();
    const fd = lockedFd(join(folder, name));
    if (fd === "held") continue;
    try {
      fault(point);
      removeTree(join(folder, name));
    } catch (cause) {
      onFailure(cause);
    } finally {
      if (fd !== undefined) closeSync(fd);
    }
  }
}

/** What is neither a folder nor a file, or cannot be opened, has no lock. */
function lockedFd(path: string): number | "held" | undefined {
  let fd: number;
  try {
    const stat = lstatSync(path);
    if (!stat.isDirectory() && !stat.isFile()) return undefined;
    fd = openSync(path, constants.O_RDONLY | constants.O_NOFOLLOW | constants.O_NONBLOCK);
  } catch {
    return undefined;
  }
  if (flockFd(fd, LOCK_EX | LOCK_NB) === 0) return fd;
  closeSync(fd);
  return "held";
}
