// Copy-up: an object of the image becomes one of the upper directory, with everything it has, before its first
// change. Parents first; staged in WORK/tmp; committed by one rename; memory changes only after that.
// Identity stays: same nodeid, same st_ino, and every name of a hard-linked object leads to the one copy, because
// what has several names is committed to the index, and only then linked where it shows.
// Invariant: a crash leaves the object below untouched or the copy whole, never something between.

import { Errno, FsError, toErrno } from "../base/errno.js";
import type { Request, Status } from "../fuse/operations.js";
import {
  AT_REMOVEDIR,
  closeFd,
  mkdirAt,
  O_DIRECTORY,
  O_RDONLY,
  openAt,
  RENAME_NOREPLACE,
  renameAt,
  truncateFd,
  UTIME_OMIT,
  unlinkAt,
} from "../sys/files.js";
import { check } from "../sys/libc.js";
import { emptyStat, S_IFDIR, S_IFMT, S_IFREG, type Stat, statFd } from "../sys/stat.js";
import { writeXattrFd } from "../sys/xattr.js";
import { copyInBackground, DECODED_FROM } from "./background-copy.js";
import { statBacking, utimesBacking } from "./backing-metadata.js";
import { CUT, completeData } from "./complete-data.js";
import { noteName } from "./directory-names.js";
import { fault } from "./fault.js";
import { coverName, uncoveredNames } from "./hard-links.js";
import { createDirectoryPart, createNode, type Node } from "./inode-table.js";
import type { LowerName } from "./lower.js";
import { damageStatus, prepareCopy } from "./lower-data.js";
import { indexName, linkFromIndex, needsIndex, noteIndexed } from "./origin.js";
import type { Override } from "./override.js";
import { chargeCopy, creditCopy, ownCopy } from "./quota/charge-copy.js";
import { ownNew } from "./quota/charge-objects.js";
import { noteBase } from "./quota/charge-xattrs.js";
import type { FileBlocks } from "./quota/file-blocks.js";
import {
  type Cut,
  checkIds,
  copyMetadata,
  createStaged,
  cutStaged,
  discardStaged,
  fillMetadata,
  fillStaged,
  finishStaged,
  type Staged,
} from "./staging.js";
import { recordOf, type WritableState } from "./state.js";
import { removeTemporary, temporaryName } from "./upper.js";
import { copiedMark } from "./whiteout.js";

/**
 * Makes sure that the object exists in the upper directory, so that its metadata and names can be changed. 0, a negative
 * errno, or SUSPENDED: then the request will come again.
 */
export function copyUp(m: WritableState, q: Request, id: number): Status {
  return copyUpWith(m, q, id, m.upper.metacopy ? NO_DATA : Infinity);
}

/**
 * The same for a file whose data are to be changed: the first `limit` bytes of them are needed. Or CUT: what was below
 * was longer, and has been cut like by truncate(2), which with `kill` takes setuid and setgid off.
 */
export function copyUpData(m: WritableState, q: Request, id: number, limit = Infinity, kill = false): Status {
  return copyUpWith(m, q, id, limit, kill);
}

const NO_DATA = -1;

function copyUpWith(m: WritableState, q: Request, id: number, limit: number, kill = false): Status {
  m.fds.trim();
  const node = m.inodes.get(id);
  if (node !== undefined && node.backing !== 0) {
    if (node.dataRow < 0) return 0;
    // Data on their way change what the metadata say, and put it back.
    const behind = m.services?.suspendBehind(q, id);
    if (behind !== undefined) return behind;
    return limit === NO_DATA ? 0 : completeData(m, q, node, limit, kill);
  }
  if (id > m.lower.tree.inodeCount) return -Errno.ESTALE;
  const row = id - 1;
  if (m.lower.isDirectory(row)) {
    if (node?.removed === true) copyUpRemovedDirectory(m, node);
    else copyUpDirectory(m, row);
    return 0;
  }
  return copyUpObject(m, q, row, limit, kill);
}

/** The record of a directory, which exists in the upper directory afterwards. Throws FsError. */
function copyUpDirectory(m: WritableState, row: number): Node {
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
  const name = m.lower.nameIn(parent.row, row);
  if (name === undefined) throw new FsError(Errno.ESTALE, `directory of row ${row}`);
  const { fd, stat, override } = stageDirectory(m, row, (temporary) => commit(m, temporary, parent, name));
  const part = createDirectoryPart(row);
  part.defaultAcl = m.lower.xattrs(row)?.some((x) => x.name === "system.posix_acl_default") ?? false;
  const node = createNode(
    { id: row + 1, row, type: S_IFDIR, ino: row + 1, backing: stat.ino, directory: part },
    parent,
    name,
  );
  node.override = override;
  node.copied = true;
  m.inodes.add(node);
  m.fds.hold(node, fd);
  noteName(parent, name, stat.mode, stat.ino);
  showCopied(m, row, override ?? stat);
  return node;
}

