// Metadata of backing objects as their filesystem has them. An object is reached by its descriptor when one is open, else
// by its parent's and its name. Owner and mode of what shows are in owners.ts.
import { Errno } from "../base/errno.js";
import { AT_FDCWD, chmodAt, chmodFd, chownAt, noName, utimesAt, utimesFd } from "../sys/files.js";
import { S_IFDIR, S_IFREG, S_ISGID, S_ISUID, type Stat, statAt, statFd } from "../sys/stat.js";
import {
  getXattrAt,
  getXattrFd,
  readXattrNamesAt,
  readXattrNamesFd,
  removeXattrAt,
  removeXattrFd,
  setXattrAt,
  setXattrFd,
} from "../sys/xattr.js";
import type { BackingFds } from "./backing-fds.js";
import { backingType, type Node } from "./inode-table.js";

/** Leaves an owner as it is. */
export const KEEP_ID = 0xffff_ffff;

function parentFd(fds: BackingFds, node: Node): number {
  return fds.of(node.parent as Node);
}

export function statBacking(fds: BackingFds, node: Node, out: Stat): number {
  if (node.fd >= 0) return statFd(node.fd, out);
  return node.parent === undefined ? -Errno.ESTALE : statAt(parentFd(fds, node), node.name, out);
}

export function chmodBacking(fds: BackingFds, node: Node, mode: number): number {
  if (node.fd >= 0) {
    const type = backingType(node);
    if (type === S_IFREG || type === S_IFDIR) return chmodFd(node.fd, mode);
    return chmodAt(AT_FDCWD, Buffer.from(`/proc/self/fd/${node.fd}`), mode);
  }
  return chmodAt(parentFd(fds, node), node.name, mode);
}

export function chownBacking(fds: BackingFds, node: Node, uid: number, gid: number): number {
  if (node.fd >= 0) return chownAt(node.fd, noName, uid, gid);
  return chownAt(parentFd(fds, node), node.name, uid, gid);
}

const S_IXGRP = 0o010;

/** A mode as it is after a change of data by somebody without privilege. */
export function withoutSuidgid(mode: number): number {
  return mode & ~S_ISUID & ((mode & S_IXGRP) !== 0 ? ~S_ISGID : ~0);
}

/** Seconds and nanoseconds; the nanoseconds may be UTIME_NOW or UTIME_OMIT. */
export interface Times {
  atimeSec: number;
  atimeNsec: number;
  mtimeSec: number;
  mtimeNsec: number;
}

export function utimesBacking(fds: BackingFds, node: Node, t: Times): number {
  if (byFd(fds, node)) return utimesFd(node.fd, t.atimeSec, t.atimeNsec, t.mtimeSec, t.mtimeNsec);
  if (node.fd >= 0) return utimesAt(node.fd, noName, t.atimeSec, t.atimeNsec, t.mtimeSec, t.mtimeNsec);
  return utimesAt(parentFd(fds, node), node.name, t.atimeSec, t.atimeNsec, t.mtimeSec, t.mtimeNsec);
}

/** True when the xattr calls can go by descriptor. */
function byFd(fds: BackingFds, node: Node): boolean {
  const type = backingType(node);
  if (type === S_IFDIR) fds.of(node);
  return node.fd >= 0 && (type === S_IFREG || type === S_IFDIR);
}

export function getBackingXattr(
  fds: BackingFds,
  node: Node,
  name: Uint8Array,
  address: number,
  length: number,
): number {
  if (byFd(fds, node)) return getXattrFd(node.fd, name, address, length);
  if (node.parent === undefined) return getXattrAt(node.fd, noName, name, address, length);
  return getXattrAt(parentFd(fds, node), node.name, name, address, length);
}

export function backingXattrNames(fds: BackingFds, node: Node): Buffer | number {
  if (byFd(fds, node)) return readXattrNamesFd(node.fd);
  if (node.parent === undefined) return readXattrNamesAt(node.fd, noName);
  return readXattrNamesAt(parentFd(fds, node), node.name);
}

export function setBackingXattr(
  fds: BackingFds,
  node: Node,
  name: Uint8Array,
  address: number,
  length: number,
  flags: number,
): number {
  if (byFd(fds, node)) return setXattrFd(node.fd, name, address, length, flags);
  if (node.parent === undefined) return setXattrAt(node.fd, noName, name, address, length, flags);
  return setXattrAt(parentFd(fds, node), node.name, name, address, length, flags);
}

export function removeBackingXattr(fds: BackingFds, node: Node, name: Uint8Array): number {
  if (byFd(fds, node)) return removeXattrFd(node.fd, name);
  if (node.parent === undefined) return removeXattrAt(node.fd, noName, name);
  return removeXattrAt(parentFd(fds, node), node.name, name);
}
