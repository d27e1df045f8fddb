// Owner, group and mode of objects just made: the caller's, the directory's where it has the setgid bit, the exact mode
// whatever the daemon's umask is. What this process may not give is kept beside the object (owners.ts).
import type { Request, Status } from "../fuse/operations.js";
import { chmodAt, chmodFd, chownAt, closeFd, O_NOFOLLOW, O_RDONLY, openAt } from "../sys/files.js";
import { check } from "../sys/libc.js";
import { overridesModes } from "../sys/process.js";
import { S_IFDIR, S_IFLNK, S_IFMT, S_IFREG, S_ISGID, type Stat, statAt, statFd } from "../sys/stat.js";
import { readXattrFd } from "../sys/xattr.js";
import { inherited, isAcl } from "./acl.js";
import { fault } from "./fault.js";
import { type DirectoryPart, GROUP_UNKNOWN, NO_GROUP, type Node } from "./inode-table.js";
import { writeKept } from "./kept-xattrs.js";
import { isRefusal, type Override } from "./override.js";
import { accessAcl, beginOverride, isBeyondUs, shownMode } from "./owners.js";
import { replaceByStandIn } from "./stand-ins.js";
import type { WritableState } from "./state.js";

const defaultAcl = Buffer.from("system.posix_acl_default");

/** A new object: `name` in `atFd`, or with an empty name what is open at `atFd`. */
export interface Fresh {
  readonly atFd: number;
  readonly name: Uint8Array;
  /** A descriptor of it, or 0. */
  readonly fd: number;
}

/** The group that objects made in a directory get by its setgid bit, or NO_GROUP. */
export function inheritedGroup(m: WritableState, directory: Node): number {
  const part = directory.directory as DirectoryPart;
  if (part.group === GROUP_UNKNOWN) {
    check(statFd(m.fds.of(directory), m.stat), "stat in the upper directory");
    const { gid } = directory.override ?? m.stat;
    part.group = (shownMode(directory, m.stat) & S_ISGID) !== 0 ? gid : NO_GROUP;
  }
  return part.group;
}

/** The group of an object made in a directory. */
export function groupFor(m: WritableState, q: Request, directory: Node): number {
  const group = inheritedGroup(m, directory);
  return group === NO_GROUP ? q.gid : group;
}

/** Mode and ACL of a new object by its directory's default ACL; undefined where that has none. */
export function inheritedAcl(
  m: WritableState,
  directory: Node,
  mode: number,
): ReturnType<typeof inherited> | undefined {
  return (directory.directory as DirectoryPart).defaultAcl ? aclFrom(m.fds.of(directory), mode) : undefined;
}

/** The same for the directory open at `fd`. */
export function aclFrom(fd: number, mode: number): ReturnType<typeof inherited> | undefined {
  const acl = readXattrFd(fd, defaultAcl);
  return typeof acl === "number" || !isAcl(acl) ? undefined : inherited(acl, mode);
}

/** Keeps an access ACL beside what is a stand-in. 0 or a negative errno. */
export function keepAcl(m: WritableState, fd: number, acl: Uint8Array): Status {
  return writeKept(m.upper.overrides, fd, accessAcl, acl);
}

/** Permissions to make an object with: those it is to have, and what this process needs to finish it. */
export function usableMode(type: number, mode: number): number {
  if (overridesModes) return mode;
  if (type === S_IFDIR) return mode | 0o700;
  return type === S_IFREG ? mode | 0o600 : mode;
}

/**
 * Gives a new object, made with {@link usableMode} of `mode`, its owner and exact mode, and stats it. What it shows
 * instead of that, or undefined. Throws FsError.
 */
export function settleNew(
  m: WritableState,
  q: Request,
  directory: Node,
  fresh: Fresh,
  mode: number,
  stat: Stat,
): Override | undefined {
  const { defaultAcl } = directory.directory as DirectoryPart;
  const nameless = fresh.name.length === 0;
  look(fresh, stat);
  const type = stat.mode & S_IFMT;
  const inheritsBit = type === S_IFDIR && inheritedGroup(m, directory) !== NO_GROUP;
  const exact = (mode & 0o7777) | (inheritsBit ? S_ISGID : 0);
  const owner = { uid: q.uid, gid: groupFor(m, q, directory) };
  let changed = false;
  let refused = false;
  if (stat.uid !== owner.uid || stat.gid !== owner.gid) {
    const owned =
      fault(nameless ? "tmpfile.owner" : "create.owner") ||
      chownAt(fresh.atFd, fresh.name, owner.uid, owner.gid);
    // An owner that nobody is shown need not be kept.
    refused = isRefusal(owned) && m.lower.squash === undefined;
    if (!isRefusal(owned)) check(owned, "owner of a new object");
    changed = true;
  }
  // With a default ACL the backing filesystem has worked the mode out, from what it was made with.
  const shown = defaultAcl ? (stat.mode & (exact | 0o77)) | (exact & 0o7000) : exact;
  if (refused || isBeyondUs(type | shown)) {
    const override = { ...owner, mode: type | shown, rdev: stat.rdev };
    check(keepBeside(m, fresh, override, stat), "owner of a new object");
    return override;
  }
  const special = changed && (exact & 0o6000) !== 0;
  if (type !== S_IFLNK && (special || (!defaultAcl && (stat.mode & 0o7777) !== exact))) {
    const { fd, atFd, name } = fresh;
    const moded =
      fault(nameless ? "tmpfile.mode" : "create.mode") ||
      (fd > 0 ? chmodFd(fd, exact) : chmodAt(atFd, name, exact));
    check(moded, "mode of a new object");
    changed = true;
  }
  if (changed) look(fresh, stat);
  return undefined;
}

function look({ fd, atFd, name }: Fresh, stat: Stat): void {
  check(name.length === 0 ? statFd(fd, stat) : statAt(atFd, name, stat), "stat of a new object");
}

function keepBeside(m: WritableState, fresh: Fresh, override: Override, stat: Stat): number {
  const { fd, atFd, name } = fresh;
  const type = override.mode & S_IFMT;
  if (type !== S_IFREG && type !== S_IFDIR) {
    const standIn = replaceByStandIn(m, atFd, name, override, stat);
    if (standIn >= 0) closeFd(standIn);
    return standIn;
  }
  const own = fd > 0 ? fd : openAt(atFd, name, O_RDONLY | O_NOFOLLOW);
  if (own < 0) return own;
  const result = beginOverride(m.upper.overrides, own, override);
  const looked = statFd(own, stat);
  if (fd <= 0) closeFd(own);
  return result < 0 ? result : looked;
}
