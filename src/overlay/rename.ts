// rename in all its forms. Each is one renameat2 of the upper directory: what has to be true before it (the source
// copied up, a directory opaque where the image has one of the new name, an emptied target really empty) is made true
// in steps that change nothing that shows.
// A directory that the image has below it is marked with where that is, and then moved like any other (moved.ts).
// Invariant: a lower name that the source leaves is covered by a whiteout in the same step.
import { Errno } from "../base/errno.js";
import type { NameView, Request, Status } from "../fuse/operations.js";
import {
  linkAt,
  RENAME_EXCHANGE,
  RENAME_NOREPLACE,
  RENAME_WHITEOUT,
  renameAt,
  unlinkAt,
} from "../sys/files.js";
import { check } from "../sys/libc.js";
import { S_IFCHR, S_IFDIR, S_IFMT, statAt } from "../sys/stat.js";
import { copyUp, keepTimes } from "./copy-up.js";
import { copyName, directoryFor, markImpureDirectory } from "./create.js";
import {
  addSubdirectories,
  dropListing,
  isEmpty,
  isListedWhiteout,
  listingOf,
  noteName,
} from "./directory-names.js";
import { fault } from "./fault.js";
import { coverName } from "./hard-links.js";
import { type DirectoryPart, GROUP_UNKNOWN, type Node } from "./inode-table.js";
import { cancelLeaving, finishLeaving, type Leaving, prepareLeaving } from "./leave-whiteout.js";
import { keepData } from "./metacopy.js";
import { keepMerged } from "./moved.js";
import { chargeNew, creditNew } from "./quota/charge-objects.js";
import { knowCost } from "./quota/quota.js";
import { covers, directoryGone, keepReachable, nameGone, noteAbsence, typeOf } from "./remove.js";
import { find, NAME_MAX } from "./resolve.js";
import { type OverlayState, recordOf, type WritableState, writable } from "./state.js";
import { swapAway, swapOverImage } from "./swap.js";
import { makeWhiteout, markOpaque, markXattrWhiteouts } from "./whiteout.js";

/** One end of a rename: a name in a directory that exists in the upper directory. */
interface End {
  readonly directory: Node;
  readonly name: Buffer;
}

/** FUSE RENAME and RENAME2. */
export function rename(
  m: OverlayState,
  q: Request,
  name: NameView,
  newParent: number,
  newName: NameView,
  flags: number,
): Status {
  const state = writable(m);
  const whiteout = (flags & RENAME_WHITEOUT) !== 0;
  if ((flags & ~(RENAME_NOREPLACE | RENAME_EXCHANGE | RENAME_WHITEOUT)) !== 0) return -Errno.EINVAL;
  if (whiteout && (flags & RENAME_EXCHANGE) !== 0) return -Errno.EINVAL;
  if (newName.end - newName.start > NAME_MAX) return -Errno.ENAMETOOLONG;
  const source = find(m, q.nodeid, name.bytes, name.start, name.end);
  if (source <= 0) return source === 0 ? -Errno.ENOENT : source;
  const target = find(m, newParent, newName.bytes, newName.start, newName.end);
  if (target < 0) return target;
  if (target !== 0 && (flags & RENAME_NOREPLACE) !== 0) return -Errno.EEXIST;
  if (target === 0 && (flags & RENAME_EXCHANGE) !== 0) return -Errno.ENOENT;
  // Two names of one object: POSIX has rename do nothing.
  if (source === target) return 0;
  const behind = target === 0 ? undefined : m.services?.suspendBehind(q, target);
  if (behind !== undefined) return behind;
  const refused = refusal(m, source, target, flags);
  if (refused !== 0) return refused;

  const from = directoryFor(state, q, q.nodeid, name);
  if (typeof from === "number") return from;
  const to = directoryFor(state, { ...q, nodeid: newParent }, newParent, newName);
  if (typeof to === "number") return to;
  for (const id of (flags & RENAME_EXCHANGE) === 0 ? [source] : [source, target]) {
    const copied = copyUp(state, q, id);
    if (copied < 0) return copied;
  }
  const a: End = { directory: from, name: copyName(name) };
  const b: End = { directory: to, name: copyName(newName) };
  const node = recordOf(m, source);
  // A copy reached through the index alone has no name here yet to be moved.
  ensureName(state, node, a);
  if ((flags & RENAME_EXCHANGE) !== 0) {
    const other = recordOf(m, target);
    ensureName(state, other, b);
    exchange(state, node, a, other, b);
  } else if (whiteout) return moveLeaving(state, q, node, a, target, b);
  else move(state, node, a, target, b, covers(m, a.directory, a.name));
  return 0;
}

