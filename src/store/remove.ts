// Removing trees that others have written in: what a container made of an image, what dead processes have left.
// Invariants: whatever is opened is opened by one name in its directory, and never a symlink; nothing is removed where a mount
// lies in it; however deep the tree, few descriptors are open.
import { realpathSync } from "node:fs";
import { basename, dirname, join } from "node:path";
import { bytesOf, displayName, type Name, nameFromText, nameOf } from "../base/bytes.js";
import { Errno, errnoName, errnoText } from "../base/errno.js";
import {
  AT_FDCWD,
  AT_REMOVEDIR,
  chmodAt,
  chmodFd,
  closeFd,
  O_DIRECTORY,
  O_NOFOLLOW,
  O_PATH,
  O_RDONLY,
  openAt,
  readDirectory,
  renameAt,
  unlinkAt,
} from "../sys/files.js";
import { readMounts } from "../sys/mountinfo.js";
import { StoreError } from "./errors.js";

/** Directories that are open at a time; what lies deeper is brought up first. */
const DEEPEST = 64;
/** How often a directory is read again that something new is found in each time. */
const READS = 1000;

/** A mount at `path` or below it, as text; undefined where there is none. */
export function mountWithin(path: string): string | undefined {
  const real = nameFromText(join(realpathSync(dirname(path)), basename(path)));
  const found = readMounts().find(
    ({ mountpoint }) => mountpoint === real || mountpoint.startsWith(`${real}/`),
  );
  return found === undefined ? undefined : displayName(found.mountpoint);
}

/**
 * Removes what is called `path`, with all that is in it; a symlink is removed itself. Nothing to do where there is nothing.
 * Throws StoreError of kind `busy` (a mount lies in it) or `failed` that names what cannot be removed.
 */
export function removeTree(path: string): void {
  const mount = mountWithin(path);
  if (mount !== undefined) throw new StoreError("busy", `${path}: ${mount} is mounted in it`);
  const folder = openAt(AT_FDCWD, Buffer.from(dirname(path)), O_RDONLY | O_DIRECTORY);
  if (folder < 0) throw refused(dirname(path), folder);
  try {
    new Removal(folder, dirname(path), basename(path)).run();
  } finally {
    closeFd(folder);
  }
}

function refused(path: string, result: number): StoreError {
  return new StoreError("failed", `${path}: cannot be removed: ${errnoText(errnoName(-result))}`);
}

/** A directory on the way down. */
interface Level {
  fd: number;
  readonly name: Name;
  /** Directories in it that are still to be removed. */
  readonly below: Name[];
  reads: number;
}

class Removal {
  private readonly folder: number;
  private readonly path: string;
  private readonly top: Name;
  private readonly levels: Level[] = [];
  /** What was brought up, and lies beside `top`. */
  private readonly brought: Name[] = [];
  private names = 0;
  /** An ordinary user's containers leave directories that the user may not change. */
  private readonly mayChange = process.geteuid?.() === 0;

  constructor(folder: number, path: string, top: string) {
    this.folder = folder;
    this.path = path;
    this.top = nameFromText(top);
  }

  run(): void {
    try {
      for (let name: Name | undefined = this.top; name !== undefined; name = this.brought.pop()) {
        this.removeAll(name);
      }
    } finally {
      for (const { fd } of this.levels) closeFd(fd);
    }
  }

  private removeAll(name: Name): void {
    this.enter(this.folder, name);
    for (let level = this.levels.at(-1); level !== undefined; level = this.levels.at(-1)) {
      const next = level.below.pop();
      if (next === undefined) this.leave(level);
      else if (this.levels.length < DEEPEST) this.enter(level.fd, next);
      else this.bringUp(level.fd, next);
    }
  }

  /** Removes a name, or what is a directory becomes the innermost level. */
  private enter(parent: number, name: Name): void {
    const unlinked = unlinkAt(parent, bytesOf(name));
    if (unlinked === 0 || unlinked === -Errno.ENOENT) return;
    if (unlinked !== -Errno.EISDIR && unlinked !== -Errno.EPERM) throw this.refuse(name, unlinked);
    if (unlinkAt(parent, bytesOf(name), AT_REMOVEDIR) === 0) return;
    const fd = this.open(parent, name);
    if (fd === -Errno.ENOENT) return;
    if (fd < 0) throw this.refuse(name, unlinked === -Errno.EPERM && fd === -Errno.ENOTDIR ? unlinked : fd);
    const level = { fd, name, below: [], reads: 0 };
    this.levels.push(level);
    this.read(level);
  }

  /** Removes what is no directory in one, and lists what is. */
  private read(level: Level): void {
    let failed: StoreError | undefined;
    const result = readDirectory(level.fd, (bytes, start, end) => {
      const name = bytes.slice(start, end);
      const unlinked = unlinkAt(level.fd, name);
      if (unlinked === 0 || unlinked === -Errno.ENOENT) return;
      const text = nameOf(name);
      if (unlinked === -Errno.EISDIR || unlinked === -Errno.EPERM) level.below.push(text);
      else failed ??= this.refuse(text, unlinked);
    });
    if (failed !== undefined) throw failed;
    if (result < 0) throw this.refuse(undefined, result);
    level.reads++;
  }

  /** A descriptor of a directory that may be read and changed, or a negative errno. */
  private open(parent: number, name: Name): number {
    const flags = O_DIRECTORY | O_NOFOLLOW;
    const fd = openAt(parent, bytesOf(name), O_RDONLY | flags);
    if (this.mayChange || (fd < 0 && fd !== -Errno.EACCES)) return fd;
    if (fd >= 0) {
      chmodFd(fd, 0o700);
      return fd;
    }
    const place = openAt(parent, bytesOf(name), O_PATH | flags);
    if (place < 0) return place;
    chmodAt(AT_FDCWD, Buffer.from(`/proc/self/fd/${place}`), 0o700);
    closeFd(place);
    return openAt(parent, bytesOf(name), O_RDONLY | flags);
  }

  /** Removes the innermost level, which is empty, unless something was made in it meanwhile or passed over. */
  private leave(level: Level): void {
    const parent = this.levels.at(-2)?.fd ?? this.folder;
    const removed = unlinkAt(parent, bytesOf(level.name), AT_REMOVEDIR);
    if (removed === -Errno.ENOTEMPTY && level.reads < READS) {
      this.rewind(level);
      return;
    }
    if (removed < 0 && removed !== -Errno.ENOENT) throw this.refuse(undefined, removed);
    this.levels.pop();
    closeFd(level.fd);
  }

  private rewind(level: Level): void {
    const parent = this.levels.at(-2)?.fd ?? this.folder;
    const fd = this.open(parent, level.name);
    if (fd < 0) throw this.refuse(undefined, fd);
    closeFd(level.fd);
    level.fd = fd;
    this.read(level);
  }

  /** Moves a directory beside the top one. */
  private bringUp(parent: number, name: Name): void {
    const fd = this.open(parent, name);
    if (fd >= 0) closeFd(fd);
    const up = `${this.top}.${this.names++}` as Name;
    const moved = renameAt(parent, bytesOf(name), this.folder, bytesOf(up));
    if (moved < 0 && moved !== -Errno.ENOENT) throw this.refuse(name, moved);
    this.brought.push(up);
  }

  private refuse(name: Name | undefined, result: number): StoreError {
    const names = [...this.levels.map((level) => level.name), ...(name === undefined ? [] : [name])];
    return refused(join(this.path, ...names.map(displayName)), result);
  }
}
