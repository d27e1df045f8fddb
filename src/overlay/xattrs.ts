// Extended attributes. What the overlay itself keeps on backing objects is out of reach: programs that use the same names
// get others on disk (xattr-names.ts). An object of the image has the names that its layer gave it, all of them content.
// `user.imgfs.daemon` on the root, never listed, names the process that serves the mount.
import { bytesOf, type Name, nameOf } from "../base/bytes.js";
import { Errno } from "../base/errno.js";
import type { DataIn, DataOut, NameView, Request, Status } from "../fuse/operations.js";
import { mayUseTrusted } from "../sys/process.js";
import { S_IFREG, S_ISGID } from "../sys/stat.js";
import { backingXattrNames, getBackingXattr, statBacking } from "./backing-metadata.js";
import { copyUp } from "./copy-up.js";
import { fault } from "./fault.js";
import { nameKept } from "./kept-xattrs.js";
import { lowerXattr } from "./lower.js";
import { hidesNative, keptXattr, mayHaveKept, removeOwnedXattr, setOwnedXattr } from "./owned-xattrs.js";
import { changeMode, shownMode } from "./owners.js";
import { chargeXattr, knowXattrs, settleXattrs } from "./quota/charge-xattrs.js";
import { type OverlayState, recordOf, writable } from "./state.js";
import { shownName, storedName } from "./xattr-names.js";

const DAEMON_XATTR = "user.imgfs.daemon";
const DEFAULT_ACL = "system.posix_acl_default";
const ACCESS_ACL = "system.posix_acl_access";

function isDaemon(q: Request, key: string): boolean {
  return key === DAEMON_XATTR && q.nodeid === 1;
}

/** FUSE GETXATTR. */
export function getxattr(m: OverlayState, q: Request, name: NameView, out: DataOut): Status {
  const key = nameOf(name.bytes, name.start, name.end);
  if (isDaemon(q, key)) return answer(m.daemon, out);
  const node = m.inodes.get(q.nodeid);
  if (node === undefined || node.backing === 0) {
    const value = lowerXattr(m.lower, node?.row ?? q.nodeid - 1, key);
    return value === undefined ? -Errno.ENODATA : answer(value, out);
  }
  m.fds.trim();
  if (mayHaveKept(m, node, key)) {
    const kept = keptXattr(m, node, key);
    if (typeof kept !== "number") return answer(kept, out);
    if (kept !== -Errno.ENODATA || hidesNative(node, key)) return kept;
  }
  const stored = storedName(key);
  if (stored === undefined) return -Errno.ENODATA;
  const result = getBackingXattr(m.fds, node, storedBytes(key, stored, name), out.address, out.capacity);
  if (result < 0) return result;
  out.length = result;
  return 0;
}

/** The bytes of a name on disk: the request's own where they are the same. */
function storedBytes(key: Name, stored: Name, { bytes, start, end }: NameView): Uint8Array {
  return stored === key ? bytes.subarray(start, end) : bytesOf(stored);
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
    return answerNames(
      q,
      xattrs.map(({ name }) => name),
      out,
    );
  }
  m.fds.trim();
  const names = backingXattrNames(m.fds, node);
  if (typeof names === "number") return names;
  const shown = new Set<Name>();
  for (const stored of nameOf(names).split("\0").slice(0, -1) as Name[]) {
    const name = nameKept(stored) ?? (hidesNative(node, stored) ? undefined : shownName(stored));
    if (name !== undefined) shown.add(name);
  }
  return answerNames(q, [...shown], out);
}

function answerNames(q: Request, names: readonly Name[], out: DataOut): Status {
  // The kernel lets others neither read nor set these, and other filesystems do not name them to them.
  const hidesTrusted = names.some(isTrusted) && !mayUseTrusted(q.pid);
  const shown = names.filter((name) => !(hidesTrusted && isTrusted(name)) && !isDaemon(q, name));
  return answer(Buffer.from(shown.map((name) => `${name}\0`).join(""), "latin1"), out);
}

function isTrusted(name: string): boolean {
  return name.startsWith("trusted.");
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
  const stored = isDaemon(q, key) ? undefined : storedName(key);
  // As the kernel's overlayfs has it where a name is too long once it is escaped; cp -a and rsync take it calmly.
  if (stored === undefined) return -Errno.EOPNOTSUPP;
  const copied = copyUp(state, q, q.nodeid);
  if (copied < 0) return copied;
  const node = recordOf(m, q.nodeid);
  const bytes = storedBytes(key, stored, name);
  const charged = chargeXattr(state, q, node, key, value.length);
  if (charged < 0) return charged;
  const result = fault("attributes.xattr") || setOwnedXattr(state, node, key, bytes, value, flags);
  settleXattrs(state, node);
  if (result < 0) return result;
  if (key === DEFAULT_ACL && node.directory !== undefined) node.directory.defaultAcl = true;
  if (killSgid && node.type === S_IFREG && statBacking(m.fds, node, m.stat) === 0) {
    return changeMode(state, node, shownMode(node, m.stat) & 0o7777 & ~S_ISGID);
  }
  return 0;
}

/** FUSE REMOVEXATTR. */
export function removexattr(m: OverlayState, q: Request, name: NameView): Status {
  const state = writable(m);
  const key = nameOf(name.bytes, name.start, name.end);
  if (isDaemon(q, key)) return -Errno.EOPNOTSUPP;
  const node = m.inodes.get(q.nodeid);
  // Nothing to remove is no reason to copy anything up.
  if (node === undefined && lowerXattr(m.lower, q.nodeid - 1, key) === undefined) {
    // An ACL that is not there has been removed all the same (ext4 and xfs say so too).
    return key === DEFAULT_ACL || key === ACCESS_ACL ? 0 : -Errno.ENODATA;
  }
  const copied = copyUp(state, q, q.nodeid);
  if (copied < 0) return copied;
  const stored = storedName(key);
  if (stored === undefined) return -Errno.ENODATA;
  const record = recordOf(m, q.nodeid);
  knowXattrs(state, record);
  const result =
    fault("attributes.remove-xattr") || removeOwnedXattr(state, record, key, storedBytes(key, stored, name));
  settleXattrs(state, record);
  if (result === 0 && key === DEFAULT_ACL && record.directory !== undefined) {
    record.directory.defaultAcl = false;
  }
  return result;
}
