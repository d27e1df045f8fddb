// Copy-up: an object of the image becomes one of the upper directory, with everything it has, before its first
// change. Parents first; staged in WORK/tmp; committed by one rename; memory changes only after that.
// Identity stays: same nodeid, same st_ino, and every name of a hard-linked object leads to the one copy, because
// what has several names is committed to the index, and only then linked where it shows.
// Invariant: a crash leaves the object below untouched or the copy whole, never something between.

import { bytesOf } from "../base/bytes.js";
import { Errno, FsError } from "../base/errno.js";
import type { Request, Status } from "../fuse/operations.js";
import {
  chmodAt,
  chmodFd,
  chownAt,
  closeFd,
  fsyncFd,
  mkdirAt,
  mknodAt,
  O_CREAT,
  O_DIRECTORY,
  O_EXCL,
  O_NOFOLLOW,
  O_PATH,
  O_RDONLY,
  O_RDWR,
  openAt,
  RENAME_NOREPLACE,
  renameAt,
  symlinkAt,
  UTIME_OMIT,
  unlinkAt,
  utimesAt,
} from "../sys/files.js";
import { check } from "../sys/libc.js";
import { emptyStat, S_IFDIR, S_IFLNK, S_IFMT, S_IFREG, statAt, statFd } from "../sys/stat.js";
import { writeXattrAt, writeXattrFd } from "../sys/xattr.js";
import { statBacking, utimesBacking } from "./backing-metadata.js";
import { copyData } from "./copy-data.js";
import { noteName } from "./directory-names.js";
import { coverName, uncoveredNames } from "./hard-links.js";
import { createDirectoryPart, createNode, type Node } from "./inode-table.js";
import { indexName, linkFromIndex, needsIndex, noteIndexed, writeOrigin } from "./origin.js";
import { recordOf, type WritableState } from "./state.js";
import { removeTemporary, temporaryName } from "./upper.js";
import { isReserved } from "./xattr-names.js";

/**
 * Makes sure that the object exists in the upper directory; of a file at most the first `limit` bytes are needed.
 * 0, a negative errno, or SUSPENDED: then the request will come again.
 */
export function copyUp(m: WritableState, q: Request, id: number, limit = Infinity): Status {
  m.fds.trim();
  const node = m.inodes.get(id);
  if (node !== undefined && node.backing !== 0) return 0;
  if (id > m.lower.tree.inodeCount) return -Errno.ESTALE;
  const row = id - 1;
  if (m.lower.isDirectory(row)) {
    copyUpDirectory(m, row);
    return 0;
  }
  return copyUpObject(m, q, row, node, limit);
}

/** The record of a directory, which exists in the upper directory afterwards. Throws FsError. */
export function copyUpDirectory(m: WritableState, row: number): Node {
  const missing: number[] = [];
  let at = row;
  for (;;) {
    const node = m.inodes.get(at + 1);
    if (node !== undefined && node.backing !== 0) break;
    if (node?.removed === true) throw new FsError(Errno.ENOENT);
    missing.push(at);
    at = m.lower.tree.parent(at);
  }
  let parent = recordOf(m, at + 1);
  for (let next = missing.pop(); next !== undefined; next = missing.pop()) {
    parent = copyOneDirectory(m, parent, next);
  }
  return parent;
}

