// A directory tree on this machine, object by object, in an order that depends on names only: a directory before what
// is in it, siblings by the bytes of their names.
// Invariants: nothing outside the tree is opened, whatever is renamed meanwhile: every step is one name in a directory
// that is held open, and no symlink is followed but the path of the tree itself. What is told of an object was true at
// one moment: whoever changes it between its first look and its last ends the walk with an error.
// Filesystems mounted inside belong to the tree.
import { bytesOf, displayName, type Name, nameOf } from "../../base/bytes.js";
import { Errno, errnoName, errnoText } from "../../base/errno.js";
import type { Xattr } from "../../imgfs/tree.js";
import {
  AT_FDCWD,
  closeFd,
  noName,
  O_DIRECTORY,
  O_NOFOLLOW,
  O_PATH,
  openAt,
  readDirectory,
  readlinkAt,
  reopenDirectory,
} from "../../sys/files.js";
import { allocatePages } from "../../sys/memory.js";
import {
  emptyStat,
  exactIno,
  S_IFDIR,
  S_IFLNK,
  S_IFMT,
  S_IFSOCK,
  type Stat,
  statFd,
} from "../../sys/stat.js";
import { readXattrAt, readXattrNamesAt } from "../../sys/xattr.js";

/** One object, in use until the next is asked for. */
export interface TreeObject {
  /** From the root of the tree; empty for the root itself. */
  readonly path: Buffer;
  readonly stat: Stat;
  /** Sorted by name. */
  readonly xattrs: readonly Xattr[];
  /** Target of a symlink. */
  readonly target: Buffer | undefined;
  /** Path of an object before this one that is the same inode. */
  readonly sameAs: Buffer | undefined;
  /** O_PATH descriptor of it. */
  readonly fd: number;
}

interface Level {
  readonly fd: number;
  readonly path: Buffer;
  readonly stat: Stat;
  readonly names: readonly Name[];
  next: number;
}

interface Known {
  readonly path: Buffer;
  readonly stat: Stat;
  /** Names that may still come. */
  left: number;
}

const slash = Buffer.from("/");
const targetScratch = allocatePages(4096);

/** An Error that names an object of the tree. */
export function treeFault(path: Uint8Array, what: string): Error {
  return new Error(`${path.length === 0 ? "the root of the tree" : displayName(path)}: ${what}`);
}

const changed = "it changed while it was being read";

/** `result` unless it is a negative errno; what is gone meanwhile has changed. */
export function checkCall(result: number, path: Uint8Array, what: string): number {
  if (result >= 0) return result;
  const gone = result === -Errno.ENOENT || result === -Errno.ENOTDIR || result === -Errno.ENODATA;
  throw treeFault(path, gone ? changed : `${what}: ${errnoText(errnoName(-result))}`);
}

/**
 * The tree at `root`, a path that may be a symlink. `skipped` is told of each socket, which no image can hold. Throws
 * one-line Errors that name the object by its path in the tree.
 */
export function* walkTree(root: string, skipped: (path: Buffer) => void): Generator<TreeObject, void> {
  const known = new Map<string, Known>();
  const levels: Level[] = [];
  const top = Buffer.alloc(0);
  const fd = checkCall(openAt(AT_FDCWD, Buffer.from(root), O_PATH | O_DIRECTORY), top, "open");
  try {
    yield* visit(fd, top);
    for (let level = levels.at(-1); level !== undefined; level = levels.at(-1)) {
      const name = level.names[level.next++];
      if (name === undefined) {
        checkUnchanged(level.fd, level.stat, level.path);
        levels.pop();
        closeFd(level.fd);
        continue;
      }
      const bytes = bytesOf(name);
      const path = level.path.length === 0 ? bytes : Buffer.concat([level.path, slash, bytes]);
      const child = checkCall(openAt(level.fd, bytes, O_PATH | O_NOFOLLOW), path, "open");
      try {
        yield* visit(child, path);
      } finally {
        closeFd(child);
      }
    }
  } finally {
    closeFd(fd);
    for (const level of levels) closeFd(level.fd);
  }

  function* visit(fd: number, path: Buffer): Generator<TreeObject, void> {
    const stat = statOf(fd, path);
    const type = stat.mode & S_IFMT;
    if (type === S_IFSOCK) {
      skipped(path);
      return;
    }
    const sameAs = type === S_IFDIR || stat.nlink < 2 ? undefined : remember(path, stat);
    const target = type === S_IFLNK ? targetOf(fd, path) : undefined;
    yield { path, stat, xattrs: xattrsOf(fd, path), target, sameAs, fd };
    checkUnchanged(fd, stat, path);
    if (type === S_IFDIR) levels.push(openLevel(fd, path, stat));
  }

  /** The earlier name of the inode that statOf has just looked at. */
  function remember(path: Buffer, stat: Stat): Buffer | undefined {
    const key = `${stat.dev} ${exactIno()}`;
    const first = known.get(key);
    if (first === undefined) {
      known.set(key, { path, stat, left: stat.nlink - 1 });
      return undefined;
    }
    if (!isSame(first.stat, stat)) throw treeFault(path, changed);
    first.left--;
    if (first.left === 0) known.delete(key);
    return first.path;
  }
}