/** A device 0:0 that shows takes the old name. */
function moveLeaving(m: WritableState, q: Request, node: Node, a: End, target: number, b: End): Status {
  const charged = chargeNew(m, q, S_IFCHR);
  if (charged < 0) return charged;
  let leaving: Leaving | undefined;
  try {
    leaving = prepareLeaving(m, q, a.directory, a.name);
    move(m, node, a, target, b, true);
  } catch (cause) {
    if (leaving !== undefined) cancelLeaving(m, leaving);
    creditNew(m, S_IFCHR);
    throw cause;
  }
  const { ino } = finishLeaving(m, leaving);
  noteName(a.directory, a.name, S_IFCHR, ino);
  return 0;
}

/** Types and emptiness, as rename(2) has them; EXDEV where directories of the image are not to be redirected. */
function refusal(m: OverlayState, source: number, target: number, flags: number): Status {
  if (m.upper?.redirects === false) {
    const merged = (id: number): boolean =>
      typeOf(m, id) === S_IFDIR && (m.inodes.get(id)?.directory?.lowerRow ?? id - 1) >= 0;
    if (merged(source)) return -Errno.EXDEV;
    if ((flags & RENAME_EXCHANGE) !== 0 && target !== 0 && merged(target)) return -Errno.EXDEV;
  }
  if (target === 0 || (flags & RENAME_EXCHANGE) !== 0) return 0;
  const sourceIsDirectory = typeOf(m, source) === S_IFDIR;
  const targetIsDirectory = typeOf(m, target) === S_IFDIR;
  if (sourceIsDirectory && !targetIsDirectory) return -Errno.ENOTDIR;
  if (!sourceIsDirectory && targetIsDirectory) return -Errno.EISDIR;
  return targetIsDirectory && !isEmpty(m, target) ? -Errno.ENOTEMPTY : 0;
}

function ensureName(m: WritableState, node: Node, { directory, name }: End): void {
  const directoryFd = m.fds.of(directory);
  if (!node.indexed || statAt(directoryFd, name, m.stat) === 0) return;
  const place = node.parent as Node;
  keepTimes(m, directory, () => {
    const linked = fault("rename.name") || linkAt(m.fds.of(place), node.name, directoryFd, name);
    check(linked, "link of a copy");
  });
  coverName(m, directory, name);
  noteName(directory, name, node.type, node.backing);
  if (node.parent === m.indexPlace) m.inodes.place(node, directory, name);
}

/** What must be true on disk before `node` may appear at an end. */
function prepareArrival(m: WritableState, node: Node, end: End): void {
  // An origin is looked for only where the image has the name, or the directory says that there may be one.
  if (node.row >= 0 || node.dataRow >= 0) markImpureDirectory(m, end.directory);
  if (node.directory === undefined) {
    keepData(m, node);
    return;
  }
  if (node.directory.lowerRow >= 0) check(keepMerged(m, node), "redirect mark");
  else if (covers(m, end.directory, end.name)) check(markOpaque(m.upper, m.fds.of(node)), "opaque mark");
}

function exchange(m: WritableState, node: Node, a: End, other: Node, b: End): void {
  prepareArrival(m, node, b);
  prepareArrival(m, other, a);
  const fromFd = m.fds.of(a.directory);
  const toFd = m.fds.of(b.directory);
  const exchanged = fault("rename.exchange") || renameAt(fromFd, a.name, toFd, b.name, RENAME_EXCHANGE);
  check(exchanged, "rename in the upper directory");
  arrive(m, node, a, b);
  arrive(m, other, b, a);
  addSubdirectories(a.directory, node.type, -1);
  addSubdirectories(a.directory, other.type, 1);
  addSubdirectories(b.directory, other.type, -1);
  addSubdirectories(b.directory, node.type, 1);
}

/** After an object has arrived at a name: the record's place, and the listing of its new directory. */
function arrive(m: WritableState, node: Node, from: End, to: End): void {
  const known = node.parent === from.directory && node.name.equals(from.name);
  if (known || node.directory !== undefined || node.parent === undefined) {
    m.inodes.place(node, to.directory, to.name);
  }
  noteName(to.directory, to.name, node.type, node.backing);
  if (node.directory !== undefined) node.directory.group = GROUP_UNKNOWN;
}

