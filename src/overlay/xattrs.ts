// Extended attributes. Names that overlays keep for themselves (trusted.overlay., user.overlay., user.imgfs. and
// podman's override) are not shown, and setting or removing one is EOPNOTSUPP, which cp -a and rsync take calmly.
// `user.imgfs.daemon` on the root, never listed, names the process that serves the mount.
import { type Name, nameOf } from "../base/bytes.js";
import { Errno } from "../base/errno.js";
import type { DataIn, DataOut, NameView, Request, Status } from "../fuse/operations.js";
import { S_IFMT, S_IFREG, S_ISGID } from "../sys/stat.js";
import {
  backingXattrNames,
  chmodBacking,
  getBackingXattr,
  removeBackingXattr,
  setBackingXattr,
  statBacking,
} from "./backing-metadata.js";
import { copyUp } from "./copy-up.js";
import { lowerXattr } from "./lower.js";
import { type OverlayState, recordOf, writable } from "./state.js";
import { isReserved } from "./xattr-names.js";

const DAEMON_XATTR = "user.imgfs.daemon";
const DEFAULT_ACL = "system.posix_acl_default";
const ACCESS_ACL = "system.posix_acl_access";

/** FUSE GETXATTR. */
export function getxattr(m: OverlayState, q: Request, name: NameView, out: DataOut): Status {
  const key = nameOf(name.bytes, name.start, name.end);
  if (key === DAEMON_XATTR && q.nodeid === 1) return answer(m.daemon, out);
  if (isReserved(key)) return -Errno.ENODATA;
  const node = m.inodes.get(q.nodeid);
  if (node === undefined || node.backing === 0) {
    const value = lowerXattr(m.lower, node?.row ?? q.nodeid - 1, key);
    return value === undefined ? -Errno.ENODATA : answer(value, out);
  }
  m.fds.trim();
  const bytes = name.bytes.subarray(name.start, name.end);
  const result = getBackingXattr(m.fds, node, bytes, out.address, out.capacity);
  if (result < 0) return result;
  out.length = result;
  return 0;
}

function answer(value: Uint8Array, out: DataOut): Status {
  out.length = value.length;
  if (out.capacity === 0) return 0;
  if (value.length > out.capacity) return -Errno.ERANGE;
  out.bytes.set(value, out.start);
  return 0;
}

/** FUSE LISTXATTR. */
export function listxattr(m: OverlayState, q: Request, out: DataOut): Status {
  const node = m.inodes.get(q.nodeid);
  if (node === undefined || node.backing === 0) {
    const xattrs = m.lower.xattrs(node?.row ?? q.nodeid - 1) ?? [];
    return answer(joined(xattrs.map(({ name }) => name)), out);
  }
  m.fds.trim();
  const names = backingXattrNames(m.fds, node);
  if (typeof names === "number") return names;
  return answer(joined(names.toString("latin1").split("\0").slice(0, -1) as Name[]), out);
}

function joined(names: readonly Name[]): Buffer {
  const shown = names.filter((name) => !isReserved(name));
  return Buffer.from(shown.map((name) => `${name}\0`).join(""), "latin1");
}

/** FUSE SETXATTR. */
export function setxattr(
  m: OverlayState,
  q: Request,
  name: NameView,
  value: DataIn,
  flags: number,
  killSgid: boolean,
): Status {
  const state = writable(m);
  const key = nameOf(name.bytes, name.start, name.end);
  if (isReserved(key)) return -Errno.EOPNOTSUPP;
  const copied = copyUp(state, q, q.nodeid);
  if (copied < 0) return copied;
  const node = recordOf(m, q.nodeid);
  const bytes = name.bytes.subarray(name.start, name.end);
  const result = setBackingXattr(m.fds, node, bytes, value.address, value.length, flags);
  if (result < 0) return result;
  if (key === DEFAULT_ACL && node.directory !== undefined) node.directory.defaultAcl = true;
  if (killSgid && statBacking(m.fds, node, m.stat) === 0 && (m.stat.mode & S_IFMT) === S_IFREG) {
    return chmodBacking(m.fds, node, m.stat.mode & 0o7777 & ~S_ISGID);
  }
  return 0;
}

/** FUSE REMOVEXATTR. */
export function removexattr(m: OverlayState, q: Request, name: NameView): Status {
  const state = writable(m);
  const key = nameOf(name.bytes, name.start, name.end);
  if (isReserved(key)) return -Errno.EOPNOTSUPP;
  const node = m.inodes.get(q.nodeid);
  // Nothing to remove is no reason to copy anything up.
  if (node === undefined && lowerXattr(m.lower, q.nodeid - 1, key) === undefined) {
    // An ACL that is not there has been removed all the same (ext4 and xfs say so too).
    return key === DEFAULT_ACL || key === ACCESS_ACL ? 0 : -Errno.ENODATA;
  }
  const copied = copyUp(state, q, q.nodeid);
  if (copied < 0) return copied;
  const record = recordOf(m, q.nodeid);
  const result = removeBackingXattr(m.fds, record, name.bytes.subarray(name.start, name.end));
  if (result === 0 && key === DEFAULT_ACL && record.directory !== undefined) {
    record.directory.defaultAcl = false;
  }
  return result;
}
