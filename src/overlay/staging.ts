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
import { emptyStat, S_IFDIR, S_IFLNK, S_IFMT, S_IFREG, statFd } from "../sys/stat.js";
import { writeXattrAt, writeXattrFd } from "../sys/xattr.js";
import { withoutSuidgid } from "./backing-metadata.js";
import { copyData } from "./copy-data.js";
import { fault } from "./fault.js";
import { isRefusedXattr, mayBeKept, removeKept, writeKept } from "./kept-xattrs.js";
import type { Lower } from "./lower.js";
import { markMetadataOnly } from "./metacopy.js";
import { writeOrigin } from "./origin.js";
import { isRefusal, type Override, type Overrides, writeOverride } from "./override.js";
import { accessAcl, beginOverride, capabilities, isBeyondUs } from "./owners.js";
import { noteBase } from "./quota/charge-xattrs.js";
import { stageStandIn } from "./stand-ins.js";
import type { WritableState } from "./state.js";
import { claimTree, removeTemporary, temporaryName } from "./upper.js";
import { storedName } from "./xattr-names.js";

export interface Staged {
  readonly name: Buffer;
  /** A descriptor of the staged object; O_PATH for what is not a file. */
  readonly fd: number;
  /** It is to be a regular file. */
  readonly file: boolean;
  /** What it will show instead of what its filesystem says. */
  override: Override | undefined;
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
    return { name, fd, file: true, override: undefined };
  }
  const target = type === S_IFLNK ? tree.symlinkTarget(row) : undefined;
  const made =
    fault("copy-up.stage") ||
    (target !== undefined
      ? symlinkAt(target, upper.temporaryFd, name)
      : mknodAt(upper.temporaryFd, name, type | 0o600, tree.rdev(row)));
  const owned = made < 0 ? made : chownAt(upper.temporaryFd, name, m.lower.uid(row), m.lower.gid(row));
  if (isRefusal(owned) && (made < 0 || m.lower.squash === undefined)) {
    if (made === 0) removeTemporary(upper, name);
    return stagedStandIn(m, row, target);
  }
  check(made, "create in the work directory");
  const fd = openAt(upper.temporaryFd, name, O_PATH | O_NOFOLLOW);
  if (fd < 0) removeTemporary(upper, name);
  return { name, fd: check(fd, "open in the work directory"), file: false, override: undefined };
}

/** What cannot be had with its owner and kind is kept as a file that stands for it. Throws FsError. */
function stagedStandIn(m: WritableState, row: number, target: Uint8Array | undefined): Staged {
  const mode = target === undefined ? m.lower.tree.mode(row) : S_IFLNK | 0o777;
  const override = { ...ownerOf(m.lower, row), mode, rdev: m.lower.tree.rdev(row) };
  const staged = stageStandIn(m, override, target);
  if (typeof staged === "number") throw new FsError(-staged, "create in the work directory");
  return { ...staged, file: false, override };
}

