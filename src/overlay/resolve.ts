// From a name to an inode. The upper directory is asked first, then the row below; an object that has anything in
// the upper gets a record here, one that is only in the image gets none.
// Invariant: a directory without a record has nothing in the upper directory, nor has anything below it, because the
// kernel reaches it only through its parents.
import { displayName, nameOf } from "../base/bytes.js";
import { Errno } from "../base/errno.js";
import { closeFd, noName, O_DIRECTORY, O_NOFOLLOW, O_RDONLY, openAt } from "../sys/files.js";
import { check } from "../sys/libc.js";
import { S_IFDIR, S_IFMT, type Stat, statAt } from "../sys/stat.js";
import { createDirectoryPart, createNode, type DirectoryPart, type Node, upperIno } from "./inode-table.js";
import { completeLeaving } from "./leave-whiteout.js";
import { DT_UNKNOWN } from "./listing.js";
import { nameKey } from "./lower.js";
import { foreignDataRow, mayLackData } from "./metacopy.js";
import { indexName, type Origin, readIndexedOrigin, readOrigin } from "./origin.js";
import { applyOverride, type Override, readOverride } from "./override.js";
import { mergedBelow } from "./redirect.js";
import type { OverlayState, WritableState } from "./state.js";
import type { Upper } from "./upper.js";
import { isWhiteout, mayHoldXattrWhiteouts, readMarks } from "./whiteout.js";

export const NAME_MAX = 255;

/** The nodeid a name leads to, 0 when it is absent, or a negative errno. The object found may have a new record. */
export function find(
  m: OverlayState,
  directoryId: number,
  bytes: Uint8Array,
  start: number,
  end: number,
): number {
  m.found = undefined;
  if (end - start > NAME_MAX) return -Errno.ENAMETOOLONG;
  const directory = m.upper === undefined ? undefined : m.inodes.get(directoryId);
  if (directory === undefined) {
    if (directoryId > m.lower.tree.inodeCount) return -Errno.ESTALE;
    return findLower(m, directoryId - 1, bytes, start, end);
  }
  const part = directory.directory;
  if (part === undefined) return -Errno.ENOTDIR;
  if (directory.removed) return 0;
  if (part.listing === undefined || part.listing.names.has(nameKey(bytes, start, end))) {
    const found = findUpper(m, directory, bytes.subarray(start, end));
    if (found !== -Errno.ENOENT) return found;
  }
  return part.lowerRow < 0 ? 0 : findLower(m, part.lowerRow, bytes, start, end);
}

function findLower(m: OverlayState, row: number, bytes: Uint8Array, start: number, end: number): number {
  const found = m.lower.find(row, bytes, start, end);
  if (found < 0) return 0;
  if (m.upper === undefined) return found + 1;
  m.inodes.noteParent(found, row);
  return knownRow(m, m.upper, found);
}

/** The nodeid of a row reached by a name of the image: its copy is found through the index. */
export function knownRow(m: OverlayState, upper: Upper, row: number): number {
  if (upper.index.size > 0 && upper.index.has(row) && m.inodes.get(row + 1) === undefined) {
    adoptIndexed(m, upper, row);
  }
  return row + 1;
}

/**
 * What an object of the upper directory shows instead of `stat`, which then says so; undefined where it is the same. With
 * an empty name that is the object open at `directoryFd`.
 */
export function overrideOf(
  m: OverlayState,
  directoryFd: number,
  name: Uint8Array,
  stat: Stat,
): Override | undefined {
  const { overrides } = m.upper as Upper;
  if (!overrides.all && !overrides.devices) return undefined;
  const override = readOverride(overrides, directoryFd, name, stat, (value) =>
    m.log.warn("an owner and mode kept beside an object make no sense: ignored", {
      object: displayName(nameOf(name)),
      value: displayName(nameOf(value.subarray(0, 100))),
    }),
  );
  if (override !== undefined) applyOverride(override, stat);
  return override;
}

/** Makes the record of a row's copy from its link in the index alone. */
function adoptIndexed(m: OverlayState, upper: Upper, row: number): void {
  const { stat } = m;
  check(statAt(upper.indexFd, indexName(row), stat), `index entry ${row}`);
  const override = overrideOf(m, upper.indexFd, indexName(row), stat);
  const type = stat.mode & S_IFMT;
  const node = createNode(
    { id: row + 1, row, type, ino: row + 1, backing: stat.ino, directory: undefined },
    m.indexPlace,
    indexName(row),
  );
  node.override = override;
  node.indexed = true;
  node.copied = true;
  node.dataRow = readIndexedOrigin(m, upper, row, stat);
  m.inodes.add(node);
}

/** The nodeid of a name in the upper directory, 0 for a whiteout, -ENOENT when the upper has nothing there. */
function findUpper(m: OverlayState, directory: Node, name: Uint8Array): number {
  const directoryFd = m.fds.of(directory);
  const { stat } = m;
  const result = statAt(directoryFd, name, stat);
  if (result < 0) return result;
  const marked = (directory.directory as DirectoryPart).xattrWhiteouts;
  if (isWhiteout(directoryFd, name, stat, mayHoldXattrWhiteouts(m.upper, marked))) return 0;
  const node = adopt(m, directory, name, stat);
  m.found = node;
  return node.id;
}

