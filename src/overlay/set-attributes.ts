// Changes of mode, owner, size and times. The object is copied up first; then each change is made on the backing
// object, in the order chown, chmod, size, times, because each may undo what an earlier one set.
import {
  type AttrReply,
  FATTR_ATIME,
  FATTR_ATIME_NOW,
  FATTR_CTIME,
  FATTR_GID,
  FATTR_KILL_SUIDGID,
  FATTR_MODE,
  FATTR_MTIME,
  FATTR_MTIME_NOW,
  FATTR_SIZE,
  FATTR_UID,
  type Request,
  type SetAttr,
  type Status,
} from "../fuse/operations.js";
import { UTIME_NOW, UTIME_OMIT } from "../sys/files.js";
import { overridesModes } from "../sys/process.js";
import { S_IFLNK, S_IFREG } from "../sys/stat.js";
import { fillAttr, fillNodeAttr } from "./attributes.js";
import { KEEP_ID, utimesBacking } from "./backing-metadata.js";
import { copyUp, copyUpData } from "./copy-up.js";
import { fault } from "./fault.js";
import { resize, truncate } from "./file-io.js";
import { GROUP_UNKNOWN, type Node } from "./inode-table.js";
import { changeMode, changeOwner, dropCapabilities, isCapable } from "./owners.js";
import { type OverlayState, recordOf, type WritableState, writable } from "./state.js";

/** FUSE SETATTR. */
export function setattr(m: OverlayState, q: Request, set: SetAttr, out: AttrReply): Status {
  const state = writable(m);
  const { valid } = set;
  // Only the kernel's own flush of times names ctime. Without its writeback cache those are times it has kept from
  // before the last writes, which the backing file knows better.
  if ((valid & FATTR_CTIME) !== 0) return fillAttr(m, q.nodeid, out);
  const others = FATTR_UID | FATTR_GID | FATTR_MODE;
  const cuts = (valid & FATTR_SIZE) !== 0 && (valid & others) === 0;
  const copied = cuts
    ? resize(m, q, q.nodeid, set.size, (valid & FATTR_KILL_SUIDGID) !== 0)
    : (valid & FATTR_SIZE) !== 0
      ? copyUpData(state, q, q.nodeid, set.size)
      : copyUp(state, q, q.nodeid);
  if (copied < 0) return copied;
  const node = recordOf(m, q.nodeid);
  const result = cuts ? changeTimes(m, node, set, valid) : change(state, q, node, set, valid);
  if (result < 0) return result;
  out.attrTimeout = Infinity;
  return fillNodeAttr(m, node, out.attr);
}

function change(m: WritableState, q: Request, node: Node, set: SetAttr, valid: number): Status {
  if (node.directory !== undefined) node.directory.group = GROUP_UNKNOWN;
  if (valid === 0) return dropPrivileges(m, q, node);
  if ((valid & (FATTR_UID | FATTR_GID)) !== 0) {
    const uid = (valid & FATTR_UID) !== 0 ? set.uid : KEEP_ID;
    const gid = (valid & FATTR_GID) !== 0 ? set.gid : KEEP_ID;
    const result = fault("attributes.owner") || changeOwner(m, node, uid, gid);
    if (result < 0) return result;
  }
  if ((valid & FATTR_MODE) !== 0 && node.type !== S_IFLNK) {
    const result = fault("attributes.mode") || changeMode(m, node, set.mode & 0o7777);
    if (result < 0) return result;
    if (!overridesModes && (set.mode & 0o200) !== 0) m.fds.widen(node);
  }
  if ((valid & FATTR_SIZE) !== 0) {
    const result = truncate(m, q, node, set.size, (valid & FATTR_KILL_SUIDGID) !== 0);
    if (result < 0) return result;
  }
  return changeTimes(m, node, set, valid);
}

/**
 * Nothing to set is chown(-1, -1), which takes setuid, setgid and capabilities, or the kernel's word before a write that
 * privileges go. Root's writes leave setuid and setgid, and that word comes of them only where there are capabilities,
 * so those tell the two apart.
 */
function dropPrivileges(m: WritableState, q: Request, node: Node): Status {
  if (q.uid === 0 && node.type === S_IFREG && isCapable(m, node)) return dropCapabilities(m, node);
  return fault("attributes.owner") || changeOwner(m, node, KEEP_ID, KEEP_ID);
}

function changeTimes(m: OverlayState, node: Node, set: SetAttr, valid: number): Status {
  if ((valid & (FATTR_ATIME | FATTR_MTIME | FATTR_ATIME_NOW | FATTR_MTIME_NOW)) === 0) return 0;
  const nanoseconds = (now: number, given: number, value: number): number => {
    if ((valid & now) !== 0) return UTIME_NOW;
    return (valid & given) !== 0 ? value : UTIME_OMIT;
  };
  const failed = fault("attributes.times");
  if (failed < 0) return failed;
  return utimesBacking(m.fds, node, {
    atimeSec: set.atimeSec,
    atimeNsec: nanoseconds(FATTR_ATIME_NOW, FATTR_ATIME, set.atimeNsec),
    mtimeSec: set.mtimeSec,
    mtimeNsec: nanoseconds(FATTR_MTIME_NOW, FATTR_MTIME, set.mtimeNsec),
  });
}
