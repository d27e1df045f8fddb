// unlink and rmdir. A name that the image has below is covered by a whiteout in the same step that takes the upper
// object away, so it cannot show again. An object that somebody still has open lives on by its descriptor.
// Invariant: the disk changes first; what memory says follows only after it has.
import { Errno } from "../base/errno.js";
import type { NameView, Request, Status } from "../fuse/operations.js";
import { AT_REMOVEDIR, renameAt, unlinkAt } from "../sys/files.js";
import { check } from "../sys/libc.js";
import { S_IFCHR, S_IFDIR, S_IFMT, statAt } from "../sys/stat.js";
import { linkCount } from "./attributes.js";
import { statBacking } from "./backing-metadata.js";
import { directoryFor } from "./create.js";
import { addSubdirectories, dropListing, isEmpty, noteName } from "./directory-names.js";
import { fault } from "./fault.js";
import { coverName, lowerNamesLeft } from "./hard-links.js";
import { createDirectoryPart, createNode, type DirectoryPart, type Node } from "./inode-table.js";
import { forgetMoved } from "./moved.js";
import { dropFromIndex, indexName } from "./origin.js";
import { creditDirectory, knowCost } from "./quota/quota.js";
import { find } from "./resolve.js";
import { type OverlayState, type WritableState, writable } from "./state.js";
import { removeTemporary, temporaryName } from "./upper.js";
import { makeWhiteout, replaceByWhiteout } from "./whiteout.js";

/** FUSE UNLINK. */
export function unlink(m: OverlayState, q: Request, name: NameView): Status {
  const state = writable(m);
  const target = find(m, q.nodeid, name.bytes, name.start, name.end);
  if (target <= 0) return target === 0 ? -Errno.ENOENT : target;
  if (typeOf(m, target) === S_IFDIR) return -Errno.EISDIR;
  const behind = m.services?.suspendBehind(q, target);
  if (behind !== undefined) return behind;
  // Found in the upper directory: then it is still there, and had this many names there.
  const found = m.found !== undefined;
  const links = m.stat.nlink;
  const directory = directoryFor(state, q, q.nodeid, name);
  if (typeof directory === "number") return directory;
  const bytes = Buffer.from(name.bytes.subarray(name.start, name.end));
  const directoryFd = m.fds.of(directory);
  const inUpper = found || statAt(directoryFd, bytes, m.stat) === 0;
  const node = m.inodes.get(target);
  if (node !== undefined) {
    if (inUpper) keepReachable(m, node);
    knowCost(state, node);
  }
  if (!inUpper) {
    check(makeWhiteout(state.upper, directoryFd, bytes), "whiteout");
    coverName(m, directory, bytes);
  } else if (covers(m, directory, bytes)) {
    check(replaceByWhiteout(state.upper, directoryFd, bytes, false).status, "whiteout");
  } else check(fault("unlink.remove") || unlinkAt(directoryFd, bytes), "unlink in the upper directory");
  noteAbsence(m, directory, bytes, !inUpper || covers(m, directory, bytes));
  nameGone(state, target, directory, bytes, found ? links - 1 : undefined);
  return 0;
}

/** S_IFMT bits of a nodeid. */
export function typeOf(m: OverlayState, id: number): number {
  return m.inodes.get(id)?.type ?? m.lower.tree.mode(id - 1) & S_IFMT;
}

/** True when the image has the name below an upper directory, shown or not. */
export function covers(m: OverlayState, directory: Node, name: Buffer): boolean {
  const { lowerRow } = directory.directory as DirectoryPart;
  return lowerRow >= 0 && m.lower.covers(lowerRow, name);
}

/** Notes in a directory's listing that a name is gone, or that a whiteout stands in its place. */
export function noteAbsence(m: OverlayState, directory: Node, name: Buffer, whiteout: boolean): void {
  if (!whiteout) {
    noteName(directory, name, 0, 0);
    return;
  }
  if (directory.directory?.listing === undefined) return;
  const known = statAt(m.fds.of(directory), name, m.stat) === 0;
  noteName(directory, name, known ? m.stat.mode : S_IFCHR, known ? m.stat.ino : 0, true);
}

/** Before a name of an object goes: whoever knows the object must find it without. Throws FsError. */
export function keepReachable(m: OverlayState, node: Node): void {
  if (m.inodes.lookupsOf(node) > 0 || node.opens > 0) m.fds.of(node);
}