/** The record of an object in the upper directory, made when there is none. `stat` is what is there. */
function adopt(m: OverlayState, directory: Node, name: Uint8Array, stat: Stat): Node {
  const known = m.inodes.withBacking(stat.ino);
  if (known !== undefined) {
    const homeless = known.parent === undefined || known.parent === m.indexPlace;
    if (homeless && known.directory === undefined) m.inodes.place(known, directory, Buffer.from(name));
    return known;
  }
  return (stat.mode & S_IFMT) === S_IFDIR
    ? adoptDirectory(m, directory, name, stat)
    : adoptObject(m, directory, name, stat);
}

function adoptObject(m: OverlayState, directory: Node, name: Uint8Array, stat: Stat): Node {
  const override = overrideOf(m, m.fds.of(directory), name, stat);
  const { row, dataRow, copied } = originOf(m, directory, name, stat);
  const claimed = row >= 0 && m.inodes.get(row + 1) === undefined;
  const node = createNode(
    {
      id: claimed ? row + 1 : m.inodes.newId(),
      row: claimed ? row : -1,
      type: stat.mode & S_IFMT,
      ino: claimed ? row + 1 : upperIno(stat.ino),
      backing: stat.ino,
      directory: undefined,
    },
    directory,
    Buffer.from(name),
  );
  node.override = override;
  node.copied = copied;
  node.dataRow = dataRow;
  node.indexed = claimed && m.upper?.indexRows.get(stat.ino) === row;
  m.inodes.add(node);
  return node;
}

/** Where what is not a directory comes from. Only where an origin can be is it looked for. */
function originOf(m: OverlayState, directory: Node, name: Uint8Array, stat: Stat): Origin {
  const part = directory.directory as DirectoryPart;
  const marked = part.impure || (part.lowerRow >= 0 && m.lower.covers(part.lowerRow, name));
  const directoryFd = m.fds.of(directory);
  const origin = readOrigin(m, directoryFd, name, stat, marked);
  if (!marked || origin.row >= 0 || origin.dataRow >= 0 || !mayLackData(stat)) return origin;
  const dataRow = foreignDataRow(m, part.lowerRow, directoryFd, name);
  return dataRow < 0 ? origin : { ...origin, dataRow };
}

function lowerRowOf(directory: Node): number {
  return (directory.directory as DirectoryPart).lowerRow;
}

function adoptDirectory(m: OverlayState, directory: Node, name: Uint8Array, stat: Stat): Node {
  const fd = check(
    openAt(m.fds.of(directory), name, O_RDONLY | O_DIRECTORY | O_NOFOLLOW),
    "open in the upper directory",
  );
  const marks = readMarks(fd);
  if (marks.leaves) completeLeaving(m as WritableState, fd);
  const override = overrideOf(m, fd, noName, stat);
  let row = mergedBelow(m.lower, lowerRowOf(directory), name, marks);
  const claimed = row >= 0 && m.inodes.get(row + 1) === undefined;
  // Two directories with one directory of the image below would share what is in it: the second goes without.
  if (marks.redirect !== undefined && row >= 0 && !claimed) {
    m.log.warn("two directories of the upper directory are redirected to one of the image", { row });
    row = -1;
  }
  const part = createDirectoryPart(row);
  part.impure = marks.impure;
  part.defaultAcl = marks.defaultAcl;
  part.xattrWhiteouts = marks.xattrWhiteouts;
  const node = createNode(
    {
      id: claimed ? row + 1 : m.inodes.newId(),
      row: claimed ? row : -1,
      type: S_IFDIR,
      ino: claimed ? row + 1 : upperIno(stat.ino),
      backing: stat.ino,
      directory: part,
    },
    directory,
    Buffer.from(name),
  );
  node.override = override;
  node.copied = marks.copied;
  m.inodes.add(node);
  m.fds.hold(node, fd);
  return node;
}

/** st_ino of a name in the upper directory, without making a record. */
export function inoOf(m: OverlayState, directory: Node, name: Uint8Array): number {
  const directoryFd = m.fds.of(directory);
  const { stat } = m;
  if (statAt(directoryFd, name, stat) < 0) return 0;
  const known = m.inodes.withBacking(stat.ino);
  if (known !== undefined) return known.ino;
  if ((stat.mode & S_IFMT) !== S_IFDIR) {
    overrideOf(m, directoryFd, name, stat);
    const { row } = originOf(m, directory, name, stat);
    return row >= 0 && m.inodes.get(row + 1) === undefined ? row + 1 : upperIno(stat.ino);
  }
  const { ino } = stat;
  const fd = openAt(directoryFd, name, O_RDONLY | O_DIRECTORY | O_NOFOLLOW);
  if (fd < 0) return upperIno(ino);
  const row = mergedBelow(m.lower, lowerRowOf(directory), name, readMarks(fd));
  closeFd(fd);
  return row >= 0 && m.inodes.get(row + 1) === undefined ? row + 1 : upperIno(ino);
}

/** DT_* of a name in the upper directory, as it shows, without making a record; DT_UNKNOWN when it is gone. */
export function typeInUpper(m: OverlayState, directory: Node, name: Uint8Array): number {
  const directoryFd = m.fds.of(directory);
  const { stat } = m;
  if (statAt(directoryFd, name, stat) < 0) return DT_UNKNOWN;
  overrideOf(m, directoryFd, name, stat);
  return (stat.mode & S_IFMT) >>> 12;
}