function copyOneDirectory(m: WritableState, parent: Node, row: number): Node {
  const { upper } = m;
  const name = m.lower.nameIn(parent.row, row);
  if (name === undefined) throw new FsError(Errno.ESTALE, `directory of row ${row}`);
  const temporary = temporaryName(upper);
  check(mkdirAt(upper.temporaryFd, temporary, 0o700), "mkdir in the work directory");
  const stat = emptyStat();
  try {
    const fd = check(
      openAt(upper.temporaryFd, temporary, O_RDONLY | O_DIRECTORY),
      "open in the work directory",
    );
    try {
      copyMetadata(m, row, fd, temporary);
    } finally {
      closeFd(fd);
    }
    check(statAt(upper.temporaryFd, temporary, stat), "stat in the work directory");
    commit(m, temporary, parent, name);
  } catch (cause) {
    removeTemporary(upper, temporary);
    throw cause;
  }
  const part = createDirectoryPart(row);
  part.defaultAcl = m.lower.tree.xattrs(row)?.some((x) => x.name === "system.posix_acl_default") ?? false;
  const node = createNode(
    { id: row + 1, row, type: S_IFDIR, ino: row + 1, backing: stat.ino, directory: part },
    parent,
    name,
  );
  m.inodes.add(node);
  noteName(parent, name, stat.mode, stat.ino);
  return node;
}

/** Moves a staged object to its place over a lower name. The parent's times are those of before. */
function commit(m: WritableState, temporary: Buffer, parent: Node, name: Buffer): void {
  const parentFd = m.fds.of(parent);
  keepTimes(m, parent, () =>
    check(renameAt(m.upper.temporaryFd, temporary, parentFd, name, RENAME_NOREPLACE), "commit of a copy"),
  );
  coverName(m, parent, name);
}

/** Runs a change of a directory that the merged view does not see, and puts its times back. */
function keepTimes(m: WritableState, directory: Node, change: () => void): void {
  const before = emptyStat();
  check(statBacking(m.fds, directory, before), "stat in the upper directory");
  change();
  const { mtimeSec, mtimeNsec } = before;
  utimesBacking(m.fds, directory, { atimeSec: 0, atimeNsec: UTIME_OMIT, mtimeSec, mtimeNsec });
}

interface Staged {
  readonly name: Buffer;
  /** A descriptor of the staged object; O_PATH for what is not a file. */
  readonly fd: number;
}

function copyUpObject(
  m: WritableState,
  _q: Request,
  row: number,
  known: Node | undefined,
  limit: number,
): Status {
  const removed = known?.removed === true;
  const indexed = !removed && needsIndex(m, row);
  // The place is made ready first: a full disk shows before anything is copied.
  const [place] = removed ? [] : uncoveredNames(m, row);
  if (place === undefined && !removed && !indexed) return -Errno.ESTALE;
  const parent = place === undefined ? undefined : copyUpDirectory(m, place.directory);
  const staged = stage(m, row, limit);
  const { stat } = m;
  try {
    check(statFd(staged.fd, stat), "stat in the work directory");
    if (removed) check(unlinkAt(m.upper.temporaryFd, staged.name), "unlink in the work directory");
    else if (indexed) commitToIndex(m, staged.name, row);
    else if (parent !== undefined && place !== undefined) commit(m, staged.name, parent, place.name);
  } catch (cause) {
    closeFd(staged.fd);
    removeTemporary(m.upper, staged.name);
    throw cause;
  }
  const node =
    known ?? createRecord(m, row, indexed ? m.indexPlace : parent, indexed ? indexName(row) : place?.name);
  m.inodes.setBacking(node, stat.ino);
  m.fds.hold(node, staged.fd);
  if (indexed) {
    noteIndexed(m.upper, node, row);
    linkEverywhere(m, node, row);
  } else if (parent !== undefined && place !== undefined) {
    noteName(parent, place.name, stat.mode, stat.ino);
  }
  return 0;
}

function createRecord(
  m: WritableState,
  row: number,
  parent: Node | undefined,
  name: Buffer | undefined,
): Node {
  const type = m.lower.tree.mode(row) & S_IFMT;
  const node = createNode(
    { id: row + 1, row, type, ino: row + 1, backing: 0, directory: undefined },
    parent,
    name ?? Buffer.alloc(0),
  );
  m.inodes.add(node);
  return node;
}

function commitToIndex(m: WritableState, temporary: Buffer, row: number): void {
  check(
    renameAt(m.upper.temporaryFd, temporary, m.upper.indexFd, indexName(row), RENAME_NOREPLACE),
    "commit to the index",
  );
}

