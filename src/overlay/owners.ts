// Owner and mode of objects in the upper directory: set where the backing filesystem lets this process, kept in an
// override (override.ts) where it does not, or where the mode would lock this process out of its own file.
// Invariants: an override is on disk before the backing mode goes by it; an object that has one is changed by rewriting
// it; its backing object never has setuid or setgid, and gives nobody more than the override gives everybody.
import { type Name, nameFromText } from "../base/bytes.js";
import { Errno } from "../base/errno.js";
import type { Status } from "../fuse/operations.js";
import { chmodFd } from "../sys/files.js";
import { keepsSetuid, overridesModes } from "../sys/process.js";
import { emptyStat, S_IFDIR, S_IFMT, S_IFREG, S_ISGID, type Stat, statFd } from "../sys/stat.js";
import { readXattrFd, removeXattrFd } from "../sys/xattr.js";
import { aclWithMode, isAcl } from "./acl.js";
import {
  chmodBacking,
  chownBacking,
  getBackingXattr,
  KEEP_ID,
  removeBackingXattr,
  statBacking,
  withoutSuidgid,
} from "./backing-metadata.js";
import { fault } from "./fault.js";
import type { Node } from "./inode-table.js";
import { readKept, removeKept, writeKept } from "./kept-xattrs.js";
import { isRefusal, type Override, type Overrides, writeOverride } from "./override.js";
import { convertToStandIn } from "./stand-ins.js";
import type { WritableState } from "./state.js";

export const accessAcl: Name = nameFromText("system.posix_acl_access");
const accessAclKey = Buffer.from("system.posix_acl_access");
export const capabilities: Name = nameFromText("security.capability");
const capabilitiesKey = Buffer.from("security.capability");

/** st_mode that an object shows, of whose backing object `stat` is. */
export function shownMode(node: Node, stat: Stat): number {
  return node.override === undefined ? stat.mode : node.override.mode;
}

/**
 * True for a mode that a file or directory of this process's own cannot keep: it would lock the process out, or lose its
 * setuid or setgid with any write of the process, whoever asked for it.
 */
export function isBeyondUs(mode: number): boolean {
  const type = mode & S_IFMT;
  if (type === S_IFDIR) return !overridesModes && (mode & 0o700) !== 0o700;
  if (type !== S_IFREG) return false;
  return (!overridesModes && (mode & 0o600) !== 0o600) || (!keepsSetuid && (mode & 0o6000) !== 0);
}

/** Permissions of a backing object with an override. */
function backingMode(mode: number): number {
  const others = mode & 0o7;
  const own = (mode & S_IFMT) === S_IFDIR ? 0o700 : 0o600 | (mode & 0o100);
  return own | (others << 3) | others;
}

/** Gives the file or directory open at `fd`, which has none, an override. 0 or a negative errno. */
export function beginOverride(overrides: Overrides, fd: number, override: Override): number {
  const acl = readXattrFd(fd, accessAclKey);
  if (typeof acl !== "number") {
    // The mode may have come with the ACL, or be meant to change it.
    const kept = writable(fd, () => writeKept(overrides, fd, accessAcl, aclWithMode(acl, override.mode)));
    if (kept < 0) return kept;
  }
  const written = writable(fd, () => writeOverride(overrides, fd, override));
  if (written < 0) return written;
  if (typeof acl !== "number") removeXattrFd(fd, accessAclKey);
  return fault("override.mode") || chmodFd(fd, backingMode(override.mode));
}

/** Setting a user. xattr takes the right to write: what has a mode without it gets it first. */
function writable(fd: number, write: () => number): number {
  const result = write();
  if (result !== -Errno.EACCES) return result;
  const stat = emptyStat();
  const looked = statFd(fd, stat);
  if (looked < 0) return looked;
  const changed = chmodFd(fd, (stat.mode & 0o7777) | 0o600);
  return changed < 0 ? changed : write();
}

/** Gives an object with a record an override, in place of what its filesystem or an older override says. */
export function setOverride(m: WritableState, node: Node, override: Override): Status {
  const type = override.mode & S_IFMT;
  if (node.override === undefined && type !== S_IFREG && type !== S_IFDIR) {
    return convertToStandIn(m, node, override);
  }
  const { overrides } = m.upper;
  const fd = m.fds.of(node);
  const result =
    node.override === undefined
      ? beginOverride(overrides, fd, override)
      : rewriteOverride(overrides, fd, override);
  if (result < 0) return result;
  node.override = override;
  return 0;
}