function openLevel(fd: number, path: Buffer, stat: Stat): Level {
  const names: Name[] = [];
  const readable = checkCall(reopenDirectory(fd), path, "open");
  const result = readDirectory(readable, (bytes, start, end) => names.push(nameOf(bytes, start, end)));
  if (result < 0) closeFd(readable);
  checkCall(result, path, "read the directory");
  names.sort();
  return { fd: readable, path, stat, names, next: 0 };
}

function statOf(fd: number, path: Buffer): Stat {
  const stat = emptyStat();
  checkCall(statFd(fd, stat), path, "stat");
  return stat;
}

/** Throws when an object is not what it was; a file's data are covered by its times. */
function checkUnchanged(fd: number, before: Stat, path: Buffer): void {
  if (!isSame(before, statOf(fd, path))) throw treeFault(path, changed);
}

function isSame(a: Stat, b: Stat): boolean {
  return (
    a.mode === b.mode &&
    a.uid === b.uid &&
    a.gid === b.gid &&
    a.size === b.size &&
    a.nlink === b.nlink &&
    a.rdev === b.rdev &&
    a.mtimeSec === b.mtimeSec &&
    a.mtimeNsec === b.mtimeNsec &&
    a.ctimeSec === b.ctimeSec &&
    a.ctimeNsec === b.ctimeNsec
  );
}

function targetOf(fd: number, path: Buffer): Buffer {
  const { address, length, bytes } = targetScratch;
  const size = checkCall(readlinkAt(fd, noName, address, length), path, "read the symlink");
  return Buffer.from(bytes.subarray(0, size));
}

/** Marks of the storage that a tree may lie in, not of the tree: overlayfs's, fuse-overlayfs's and our own. */
const storageMarks = ["trusted.overlay.", "user.overlay.", "user.fuseoverlayfs.", "user.imgfs."];

/** Attributes a host adds by itself, from which it follows that the same tree would differ between hosts. */
const hostMarks = ["security.selinux", "security.evm", "security.SMACK64"];

/** Namespaces that mean something elsewhere; of system. the two that ACLs are. */
const kept = /^(?:user\.|trusted\.|security\.|system\.posix_acl_(?:access|default)$)/;

function isKept(name: Name): boolean {
  return (
    kept.test(name) && !hostMarks.includes(name) && !storageMarks.some((prefix) => name.startsWith(prefix))
  );
}

function xattrsOf(fd: number, path: Buffer): readonly Xattr[] {
  const list = readXattrNamesAt(fd, noName);
  if (list === -Errno.EOPNOTSUPP || list === 0) return [];
  if (typeof list === "number") checkCall(list, path, "list the extended attributes");
  const names = nameOf(list as Buffer).split("\0") as Name[];
  return names
    .filter((name) => name !== "" && isKept(name))
    .sort()
    .map((name) => {
      const value = readXattrAt(fd, noName, bytesOf(name));
      if (typeof value === "number")
        checkCall(value, path, `read the extended attribute ${displayName(name)}`);
      return { name, value: value as Buffer };
    });
}
