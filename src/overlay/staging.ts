// Copies in the making, in WORK/tmp: an object with everything the image says of it, which nobody can see yet.
// Invariants: the data is on disk before a name can lead to it (unless the mount is volatile); what fails is taken away.
import { bytesOf } from "../base/bytes.js";
import { Errno, FsError } from "../base/errno.js";
import type { Logger } from "../base/log.js";
import {
  chmodAt,
  chmodFd,
  chownAt,
  closeFd,
  fsyncFd,
  mknodAt,
  O_CREAT,
  O_EXCL,
  O_NOFOLLOW,
  O_PATH,
  O_RDWR,
  openAt,
  symlinkAt,
  truncateFd,
  utimesAt,
} from "../sys/files.js";
import { check } from "../sys/libc.js";
import { changesOwners, overridesModes } from "../sys/process.js";
import { emptyStat, S_IFDIR, S_IFLNK, S_IFMT, S_IFREG, statFd } from "../sys/stat.js";
import { writeXattrAt, writeXattrFd } from "../sys/xattr.js";
import { withoutSuidgid } from "./backing-metadata.js";
import { copyData } from "./copy-data.js";
import { fault } from "./fault.js";
import { chownResult } from "./id-map.js";
import type { Lower } from "./lower.js";
import { markMetadataOnly } from "./metacopy.js";
import { writeOrigin } from "./origin.js";
import type { WritableState } from "./state.js";
import { claimTree, removeTemporary, temporaryName } from "./upper.js";
import { storedName } from "./xattr-names.js";

export interface Staged {
  readonly name: Buffer;
  /** A descriptor of the staged object; O_PATH for what is not a file. */
  readonly fd: number;
  readonly file: boolean;
}

/** Makes an empty object of a row's type. Throws FsError. */
export function createStaged(m: WritableState, row: number): Staged {
  const { upper } = m;
  const { tree } = m.lower;
  const type = tree.mode(row) & S_IFMT;
  const name = temporaryName(upper);
  if (type === S_IFREG) {
    const flags = O_CREAT | O_EXCL | O_RDWR;
    const created = fault("copy-up.stage") || openAt(upper.temporaryFd, name, flags, 0o600);
    const fd = check(created, "create in the work directory");
    return { name, fd, file: true };
  }
  const made =
    fault("copy-up.stage") ||
    (type === S_IFLNK
      ? symlinkAt(tree.symlinkTarget(row), upper.temporaryFd, name)
      : mknodAt(upper.temporaryFd, name, type | 0o600, tree.rdev(row)));
  check(made, "create in the work directory");
  const fd = openAt(upper.temporaryFd, name, O_PATH | O_NOFOLLOW);
  if (fd < 0) removeTemporary(upper, name);
  return { name, fd: check(fd, "open in the work directory"), file: false };
}

/** Copies into it what the row has: of a file the first `limit` bytes. Throws FsError. */
export function fillStaged(m: WritableState, row: number, staged: Staged, limit: number, cut?: Cut): void {
  const size = staged.file ? Math.min(limit, m.lower.tree.size(row)) : 0;
  if (size > 0) {
    const copied = fault("copy-up.data") || copyData(m.lower.tree, row, staged.fd, size, m.buffer);
    check(copied, "copy of a file");
  }
  finishStaged(m, row, staged);
  if (cut !== undefined) cutStaged(m, row, staged, cut);
  // One sync, of what has bytes, as the kernel's overlayfs does. It cannot be left to the filesystem's ordering: with
  // delayed allocation a rename may be on disk before the bytes are (ext4 sees to that only where a rename replaces
  // something, xfs never, and ext4 without a journal orders nothing). Owner, mode and times came before, so the sync
  // carries them too. What has no bytes is whole with its inode, which no name on disk can be without where the
  // filesystem has a journal. The rename itself is not synced: a crash may lose the copy-up, and with it the change.
  if (size > 0 && !m.upper.volatile) check(fault("copy-up.sync") || fsyncFd(staged.fd), "fsync of a copy");
}

/** A copy that is shorter than what is below: one step with truncate(2), which makes it. */
export interface Cut {
  /** Takes setuid and setgid off. */
  readonly kill: boolean;
}