function rewriteOverride(overrides: Overrides, fd: number, override: Override): number {
  const result = writeOverride(overrides, fd, override);
  const type = override.mode & S_IFMT;
  if (result < 0 || (type !== S_IFREG && type !== S_IFDIR)) return result;
  return fault("override.mode") || chmodFd(fd, backingMode(override.mode));
}

/** chown(2); either id may be KEEP_ID. 0 or a negative errno. */
export function changeOwner(m: WritableState, node: Node, uid: number, gid: number): Status {
  let { override } = node;
  if (override === undefined) {
    const result = chownBacking(m.fds, node, uid, gid);
    if (result === 0 && node.type === S_IFREG) return dropKeptCapabilities(m, node);
    if (!isRefusal(result)) return result;
    // An owner that nobody is shown need not be kept.
    if (m.lower.squash !== undefined) return 0;
    const stat = emptyStat();
    const looked = statBacking(m.fds, node, stat);
    if (looked < 0) return looked;
    override = stat;
  }
  const dropped = node.type === S_IFREG ? dropCapabilities(m, node) : 0;
  if (dropped < 0) return dropped;
  return setOverride(m, node, {
    uid: uid === KEEP_ID ? override.uid : uid,
    gid: gid === KEEP_ID ? override.gid : gid,
    mode: node.type === S_IFDIR ? override.mode : withoutSuidgid(override.mode),
    rdev: override.rdev,
  });
}

/** chmod(2), of what is no symlink. An access ACL changes with it. 0 or a negative errno. */
export function changeMode(m: WritableState, node: Node, permissions: number): Status {
  const mode = node.type | permissions;
  const { override } = node;
  if (override !== undefined) {
    const acl = changeKeptAcl(m, node, mode);
    return acl < 0 ? acl : setOverride(m, node, { ...override, mode });
  }
  if (!isBeyondUs(mode)) {
    const result = chmodBacking(m.fds, node, permissions);
    // Without the right to keep it the kernel drops setgid, and says nothing.
    if (result < 0 || overridesModes || (mode & S_ISGID) === 0) return result;
  }
  const stat = emptyStat();
  const looked = statBacking(m.fds, node, stat);
  if (looked < 0) return looked;
  if ((stat.mode & 0o7777) === permissions) return 0;
  return setOverride(m, node, { uid: stat.uid, gid: stat.gid, mode, rdev: stat.rdev });
}

function changeKeptAcl(m: WritableState, node: Node, mode: number): Status {
  if (node.type !== S_IFREG && node.type !== S_IFDIR) return 0;
  const fd = m.fds.of(node);
  const acl = readKept(fd, accessAcl);
  if (typeof acl === "number" || !isAcl(acl)) return 0;
  return writeKept(m.upper.overrides, fd, accessAcl, aclWithMode(acl, mode));
}

/** True for a file with capabilities, wherever they are kept. */
export function isCapable(m: WritableState, node: Node): boolean {
  if (getBackingXattr(m.fds, node, capabilitiesKey, 0, 0) >= 0) return true;
  if (node.uncapable || !m.upper.overrides.all) return false;
  return typeof readKept(m.fds.of(node), capabilities) !== "number";
}

/** Takes a file's capabilities off, wherever they are kept. 0 or a negative errno. */
export function dropCapabilities(m: WritableState, node: Node): Status {
  // Asked first, because without privilege removing what is not there is EPERM.
  if (getBackingXattr(m.fds, node, capabilitiesKey, 0, 0) >= 0) {
    const removed = removeBackingXattr(m.fds, node, capabilitiesKey);
    if (removed < 0) return removed;
  }
  return dropKeptCapabilities(m, node);
}

/** The same for those that the kernel does not know of, and does not take off with a write. 0 or a negative errno. */
export function dropKeptCapabilities(m: WritableState, node: Node): Status {
  if (node.uncapable || !m.upper.overrides.all) return 0;
  const removed = removeKept(m.fds.of(node), capabilities);
  if (removed < 0 && removed !== -Errno.ENODATA && removed !== -Errno.EOPNOTSUPP) return removed;
  node.uncapable = true;
  return 0;
}
