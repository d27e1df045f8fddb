// The lookup operation, and the reply it shares with everything that names an inode.
import type { Entry, NameView, Request, Status } from "../fuse/operations.js";
import { fillFromStat, fillLowerAttr, fillNodeAttr } from "./attributes.js";
import { find } from "./resolve.js";
import { generationOf, type OverlayState } from "./state.js";

/** FUSE LOOKUP. An absent name is answered by nodeid 0, which the kernel keeps until something is made there. */
export function lookup(m: OverlayState, q: Request, name: NameView, out: Entry): Status {
  m.fds.trim();
  const id = find(m, q.nodeid, name.bytes, name.start, name.end);
  if (id < 0) return id;
  const status = fillFound(m, id, out);
  if (status === 0 && id !== 0) m.inodes.remember(id);
  return status;
}

/** Fills the reply for what `find` has just returned: what it has looked at is not looked at again. */
export function fillFound(m: OverlayState, id: number, out: Entry): Status {
  const node = m.found;
  if (node === undefined || node.id !== id) return fillEntry(m, id, out);
  m.found = undefined;
  fillHead(m, id, out);
  fillFromStat(m, node, m.stat, out.attr);
  return 0;
}

/** Names the inode for the kernel: nodeid, generation, timeouts. */
export function fillHead(m: OverlayState, id: number, out: Entry): void {
  out.nodeid = id;
  out.generation = generationOf(m, id);
  // All changes come through this mount, and the kernel drops what it changes itself.
  out.entryTimeout = Infinity;
  out.attrTimeout = Infinity;
}

/** Fills the reply that makes the kernel know `id`, and counts it; id 0 is a negative entry. */
export function replyEntry(m: OverlayState, id: number, out: Entry): Status {
  const status = fillEntry(m, id, out);
  if (status === 0 && id !== 0) m.inodes.remember(id);
  return status;
}

/** Fills an entry reply without counting a lookup. */
export function fillEntry(m: OverlayState, id: number, out: Entry): Status {
  fillHead(m, id, out);
  if (id === 0) return 0;
  const node = m.inodes.get(id);
  if (node !== undefined) return fillNodeAttr(m, node, out.attr);
  fillLowerAttr(m, id - 1, out.attr);
  return 0;
}