/** Does to a staged file, which has the size already, what else truncate(2) does. Throws FsError. */
export function cutStaged(m: WritableState, row: number, { fd }: Staged, { kill }: Cut): void {
  const stat = emptyStat();
  check(statFd(fd, stat), "stat in the work directory");
  if (kill && withoutSuidgid(stat.mode) !== stat.mode) {
    check(chmodFd(fd, withoutSuidgid(stat.mode) & 0o7777), "chmod of a copy");
    m.services?.invalidateInode(row + 1, -1, 0);
  }
  check(fault("copy-up.cut") || truncateFd(fd, stat.size), "truncation of a copy");
}

/** Makes it a copy of the row's metadata, whose data stay where they are. Throws FsError. */
export function fillMetadata(m: WritableState, row: number, staged: Staged): void {
  check(markMetadataOnly(m.upper, staged.fd, m.lower.tree.size(row)), "mark of a metadata-only copy");
  finishStaged(m, row, staged, true);
}

/** Origin, owner, mode, xattrs and times. Throws FsError. */
export function finishStaged(m: WritableState, row: number, staged: Staged, metadataOnly = false): void {
  // What cannot carry an origin is known by its row in the index alone, and rows are those of one image.
  if (staged.file) check(writeOrigin(m, staged.fd, row, metadataOnly), "origin of a file");
  else check(claimTree(m.upper, m.lower.tree.treeRoot), "mark of the upper directory");
  copyMetadata(m.lower, m.log, row, staged.fd, m.upper.temporaryFd, staged.name);
}

export function discardStaged(m: WritableState, staged: Staged): void {
  closeFd(staged.fd);
  removeTemporary(m.upper, staged.name);
}

/** Throws EOVERFLOW, as the kernel's overlayfs does, where a copy of the row would lose an id of the image. */
export function checkIds(lower: Lower, row: number): void {
  const problem = lower.idProblem(row);
  if (problem !== undefined) throw new FsError(Errno.EOVERFLOW, problem);
}

/**
 * The permissions of a copy. Without the right to give it its owner it stays the mounting user's, and then, as `cp -p`
 * has it, without setuid and setgid: those were the owner's to grant. A process that modes bind keeps its directories
 * usable for itself, or nothing below could be copied up any more.
 */
function copiedMode(mode: number, owned: boolean): number {
  const permissions = mode & (owned ? 0o7777 : 0o1777);
  return overridesModes || (mode & S_IFMT) !== S_IFDIR ? permissions : permissions | 0o700;
}

/**
 * Owner, mode, xattrs and times of a row, as the mount shows them, onto the object open at `fd`, which is `name` in
 * `atFd` (or `atFd` itself when the name is empty). The order matters: chown clears bits and xattrs. Throws FsError.
 */
export function copyMetadata(
  lower: Lower,
  log: Logger,
  row: number,
  fd: number,
  atFd: number,
  name: Uint8Array,
): void {
  const { tree } = lower;
  checkIds(lower, row);
  const mode = tree.mode(row);
  const type = mode & S_IFMT;
  const openFile = type === S_IFREG || type === S_IFDIR;
  const owned = fault("copy-up.owner") || chownAt(atFd, name, lower.uid(row), lower.gid(row));
  if (owned !== -Errno.EPERM || changesOwners) check(chownResult(lower.squash, owned), "chown of a copy");
  const permissions = copiedMode(mode, owned === 0);
  const moded =
    fault("copy-up.mode") ||
    (openFile ? chmodFd(fd, permissions) : type === S_IFLNK ? 0 : chmodAt(atFd, name, permissions));
  check(moded, "chmod of a copy");
  for (const xattr of lower.xattrs(row) ?? []) {
    const stored = storedName(xattr.name);
    if (stored === undefined) {
      log.debug("xattr whose name is too long for the upper directory", { row, xattr: xattr.name });
      continue;
    }
    const key = bytesOf(stored);
    const result =
      fault("copy-up.xattr") ||
      (openFile ? writeXattrFd(fd, key, xattr.value) : writeXattrAt(atFd, name, key, xattr.value));
    if (result === -Errno.EOPNOTSUPP || result === -Errno.EPERM) {
      log.debug("xattr not kept by the upper directory", { row, xattr: xattr.name });
    } else check(result, `xattr ${xattr.name} of a copy`);
  }
  const seconds = tree.mtimeSec(row);
  const nanoseconds = tree.mtimeNsec(row);
  const timed = fault("copy-up.times") || utimesAt(atFd, name, seconds, nanoseconds, seconds, nanoseconds);
  check(timed, "times of a copy");
}