/** After a name of what is not a directory has gone from the disk; `links` of its backing object when known. */
export function nameGone(
  m: WritableState,
  id: number,
  directory: Node,
  name: Buffer,
  links = UNCOUNTED,
): void {
  const node = m.inodes.get(id);
  if (node === undefined || node.backing === 0) {
    rowNameGone(m, id - 1);
    return;
  }
  if (node.parent === directory && node.name.equals(name)) {
    if (node.indexed) m.inodes.place(node, m.indexPlace, indexName(node.row));
    else m.inodes.place(node, undefined, name);
  }
  const left = links === UNCOUNTED ? countLinks(m, node) : links;
  if (left === 0 || linkCount(m, node, left) === 0) lastNameGone(m, node);
  else m.inodes.settle(node);
}

const UNCOUNTED = -1;

function countLinks(m: WritableState, node: Node): number {
  return statBacking(m.fds, node, m.stat) === 0 ? m.stat.nlink : 0;
}

/** A name of an object that is in the image only. Without names it needs a record that says so. */
function rowNameGone(m: WritableState, row: number): void {
  if (m.lower.tree.nlink(row) > 1 && lowerNamesLeft(m, row) > 0) return;
  const known = m.inodes.get(row + 1);
  if (known !== undefined) {
    known.removed = true;
    return;
  }
  const type = m.lower.tree.mode(row) & S_IFMT;
  const directory = type === S_IFDIR ? createDirectoryPart(row) : undefined;
  const node = createNode(
    { id: row + 1, row, type, ino: row + 1, backing: 0, directory },
    undefined,
    Buffer.alloc(0),
  );
  node.removed = true;
  m.inodes.add(node);
  m.inodes.settle(node);
}

function lastNameGone(m: WritableState, node: Node): void {
  keepReachable(m, node);
  dropFromIndex(m.upper, node);
  m.inodes.place(node, undefined, node.name);
  node.removed = true;
  // Without a descriptor the backing inode is free, and its number may come again.
  if (node.fd < 0) m.inodes.forgetBacking(node);
  m.inodes.settle(node);
}

/** FUSE RMDIR. */
export function rmdir(m: OverlayState, q: Request, name: NameView): Status {
  const state = writable(m);
  const target = find(m, q.nodeid, name.bytes, name.start, name.end);
  if (target <= 0) return target === 0 ? -Errno.ENOENT : target;
  if (typeOf(m, target) !== S_IFDIR) return -Errno.ENOTDIR;
  if (!isEmpty(m, target)) return -Errno.ENOTEMPTY;
  const directory = directoryFor(state, q, q.nodeid, name);
  if (typeof directory === "number") return directory;
  const bytes = Buffer.from(name.bytes.subarray(name.start, name.end));
  const node = m.inodes.get(target);
  if (node === undefined) {
    check(makeWhiteout(state.upper, m.fds.of(directory), bytes), "whiteout");
  } else {
    keepReachable(m, node);
    knowCost(state, node);
    removeUpperDirectory(state, directory, bytes);
  }
  noteAbsence(m, directory, bytes, node === undefined || covers(m, directory, bytes));
  addSubdirectories(directory, S_IFDIR, -1);
  directoryGone(state, target);
  return 0;
}

/** Takes an upper directory that shows nothing out of its place in one step, with the whiteouts it holds. */
function removeUpperDirectory(m: WritableState, directory: Node, name: Buffer): void {
  const { upper } = m;
  const directoryFd = m.fds.of(directory);
  if (covers(m, directory, name)) {
    const { status, temporary } = replaceByWhiteout(upper, directoryFd, name, true);
    check(status, "whiteout");
    if (temporary !== undefined) removeLeftover(m, temporary);
    return;
  }
  const removed = fault("rmdir.remove") || unlinkAt(directoryFd, name, AT_REMOVEDIR);
  if (removed !== -Errno.ENOTEMPTY && removed !== -Errno.EEXIST) {
    check(removed, "rmdir in the upper directory");
    return;
  }
  const temporary = temporaryName(upper);
  const moved = fault("rmdir.move-out") || renameAt(directoryFd, name, upper.temporaryFd, temporary);
  check(moved, "rename to the work directory");
  removeLeftover(m, temporary);
}

/** What cannot be removed now is removed by the next mount. */
function removeLeftover(m: WritableState, temporary: Buffer): void {
  if (fault("rmdir.leftover") === 0) removeTemporary(m.upper, temporary);
}

/** After a directory's name has gone from the disk. */
export function directoryGone(m: WritableState, id: number): void {
  const node = m.inodes.get(id);
  if (node === undefined || node.backing === 0) {
    rowNameGone(m, id - 1);
    return;
  }
  dropListing(m, node);
  forgetMoved(m.upper, node);
  node.removed = true;
  if (m.quota !== undefined) creditDirectory(m.quota, node);
  m.inodes.place(node, undefined, node.name);
  if (node.fd < 0) m.inodes.forgetBacking(node);
  m.inodes.settle(node);
}
