// readdir and readdirplus, without any state of the open directory: an offset alone says where to go on. There is no
// opendir: the kernel then opens directories by itself, and keeps what it read of them until it changes them.
//   1, 2            after `.` and `..`
//   3 + i           after the lower directory's entry i, whether the upper has its name too or not
//   2**40 + 1 + h   after the name with hash h, for names the lower directory does not have
// Invariants: a name has one offset for as long as the mount's image is the same, so a listing under way never shows
// a name twice nor loses one that stayed; d_ino is st_ino; only an entry that was added counts as looked up.
import { nameOf } from "../base/bytes.js";
import type { DirectorySink, Request, Status } from "../fuse/operations.js";
import { touchDirectory } from "../sys/files.js";

import { isListedWhiteout, listingOf } from "./directory-names.js";
import { type DirectoryPart, type Node, upperIno } from "./inode-table.js";
import {
  DT_DIR,
  DT_REG,
  HASHED_OFFSET_BASE,
  indexAt,
  inOrder,
  isListed,
  type ListedName,
} from "./listing.js";
import { fillEntry, fillFound } from "./lookup.js";
import type { LowerEntry } from "./lower.js";
import { find, inoOf, knownRow, typeInUpper } from "./resolve.js";
import type { OverlayState } from "./state.js";
import type { Upper } from "./upper.js";

const FIRST_LOWER = 2;
const dots = Buffer.from("..");

/** A reader of directories with an entry record of its own. */
export function createReaddir(): (
  m: OverlayState,
  q: Request,
  fh: number,
  offset: number,
  sink: DirectorySink,
) => Status {
  const entry: LowerEntry = { row: 0, type: 0, bytes: new Uint8Array(0), start: 0, end: 0 };
  return (m, q, _fh, offset, sink) => {
    m.fds.trim();
    const directory = m.inodes.get(q.nodeid);
    if (offset < FIRST_LOWER && !addDots(m, q.nodeid, directory, offset, sink)) return 0;
    if (directory === undefined) {
      addLower(m, q.nodeid - 1, undefined, entry, offset, sink);
      return 0;
    }
    if (directory.removed) return 0;
    const part = directory.directory as DirectoryPart;
    // Its names may be known from before: who lists the directory sets its atime all the same.
    if (offset === 0 && directory.backing !== 0) touchDirectory(m.fds.of(directory));
    const more = part.lowerRow < 0 || addLower(m, part.lowerRow, directory, entry, offset, sink);
    if (more) addUpper(m, directory, part, offset, sink);
    return 0;
  };
}

function addDots(
  m: OverlayState,
  id: number,
  directory: Node | undefined,
  offset: number,
  sink: DirectorySink,
): boolean {
  const parent = directory === undefined ? m.lower.tree.parent(id - 1) + 1 : directory.parent?.ino;
  const own = directory === undefined ? id : directory.ino;
  sink.entry.nodeid = 0;
  if (offset < 1 && !sink.add(dots, 0, 1, DT_DIR, own, 1)) return false;
  sink.entry.nodeid = 0;
  return sink.add(dots, 0, 2, DT_DIR, parent ?? own, 2);
}

/** Adds from the lower directory; `directory` is what lies over it. False when the sink is full. */
function addLower(
  m: OverlayState,
  row: number,
  directory: Node | undefined,
  entry: LowerEntry,
  offset: number,
  sink: DirectorySink,
): boolean {
  const { tree } = m.lower;
  const count = tree.entryCount(row);
  const names = directory === undefined ? undefined : listingOf(m, directory).names;
  for (let i = Math.max(0, offset - FIRST_LOWER); i < count; i++) {
    tree.entry(row, i, entry);
    const next = i + FIRST_LOWER + 1;
    if (names !== undefined && names.size > 0) {
      const listed = names.get(nameOf(entry.bytes, entry.start, entry.end));
      if (listed !== undefined) {
        if (!addListed(m, directory as Node, listed, true, next, sink)) return false;
        continue;
      }
    }
    if (entry.row < 0 || m.lower.hidden(entry.row)) continue;
    if (!addRow(m, row, entry, next, sink)) return false;
  }
  return true;
}

function addRow(
  m: OverlayState,
  directory: number,
  entry: LowerEntry,
  next: number,
  sink: DirectorySink,
): boolean {
  const { row, bytes, start, end, type } = entry;
  if (!sink.plus) return sink.add(bytes, start, end, type, row + 1, next);
  if (m.upper !== undefined) {
    m.inodes.noteParent(row, directory);
    knownRow(m, m.upper, row);
  }
  const known = fillEntry(m, row + 1, sink.entry) === 0;
  if (!known) sink.entry.nodeid = 0;
  // The sink may reuse its entry from here on.
  if (!sink.add(bytes, start, end, type, row + 1, next)) return false;
  if (known) m.inodes.remember(row + 1);
  return true;
}

/** Adds the names that only the upper directory has. */
function addUpper(
  m: OverlayState,
  directory: Node,
  part: DirectoryPart,
  offset: number,
  sink: DirectorySink,
): void {
  const listing = listingOf(m, directory);
  const order = inOrder(listing);
  const from = offset > HASHED_OFFSET_BASE ? indexAt(order, offset - HASHED_OFFSET_BASE) : 0;
  for (let i = from; i < order.length; i++) {
    const listed = order[i] as ListedName;
    if (!isListed(listing, listed)) continue;
    if (part.lowerRow >= 0 && m.lower.covers(part.lowerRow, Buffer.from(listed.name, "latin1"))) continue;
    const next = HASHED_OFFSET_BASE + 1 + listed.position;
    if (!addListed(m, directory, listed, part.impure, next, sink)) return;
  }
}

/** Adds a name of the upper directory, unless it is a whiteout. False when the sink is full. */
function addListed(
  m: OverlayState,
  directory: Node,
  listed: ListedName,
  mayHaveOrigin: boolean,
  next: number,
  sink: DirectorySink,
): boolean {
  if (isListedWhiteout(m, directory, listed)) return true;
  const name = Buffer.from(listed.name, "latin1");
  if (!sink.plus) {
    const known = m.inodes.withBacking(listed.backing);
    const plain = !mayHaveOrigin && m.upper?.indexRows.has(listed.backing) !== true;
    const ino =
      known !== undefined ? known.ino : plain ? upperIno(listed.backing) : inoOf(m, directory, name);
    return sink.add(name, 0, name.length, typeOfListed(m, directory, listed, known), ino, next);
  }
  const id = find(m, directory.id, name, 0, name.length);
  if (id <= 0) return true;
  const filled = fillFound(m, id, sink.entry) === 0;
  if (!filled) sink.entry.nodeid = 0;
  const node = m.inodes.get(id);
  const type = node === undefined ? listed.type : node.type >>> 12;
  const added = sink.add(name, 0, name.length, type, node?.ino ?? id, next);
  if (added && filled) m.inodes.remember(id);
  else if (node !== undefined) m.inodes.settle(node);
  return added;
}

/** DT_* of a name of the upper directory, as it shows: a file may stand for something else. */
function typeOfListed(m: OverlayState, directory: Node, listed: ListedName, known: Node | undefined): number {
  if (known !== undefined) return known.type >>> 12;
  const { overrides } = m.upper as Upper;
  if (listed.type !== DT_REG || (!overrides.all && !overrides.devices)) return listed.type;
  return typeInUpper(m, directory, Buffer.from(listed.name, "latin1"));
}
