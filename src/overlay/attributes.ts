// What stat says of an inode: from the image for what is only there, from the backing object otherwise, with the
// identity and the link count of the merged view.
// Invariant: reads never change a time.
import { Errno } from "../base/errno.js";
import { STATX_BTIME } from "../fuse/abi.js";
import type { Attr, AttrReply, Request, Status, StatxReply } from "../fuse/operations.js";
import { S_IFDIR, S_IFLNK, S_IFREG, type Stat } from "../sys/stat.js";
import { statBacking } from "./backing-metadata.js";
import { countSubdirectories } from "./directory-names.js";
import { lowerNamesLeft } from "./hard-links.js";
import type { DirectoryPart, Node } from "./inode-table.js";
import type { OverlayState } from "./state.js";

/** FUSE GETATTR. */
export function getattr(m: OverlayState, q: Request, out: AttrReply): Status {
  m.fds.trim();
  return fillAttr(m, q.nodeid, out);
}

/**
 * FUSE STATX. Objects of the image have no time of birth, nor have their copies: one that came with the copy-up would be
 * neither the object's nor lasting.
 */
export function statx(m: OverlayState, q: Request, out: StatxReply): Status {
  m.fds.trim();
  const node = m.inodes.get(q.nodeid);
  if (node === undefined || node.row >= 0) return fillAttr(m, q.nodeid, out);
  out.attrTimeout = Infinity;
  const { stat } = m;
  const result = statBacking(m.fds, node, stat);
  if (result < 0) return result;
  out.born = (stat.mask & STATX_BTIME) !== 0;
  out.btimeSec = stat.btimeSec;
  out.btimeNsec = stat.btimeNsec;
  fillFromStat(m, node, stat, out.attr);
  return 0;
}

/** Fills the attributes of a nodeid. */
export function fillAttr(m: OverlayState, id: number, out: AttrReply): Status {
  out.attrTimeout = Infinity;
  const node = m.inodes.get(id);
  if (node !== undefined) return fillNodeAttr(m, node, out.attr);
  if (id > m.lower.tree.inodeCount) return -Errno.ESTALE;
  fillLowerAttr(m, id - 1, out.attr);
  return 0;
}

/** Attributes of an object that is in the image only. */
export function fillLowerAttr(m: OverlayState, row: number, attr: Attr): void {
  m.lower.fillAttr(row, attr);
  if (m.upper !== undefined && attr.nlink > 1 && !m.lower.isDirectory(row)) {
    attr.nlink = lowerNamesLeft(m, row);
  }
}

/** Attributes of an object with a record. 0 or a negative errno. */
export function fillNodeAttr(m: OverlayState, node: Node, attr: Attr): Status {
  if (node.backing === 0) {
    m.lower.fillAttr(node.row, attr);
    if (node.removed) attr.nlink = 0;
    return 0;
  }
  const { stat } = m;
  const result = statBacking(m.fds, node, stat);
  if (result < 0) return result;
  fillFromStat(m, node, stat, attr);
  return 0;
}

/** Attributes of an object whose backing object has just been looked at. */
export function fillFromStat(m: OverlayState, node: Node, stat: Stat, attr: Attr): void {
  attr.ino = node.ino;
  attr.size = stat.size;
  // The backing file of a metadata-only copy is one hole.
  attr.blocks = node.dataRow < 0 ? stat.blocks : m.lower.blocks(node.dataRow);
  const { override } = node;
  const owner = m.lower.squash ?? override ?? stat;
  attr.mode = override === undefined ? stat.mode : override.mode;
  attr.uid = owner.uid;
  attr.gid = owner.gid;
  attr.rdev = override === undefined ? stat.rdev : override.rdev;
  attr.blksize = stat.blksize;
  attr.atimeSec = stat.atimeSec;
  attr.atimeNsec = stat.atimeNsec;
  attr.mtimeSec = stat.mtimeSec;
  attr.mtimeNsec = stat.mtimeNsec;
  attr.ctimeSec = stat.ctimeSec;
  attr.ctimeNsec = stat.ctimeNsec;
  attr.nlink = linkCount(m, node, stat.nlink);
  if (override !== undefined && node.type !== S_IFREG && node.type !== S_IFDIR) {
    attr.blocks = 0;
    if (node.type !== S_IFLNK) attr.size = 0;
  }
}

/** Names in the merged view. `links` is the backing object's own count. */
export function linkCount(m: OverlayState, node: Node, links: number): number {
  if (node.removed) return 0;
  if (node.type === S_IFDIR) {
    // A purely upper directory is counted by its filesystem, which may keep no count (1).
    return (node.directory as DirectoryPart).lowerRow < 0 ? links : 2 + countSubdirectories(m, node);
  }
  return node.indexed ? links - 1 + lowerNamesLeft(m, node.row) : links;
}