function move(m: WritableState, node: Node, a: End, target: number, b: End, leavesWhiteout: boolean): void {
  const fromFd = m.fds.of(a.directory);
  const toFd = m.fds.of(b.directory);
  const occupied = statAt(toFd, b.name, m.stat) === 0;
  const replaced = target === 0 ? undefined : m.inodes.get(target);
  if (replaced !== undefined) {
    if (occupied) keepReachable(m, replaced);
    knowCost(m, replaced);
  }
  prepareArrival(m, node, b);
  if (replaced?.directory !== undefined && occupied) emptyOut(m, replaced);
  const over: Over = target !== 0 ? (occupied ? "object" : "image") : occupied ? "whiteout" : "nothing";
  check(moveOver(m, fromFd, a, toFd, b, leavesWhiteout, node, over), "rename in the upper directory");
  if (!occupied) coverName(m, b.directory, b.name);
  noteAbsence(m, a.directory, a.name, leavesWhiteout);
  arrive(m, node, a, b);
  addSubdirectories(a.directory, node.type, -1);
  addSubdirectories(b.directory, node.type, 1);
  if (target === 0) return;
  addSubdirectories(b.directory, typeOf(m, target), -1);
  if (typeOf(m, target) === S_IFDIR) directoryGone(m, target);
  else nameGone(m, target, b.directory, b.name);
}

/** Removes the whiteouts from a directory that shows nothing: opaque first, so that it goes on showing nothing. */
function emptyOut(m: WritableState, directory: Node): void {
  const listing = listingOf(m, directory);
  if (listing.names.size === 0) return;
  const fd = m.fds.of(directory);
  const part = directory.directory as DirectoryPart;
  if (part.lowerRow >= 0) check(markOpaque(m.upper, fd), "opaque mark");
  part.lowerRow = -1;
  try {
    keepTimes(m, directory, () => {
      for (const listed of listing.names.values()) {
        if (!isListedWhiteout(m, directory, listed)) continue;
        const removed = fault("rename.empty") || unlinkAt(fd, Buffer.from(listed.name, "latin1"));
        check(removed, "unlink of a whiteout");
      }
    });
  } finally {
    dropListing(m, directory);
  }
}

/** What is at the name that is moved to: nothing, or something in the upper, or something in the image that shows. */
type Over = "nothing" | "whiteout" | "object" | "image";

/** The rename itself, which leaves a whiteout behind where the image has the source's name. 0 or a negative errno. */
function moveOver(
  m: WritableState,
  fromFd: number,
  a: End,
  toFd: number,
  b: End,
  leavesWhiteout: boolean,
  node: Node,
  over: Over,
): number {
  const { upper } = m;
  const isDirectory = node.type === S_IFDIR;
  const byExchange = leavesWhiteout && !upper.renameWhiteouts;
  if (over === "whiteout" && (isDirectory || byExchange)) {
    return moveOverWhiteout(m, fromFd, a, toFd, b, leavesWhiteout);
  }
  if (!leavesWhiteout) return fault("rename.move") || renameAt(fromFd, a.name, toFd, b.name);
  if (!byExchange) {
    return fault("rename.move-whiteout") || renameAt(fromFd, a.name, toFd, b.name, RENAME_WHITEOUT);
  }
  const from = { fd: fromFd, name: a.name };
  const to = { fd: toFd, name: b.name };
  if (over === "object") return swapAway(upper, from, to, isDirectory);
  if (over === "image") return swapOverImage(upper, from, to);
  // A whiteout of a name that is absent anyway changes nothing; then it is in the way.
  keepTimes(m, b.directory, () => check(makeWhiteout(upper, toFd, b.name), "whiteout"));
  const moved = moveOverWhiteout(m, fromFd, a, toFd, b, true);
  if (moved < 0) keepTimes(m, b.directory, () => unlinkAt(toFd, b.name));
  return moved;
}

/** The whiteout goes where the object was: right where the image has that name, harmless until removed elsewhere. */
function moveOverWhiteout(
  m: WritableState,
  fromFd: number,
  a: End,
  toFd: number,
  b: End,
  leavesWhiteout: boolean,
): number {
  const looked = statAt(toFd, b.name, m.stat);
  if (looked < 0) return looked;
  const marked = (m.stat.mode & S_IFMT) === S_IFCHR ? 0 : markXattrWhiteouts(fromFd);
  if (marked < 0) return marked;
  const moved = fault("rename.over-whiteout") || renameAt(fromFd, a.name, toFd, b.name, RENAME_EXCHANGE);
  if (moved === 0 && !leavesWhiteout && fault("rename.stray") === 0) unlinkAt(fromFd, a.name);
  return moved;
}