/**
 * Links a copy at every name that shows the image's object, so that the upper directory tells the same without the
 * index. What cannot be linked now is found through the index all the same.
 */
function linkEverywhere(m: WritableState, node: Node, row: number): void {
  for (const { directory, name } of uncoveredNames(m, row)) {
    try {
      const parent = copyUpDirectory(m, directory);
      keepTimes(m, parent, () =>
        check(linkFromIndex(m.upper, row, m.fds.of(parent), name), "link of a copy"),
      );
      coverName(m, parent, name);
      noteName(parent, name, node.type, node.backing);
      if (node.parent === m.indexPlace) m.inodes.place(node, parent, name);
    } catch (cause) {
      m.log.debug("copy not linked at one of its names", { row, error: cause });
      return;
    }
  }
}

/** Makes the whole copy in WORK/tmp. Throws FsError and leaves nothing. */
function stage(m: WritableState, row: number, limit: number): Staged {
  const { upper } = m;
  const { tree } = m.lower;
  const type = tree.mode(row) & S_IFMT;
  const name = temporaryName(upper);
  let fd: number;
  if (type === S_IFREG) {
    fd = check(
      openAt(upper.temporaryFd, name, O_CREAT | O_EXCL | O_RDWR, 0o600),
      "create in the work directory",
    );
  } else {
    const made =
      type === S_IFLNK
        ? symlinkAt(tree.symlinkTarget(row), upper.temporaryFd, name)
        : mknodAt(upper.temporaryFd, name, type | 0o600, tree.rdev(row));
    check(made, "create in the work directory");
    fd = check(openAt(upper.temporaryFd, name, O_PATH | O_NOFOLLOW), "open in the work directory");
  }
  try {
    if (type === S_IFREG) {
      const size = Math.min(limit, tree.size(row));
      check(copyData(tree, row, fd, size, m.buffer), "copy of a file");
      check(writeOrigin(m, fd, row), "origin of a file");
      copyMetadata(m, row, fd, name);
      // The data is on disk before the name that leads to it can be.
      if (size > 0 && !upper.volatile) check(fsyncFd(fd), "fsync of a copy");
    } else {
      copyMetadata(m, row, fd, name);
    }
  } catch (cause) {
    closeFd(fd);
    removeTemporary(upper, name);
    throw cause;
  }
  return { name, fd };
}

/** Owner, mode, xattrs and times of a row onto a staged object; the order matters: chown clears bits and xattrs. */
function copyMetadata(m: WritableState, row: number, fd: number, name: Buffer): void {
  const { tree } = m.lower;
  const { temporaryFd } = m.upper;
  const mode = tree.mode(row);
  const type = mode & S_IFMT;
  const openFile = type === S_IFREG || type === S_IFDIR;
  check(chownAt(temporaryFd, name, tree.uid(row), tree.gid(row)), "chown of a copy");
  if (openFile) check(chmodFd(fd, mode & 0o7777), "chmod of a copy");
  else if (type !== S_IFLNK) check(chmodAt(temporaryFd, name, mode & 0o7777), "chmod of a copy");
  for (const xattr of tree.xattrs(row) ?? []) {
    if (isReserved(xattr.name)) continue;
    const key = bytesOf(xattr.name);
    const result = openFile
      ? writeXattrFd(fd, key, xattr.value)
      : writeXattrAt(temporaryFd, name, key, xattr.value);
    if (result === -Errno.EOPNOTSUPP || result === -Errno.EPERM) {
      m.log.debug("xattr not kept by the upper directory", { row, xattr: xattr.name });
    } else check(result, `xattr ${xattr.name} of a copy`);
  }
  const seconds = tree.mtimeSec(row);
  const nanoseconds = tree.mtimeNsec(row);
  check(utimesAt(temporaryFd, name, seconds, nanoseconds, seconds, nanoseconds), "times of a copy");
}