/** A directory without a name that somebody still has open: its copy has none either. */
function copyUpRemovedDirectory(m: WritableState, node: Node): void {
  const { fd, stat, override } = stageDirectory(m, node.row, (temporary) =>
    check(
      fault("copy-up.nameless") || unlinkAt(m.upper.temporaryFd, temporary, AT_REMOVEDIR),
      "rmdir in the work directory",
    ),
  );
  m.inodes.setBacking(node, stat.ino);
  node.override = override;
  node.copied = true;
  ownNew(m, node);
  m.fds.hold(node, fd);
}

/** A directory with what the image says of it but its entries, put where it belongs by `place`. Throws FsError. */
function stageDirectory(
  m: WritableState,
  row: number,
  place: (temporary: Buffer) => void,
): { fd: number; stat: Stat; override: Override | undefined } {
  const { upper } = m;
  const temporary = temporaryName(upper);
  const made = fault("copy-up.directory") || mkdirAt(upper.temporaryFd, temporary, 0o700);
  check(made, "mkdir in the work directory");
  const stat = emptyStat();
  let fd = -1;
  try {
    fd = check(openAt(upper.temporaryFd, temporary, O_RDONLY | O_DIRECTORY), "open in the work directory");
    const target = { fd, atFd: upper.temporaryFd, name: temporary, standsIn: false };
    const override = copyMetadata(m.lower, m.log, upper.overrides, row, target);
    noteBase(m, row, fd);
    check(fault("copy-up.copied") || writeXattrFd(fd, copiedMark, Buffer.alloc(0)), "mark of a copy");
    check(statFd(fd, stat), "stat in the work directory");
    place(temporary);
    return { fd, stat, override };
  } catch (cause) {
    if (fd >= 0) closeFd(fd);
    removeTemporary(upper, temporary);
    throw cause;
  }
}

/** Where a copy could not get its owner, what the kernel knows of the object is no longer true. */
function showCopied(m: WritableState, row: number, { uid, gid, mode }: Stat | Override): void {
  const { lower } = m;
  const kept = lower.squash !== undefined || (uid === lower.uid(row) && gid === lower.gid(row));
  if (!kept || mode !== lower.tree.mode(row)) m.services?.invalidateInode(row + 1, -1, 0);
}

/** Moves a staged object to its place over a lower name. The parent's times are those of before. */
function commit(m: WritableState, temporary: Buffer, parent: Node, name: Buffer): void {
  const parentFd = m.fds.of(parent);
  keepTimes(m, parent, () =>
    check(
      fault("copy-up.commit") || renameAt(m.upper.temporaryFd, temporary, parentFd, name, RENAME_NOREPLACE),
      "commit of a copy",
    ),
  );
  coverName(m, parent, name);
}

/** Runs a change of a directory that the merged view does not see, and puts its times back. */
export function keepTimes(m: WritableState, directory: Node, change: () => void): void {
  const before = emptyStat();
  check(statBacking(m.fds, directory, before), "stat in the upper directory");
  try {
    change();
  } finally {
    const { mtimeSec, mtimeNsec } = before;
    if (fault("copy-up.parent-times") === 0) {
      utimesBacking(m.fds, directory, { atimeSec: 0, atimeNsec: UTIME_OMIT, mtimeSec, mtimeNsec });
    }
  }
}

function copyUpObject(m: WritableState, q: Request, row: number, limit: number, kill: boolean): Status {
  const behind = m.services?.suspendBehind(q, row + 1);
  if (behind !== undefined) return behind;
  const failed = m.failedCopies.get(row + 1);
  if (failed !== undefined) {
    m.failedCopies.delete(row + 1);
    return failed;
  }
  const prepared = limit > 0 ? prepareCopy(m, q, row) : 0;
  if (prepared < 0) return prepared;
  checkIds(m.lower, row);
  const copied = (m.lower.tree.mode(row) & S_IFMT) === S_IFREG ? Math.min(limit, m.lower.tree.size(row)) : 0;
  const charged = chargeCopy(m, q, row, copied);
  if (typeof charged === "number") return charged;
  try {
    return copyCharged(m, q, row, limit, kill, charged);
  } catch (cause) {
    creditCopy(m, charged);
    return damageStatus(m, cause);
  }
}