function ownerOf(lower: Lower, row: number): { uid: number; gid: number } {
  return { uid: lower.uid(row), gid: lower.gid(row) };
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
export function cutStaged(m: WritableState, row: number, staged: Staged, { kill }: Cut): void {
  const { fd, override } = staged;
  const stat = emptyStat();
  check(statFd(fd, stat), "stat in the work directory");
  const { mode } = override ?? stat;
  const kept = withoutSuidgid(mode);
  if (m.upper.overrides.all) removeKept(fd, capabilities);
  if (kill && kept !== mode) {
    staged.override = override === undefined ? undefined : { ...override, mode: kept };
    const changed =
      staged.override === undefined
        ? chmodFd(fd, kept & 0o7777)
        : writeOverride(m.upper.overrides, fd, staged.override);
    check(changed, "chmod of a copy");
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
  const at = {
    fd: staged.fd,
    atFd: m.upper.temporaryFd,
    name: staged.name,
    standsIn: staged.override !== undefined,
  };
  staged.override = copyMetadata(m.lower, m.log, m.upper.overrides, row, at) ?? staged.override;
  if (staged.file) noteBase(m, row, staged.fd);
}

export function discardStaged(m: WritableState, staged: Staged): void {
  closeFd(staged.fd);
  removeTemporary(m.upper, staged.name);
}

/** Throws EOVERFLOW, as the kernel's overlayfs does, where a copy of the row would lose an id of the image. */
export function checkIds(lower: Lower, row: number): void {
  const problem = lower.copyProblem(row);
  if (problem !== undefined) throw new FsError(Errno.EOVERFLOW, problem);
}

/** An object on its way to be a copy. */
export interface Target {
  /** A descriptor of it; O_PATH for what is neither file nor directory. */
  readonly fd: number;
  /** It is `name` in `atFd`, or `atFd` itself when the name is empty. */
  readonly atFd: number;
  readonly name: Uint8Array;
  /** It is a file that stands for something else, and has its override. */
  readonly standsIn: boolean;
}

/**
 * Owner, mode, xattrs and times of a row, as the mount shows them, onto an object. The order matters: chown clears bits
 * and xattrs. The override that it had to be given, or undefined. Throws FsError.
 */
export function copyMetadata(
  lower: Lower,
  log: Logger,
  overrides: Overrides,
  row: number,
  target: Target,
): Override | undefined {
  checkIds(lower, row);
  const override = target.standsIn ? undefined : copyOwner(lower, overrides, row, target);
  copyXattrs(lower, log, overrides, row, target, override !== undefined);
  const seconds = lower.tree.mtimeSec(row);
  const nanoseconds = lower.tree.mtimeNsec(row);
  const { atFd, name } = target;
  const timed = fault("copy-up.times") || utimesAt(atFd, name, seconds, nanoseconds, seconds, nanoseconds);
  check(timed, "times of a copy");
  return override;
}

function copyOwner(
  lower: Lower,
  overrides: Overrides,
  row: number,
  { fd, atFd, name }: Target,
): Override | undefined {
  const mode = lower.tree.mode(row);
  const owner = ownerOf(lower, row);
  const owned = fault("copy-up.owner") || chownAt(atFd, name, owner.uid, owner.gid);
  const refused = isRefusal(owned);
  if (!refused) check(owned, "chown of a copy");
  if ((refused && lower.squash === undefined) || isBeyondUs(mode)) {
    const override = { ...owner, mode, rdev: 0 };
    const kept = beginOverride(overrides, fd, override);
    // Where an owner cannot be kept beside the object either, it is the right to give it that is missing.
    check(kept === -Errno.EOPNOTSUPP && refused ? owned : kept, "owner of a copy");
    return override;
  }
  // Setuid and setgid were the owner's to grant.
  const permissions = mode & (refused ? 0o1777 : 0o7777);
  const moded =
    fault("copy-up.mode") ||
    (isOpenFile(mode)
      ? chmodFd(fd, permissions)
      : (mode & S_IFMT) === S_IFLNK
        ? 0
        : chmodAt(atFd, name, permissions));
  check(moded, "chmod of a copy");
  return undefined;
}

function isOpenFile(mode: number): boolean {
  const type = mode & S_IFMT;
  return type === S_IFREG || type === S_IFDIR;
}

function copyXattrs(
  lower: Lower,
  log: Logger,
  overrides: Overrides,
  row: number,
  { fd, atFd, name, standsIn }: Target,
  overridden: boolean,
): void {
  const byFd = standsIn || isOpenFile(lower.tree.mode(row));
  for (const xattr of lower.xattrs(row) ?? []) {
    const stored = storedName(xattr.name);
    const keeps = byFd && mayBeKept(xattr.name);
    const keep = (): number => writeKept(overrides, fd, xattr.name, xattr.value);
    let result = -Errno.EOPNOTSUPP as number;
    if (overridden && xattr.name === accessAcl) result = keep();
    else if (stored !== undefined) {
      const key = bytesOf(stored);
      result =
        fault("copy-up.xattr") ||
        (byFd ? writeXattrFd(fd, key, xattr.value) : writeXattrAt(atFd, name, key, xattr.value));
      if (isRefusedXattr(result) && keeps) result = keep();
    }
    if (result === -Errno.EOPNOTSUPP || result === -Errno.EPERM) {
      log.debug("xattr not kept by the upper directory", { row, xattr: xattr.name });
    } else check(result, `xattr ${xattr.name} of a copy`);
  }
}
