// Xattrs that this process may not set on a backing object (trusted., security.), and access ACLs of objects whose mode
// is kept beside them: under a name of ours that holds theirs, shown as if they were there.
// Only what can carry user. xattrs keeps any. Invariant: an upper directory with one of these says that it may hold
// overrides, so others are never searched.
import { bytesOf, type Name } from "../base/bytes.js";
import { Errno } from "../base/errno.js";
import { readXattrFd, removeXattrFd, writeXattrFd } from "../sys/xattr.js";
import { fault } from "./fault.js";
import { allowOverrides, type Overrides } from "./override.js";

const PREFIX = "user.imgfs.kept.";
/** Longest name (include/uapi/linux/limits.h, XATTR_NAME_MAX). */
const NAME_MAX = 255;

/** Namespaces that this process may have no right to. A name of none that there is stays refused. */
const namespaces = ["trusted.", "security.", "system.posix_acl_"];

/** True for the name of an xattr that is kept where it cannot be set. */
export function mayBeKept(name: Name): boolean {
  return PREFIX.length + name.length <= NAME_MAX && namespaces.some((prefix) => name.startsWith(prefix));
}

function keptName(name: Name): Buffer {
  return bytesOf(`${PREFIX}${name}` as Name);
}

/** What is kept under this name on disk; undefined for any other name. */
export function nameKept(stored: Name): Name | undefined {
  return stored.startsWith(PREFIX) ? (stored.slice(PREFIX.length) as Name) : undefined;
}

/** The kept value, or a negative errno. */
export function readKept(fd: number, name: Name): Buffer | number {
  return readXattrFd(fd, keptName(name));
}

/** Keeps a value; `flags` as for setxattr(2). 0 or a negative errno. */
export function writeKept(
  overrides: Overrides,
  fd: number,
  name: Name,
  value: Uint8Array,
  flags = 0,
): number {
  const allowed = allowOverrides(overrides);
  return allowed || fault("kept.write") || writeXattrFd(fd, keptName(name), value, flags);
}

/** Removes a kept value. 0, -ENODATA where there is none, or another negative errno. */
export function removeKept(fd: number, name: Name): number {
  return fault("kept.remove") || removeXattrFd(fd, keptName(name));
}

/** True for the errnos of a setxattr that this process has no right to, or that names ids which do not exist where it runs. */
export function isRefusedXattr(result: number): boolean {
  return result === -Errno.EPERM || result === -Errno.EINVAL || result === -Errno.EOPNOTSUPP;
}
