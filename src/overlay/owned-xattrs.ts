// Xattrs of objects in the upper directory that may be kept beside them (kept-xattrs.ts): what this process may not set,
// and the access ACL of an object with an override, which goes with its mode.
// Invariant: an object with an override has its access ACL kept, one without has it from its filesystem.
import type { Name } from "../base/bytes.js";
import { Errno } from "../base/errno.js";
import type { DataIn, Status } from "../fuse/operations.js";
import { emptyStat, S_IFDIR, S_IFREG } from "../sys/stat.js";
import { XATTR_CREATE, XATTR_REPLACE } from "../sys/xattr.js";
import { isAcl, isPlain, modeWithAcl } from "./acl.js";
import { getBackingXattr, removeBackingXattr, setBackingXattr, statBacking } from "./backing-metadata.js";
import { backingType, type Node } from "./inode-table.js";
import { isRefusedXattr, mayBeKept, readKept, removeKept, writeKept } from "./kept-xattrs.js";
import { accessAcl, isBeyondUs, setOverride } from "./owners.js";
import type { OverlayState, WritableState } from "./state.js";

const CAPABILITIES = "security.capability";

/** True for an object that can have something kept beside it. */
function keeps(node: Node): boolean {
  const type = backingType(node);
  return type === S_IFREG || type === S_IFDIR;
}

/** True where a value of this name may be kept beside the object, and has to be looked for there first. */
export function mayHaveKept(m: OverlayState, node: Node, name: Name): boolean {
  return m.upper?.overrides.all === true && !name.startsWith("user.") && mayBeKept(name) && keeps(node);
}

/** True where what the backing filesystem has under this name is not the object's. */
export function hidesNative(node: Node, name: Name): boolean {
  return node.override !== undefined && name === accessAcl;
}

/** The value kept beside an object, or a negative errno. */
export function keptXattr(m: OverlayState, node: Node, name: Name): Buffer | number {
  return readKept(m.fds.of(node), name);
}

/** setxattr(2) under the name that the backing object has it by. 0 or a negative errno. */
export function setOwnedXattr(
  m: WritableState,
  node: Node,
  name: Name,
  stored: Uint8Array,
  value: DataIn,
  flags: number,
): Status {
  const bytes = value.bytes.subarray(value.start, value.start + value.length);
  if (name === accessAcl && keeps(node)) return setAccessAcl(m, node, stored, bytes, value, flags);
  const kept = mayHaveKept(m, node, name) && typeof keptXattr(m, node, name) !== "number";
  let result = -Errno.EPERM as number;
  if (!kept) {
    result = setBackingXattr(m.fds, node, stored, value.address, value.length, flags);
    // What is no value of this kind is refused everywhere.
    if (!isRefusedXattr(result) || result === -Errno.EINVAL) return result;
    if (!mayBeKept(name) || !keeps(node)) return result;
    if ((flags & XATTR_REPLACE) !== 0) return -Errno.ENODATA;
  }
  const written = writeKept(m.upper.overrides, m.fds.of(node), name, bytes, flags);
  if (written === 0 && name === CAPABILITIES) node.uncapable = false;
  return written < 0 && !kept && written !== -Errno.EEXIST ? result : written;
}

/** The mode is part of it. */
function setAccessAcl(
  m: WritableState,
  node: Node,
  stored: Uint8Array,
  acl: Uint8Array,
  value: DataIn,
  flags: number,
): Status {
  if (!isAcl(acl)) return setBackingXattr(m.fds, node, stored, value.address, value.length, flags);
  const stat = emptyStat();
  const looked = statBacking(m.fds, node, stat);
  if (looked < 0) return looked;
  const now = node.override ?? { uid: stat.uid, gid: stat.gid, mode: stat.mode, rdev: 0 };
  const mode = modeWithAcl(now.mode, acl);
  if (node.override === undefined && !isBeyondUs(mode)) {
    return setBackingXattr(m.fds, node, stored, value.address, value.length, flags);
  }
  const has = typeof keptXattr(m, node, accessAcl) !== "number";
  if ((flags & XATTR_CREATE) !== 0 && has) return -Errno.EEXIST;
  if ((flags & XATTR_REPLACE) !== 0 && !has) return -Errno.ENODATA;
  const changed = setOverride(m, node, { ...now, mode });
  if (changed < 0) return changed;
  if (!isPlain(acl)) return writeKept(m.upper.overrides, m.fds.of(node), accessAcl, acl);
  const removed = removeKept(m.fds.of(node), accessAcl);
  return removed === -Errno.ENODATA ? 0 : removed;
}

/** removexattr(2) under the name that the backing object has it by. 0 or a negative errno. */
export function removeOwnedXattr(m: WritableState, node: Node, name: Name, stored: Uint8Array): Status {
  const kept = mayHaveKept(m, node, name) ? removeKept(m.fds.of(node), name) : -Errno.ENODATA;
  if (kept < 0 && kept !== -Errno.ENODATA) return kept;
  if (hidesNative(node, name)) return 0;
  let result = removeBackingXattr(m.fds, node, stored);
  // Without privilege that is refused of what is not there, too.
  if (isRefusedXattr(result)) {
    const there = getBackingXattr(m.fds, node, stored, 0, 0);
    if (there < 0) result = there;
  }
  return kept === 0 && result === -Errno.ENODATA ? 0 : result;
}