/** A copy of what is charged already. SUSPENDED, and then the charge is the background copy's; throws FsError, Corrupt. */
function copyCharged(
  m: WritableState,
  q: Request,
  row: number,
  limit: number,
  kill: boolean,
  charged: FileBlocks,
): Status {
  // The parents come first: a full disk shows before anything is copied.
  const place = placeOf(m, row);
  if (place !== undefined) copyUpDirectory(m, place.directory);
  const staged = createStaged(m, row);
  const cut = staged.file && limit !== NO_DATA && limit < m.lower.tree.size(row) ? { kill } : undefined;
  try {
    const size = staged.file ? Math.min(limit, m.lower.tree.size(row)) : 0;
    if (size >= DECODED_FROM && truncateFd(staged.fd, size) === 0) {
      const done = (status: Status): void => finishInBackground(m, row, staged, status, cut, charged);
      const background = copyInBackground(m, q, row + 1, row, staged.fd, size, "copy-up.data", done);
      if (background !== undefined) return background;
    }
    const metadataOnly = limit === NO_DATA && staged.file && m.lower.tree.size(row) > 0;
    if (metadataOnly) fillMetadata(m, row, staged);
    else fillStaged(m, row, staged, Math.max(limit, 0), cut);
    commitObject(m, row, staged, place, charged, metadataOnly ? row : -1);
  } catch (cause) {
    discardStaged(m, staged);
    throw cause;
  }
  return cut === undefined ? 0 : CUT;
}

/** After the helper has copied the bytes. The requests that waited run again, and find the copy or the error. */
function finishInBackground(
  m: WritableState,
  row: number,
  staged: Staged,
  status: Status,
  cut: Cut | undefined,
  charged: FileBlocks,
): void {
  try {
    check(status, "copy of a file");
    finishStaged(m, row, staged);
    if (cut !== undefined) cutStaged(m, row, staged, cut);
    // The helper has synced the data; what came after is metadata, which the filesystem keeps in order.
    if (!m.upper.volatile) check(fault("copy-up.sync"), "fsync of a copy");
    commitObject(m, row, staged, placeOf(m, row), charged);
  } catch (cause) {
    discardStaged(m, staged);
    creditCopy(m, charged);
    const errno = toErrno(cause, (error) => m.log.error("copy-up failed", { row, error }));
    m.failedCopies.set(row + 1, -errno);
  }
}

/** A name that shows the image's object; undefined when none does any more. */
function placeOf(m: WritableState, row: number): LowerName | undefined {
  return m.inodes.get(row + 1)?.removed === true ? undefined : uncoveredNames(m, row)[0];
}

/** Puts a finished copy in its place, and then in the table. Throws FsError, with nothing committed. */
function commitObject(
  m: WritableState,
  row: number,
  staged: Staged,
  place: LowerName | undefined,
  charged: FileBlocks,
  dataRow = -1,
): void {
  const known = m.inodes.get(row + 1);
  const removed = known?.removed === true;
  const indexed = !removed && needsIndex(m, row);
  if (place === undefined && !removed && !indexed) throw new FsError(Errno.ESTALE, `row ${row} has no name`);
  const parent = place === undefined ? undefined : copyUpDirectory(m, place.directory);
  const stat = emptyStat();
  check(statFd(staged.fd, stat), "stat in the work directory");
  if (removed) {
    const unlinked = fault("copy-up.nameless") || unlinkAt(m.upper.temporaryFd, staged.name);
    check(unlinked, "unlink in the work directory");
  } else if (indexed) commitToIndex(m, staged.name, row);
  else if (parent !== undefined && place !== undefined) commit(m, staged.name, parent, place.name);
  const node =
    known ?? createRecord(m, row, indexed ? m.indexPlace : parent, indexed ? indexName(row) : place?.name);
  m.inodes.setBacking(node, stat.ino);
  node.override = staged.override;
  node.dataRow = dataRow;
  node.copied = true;
  ownCopy(m, node, charged);
  m.fds.hold(node, staged.fd);
  showCopied(m, row, staged.override ?? stat);
  if (indexed) {
    noteIndexed(m.upper, node, row);
    linkEverywhere(m, node, row);
  } else if (parent !== undefined && place !== undefined) {
    noteName(parent, place.name, node.type, stat.ino);
  }
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
    fault("copy-up.index") ||
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
