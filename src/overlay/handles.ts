// File handles (name_to_handle_at(2)): when the kernel no longer has an inode cached, it asks for `.` of a nodeid, and
// for `..` of a directory. What the image says leads to an object of it; one that was born in the upper directory, or
// moved there, is only known while it has a record.
// Invariant: a nodeid with its generation never leads to another object than the one it was given for.
import { Errno } from "../base/errno.js";
import type { Entry, NameView, Request, Status } from "../fuse/operations.js";
import { uncoveredNames, visibleDirectory } from "./hard-links.js";
import type { Node } from "./inode-table.js";
import { replyEntry } from "./lookup.js";
import { find, knownRow } from "./resolve.js";
import type { OverlayState } from "./state.js";

const DOT = 0x2e;

/** True for `.` and `..`. */
export function isDots({ bytes, start, end }: NameView): boolean {
  const length = end - start;
  return length <= 2 && bytes[start] === DOT && (length === 1 || bytes[start + 1] === DOT);
}

/** FUSE LOOKUP of `.` or `..`. ESTALE for what is not there any more. */
export function lookupDots(m: OverlayState, q: Request, name: NameView, out: Entry): Status {
  m.fds.trim();
  const id = name.end - name.start === 1 ? self(m, q.nodeid) : parent(m, q.nodeid);
  return id <= 0 ? -Errno.ESTALE : replyEntry(m, id, out);
}

/** The nodeid itself while the object is there, else 0. */
function self(m: OverlayState, id: number): number {
  const node = m.inodes.get(id);
  // The kernel asks only for what it has dropped: nobody has it open, and what is removed waits but to be forgotten.
  if (node !== undefined) return node.removed ? 0 : id;
  if (id < 1 || id > m.lower.tree.inodeCount) return 0;
  const row = id - 1;
  if (m.upper === undefined) return m.lower.hidden(row) ? 0 : id;
  if (m.lower.isDirectory(row)) return visibleDirectory(m, row) === "hidden" ? 0 : id;
  if (m.lower.hidden(row)) return 0;
  if (m.upper.index.has(row)) return knownRow(m, m.upper, row);
  return uncoveredNames(m, row).length > 0 || copyOf(m, row) ? id : 0;
}

/** Finds the copy of a file at the name that it has in the image. */
function copyOf(m: OverlayState, row: number): boolean {
  const directory = m.lower.findParent(row);
  const place = visibleDirectory(m, directory);
  const name = typeof place === "string" ? undefined : m.lower.nameIn(directory, row);
  return name !== undefined && find(m, (place as Node).id, name, 0, name.length) === row + 1;
}

function parent(m: OverlayState, id: number): number {
  const node = m.inodes.get(id);
  if (node !== undefined && node.backing !== 0) return node.parent?.id ?? (id === 1 ? 1 : 0);
  if (node?.removed === true || id > m.lower.tree.inodeCount || !m.lower.isDirectory(id - 1)) return 0;
  return self(m, id) === 0 ? 0 : m.lower.tree.parent(id - 1) + 1;
}
