// rename(2) with RENAME_WHITEOUT: what an overlay with its upper directory in this mount asks for. A device 0:0 that shows
// takes the old name, in the same step for whoever looks.
// On disk that takes two renames: the first leaves a whiteout of ours, the second puts the device in its place. Between
// them the directory says, in user.imgfs.leaves, which of its whiteouts is to show as a device, and whose.
// Invariant: the mark is there before the first rename, when its name is no whiteout and it means nothing. Who finds one
// does what is left to do, so a crash shows the old name or the device.
import { bytesOf } from "../base/bytes.js";
import { Errno, FsError } from "../base/errno.js";
import type { Request } from "../fuse/operations.js";
import { closeFd, renameAt } from "../sys/files.js";
import { check } from "../sys/libc.js";
import { emptyStat, S_IFCHR, type Stat, statAt, statFd } from "../sys/stat.js";
import { readXattrFd, removeXattrFd, writeXattrFd } from "../sys/xattr.js";
import { fault } from "./fault.js";
import type { Node } from "./inode-table.js";
import { aclFrom, groupFor, keepAcl } from "./new-owner.js";
import { type StagedStandIn, stageStandIn } from "./stand-ins.js";
import type { WritableState } from "./state.js";
import { removeTemporary } from "./upper.js";
import { isWhiteout, leavesMark } from "./whiteout.js";

const leavesKey = Buffer.from(leavesMark);

/** A device 0:0 that is about to take a name. */
export interface Leaving extends StagedStandIn {
  readonly directory: Node;
  readonly oldName: Buffer;
}

/** Prepares a device of the caller's for the name that a rename will leave. Throws FsError. */
export function prepareLeaving(m: WritableState, q: Request, directory: Node, oldName: Buffer): Leaving {
  const owner = { uid: q.uid, gid: groupFor(m, q, directory) };
  const staged = stageDevice(m, m.fds.of(directory), owner.uid, owner.gid);
  const text = Buffer.concat([Buffer.from(`${owner.uid}:${owner.gid}:`), oldName]);
  const marked = fault("leave.mark") || writeXattrFd(m.fds.of(directory), leavesKey, text);
  if (marked < 0) {
    discard(m, staged);
    throw new FsError(-marked, "mark of a directory");
  }
  return { ...staged, directory, oldName };
}

/** A device as one made in the directory open at `directoryFd` is, which may hand an ACL on. Throws FsError. */
function stageDevice(m: WritableState, directoryFd: number, uid: number, gid: number): StagedStandIn {
  const { mode, acl } = aclFrom(directoryFd, 0) ?? { mode: 0, acl: undefined };
  const staged = stageStandIn(m, { uid, gid, mode: S_IFCHR | mode, rdev: 0 });
  if (typeof staged === "number") throw new FsError(-staged, "creation in the work directory");
  const kept = acl === undefined ? 0 : keepAcl(m, staged.fd, acl);
  if (kept < 0) {
    discard(m, staged);
    throw new FsError(-kept, "ACL of a new object");
  }
  return staged;
}

function discard(m: WritableState, staged: StagedStandIn): void {
  closeFd(staged.fd);
  removeTemporary(m.upper, staged.name);
}

/** After a rename that did not happen. */
export function cancelLeaving(m: WritableState, leaving: Leaving): void {
  removeXattrFd(m.fds.of(leaving.directory), leavesKey);
  discard(m, leaving);
}

/** After the rename has left a whiteout: the device takes its place. What it is, on disk. Throws FsError. */
export function finishLeaving(m: WritableState, leaving: Leaving): Stat {
  const stat = emptyStat();
  const directoryFd = m.fds.of(leaving.directory);
  const renamed =
    fault("leave.device") || renameAt(m.upper.temporaryFd, leaving.name, directoryFd, leaving.oldName);
  check(renamed, "rename over a whiteout");
  check(statFd(leaving.fd, stat), "stat of a new object");
  closeFd(leaving.fd);
  if (fault("leave.unmark") === 0) removeXattrFd(directoryFd, leavesKey);
  return stat;
}

/** The whiteout that is to become a device in the directory open at `fd`, and whose that is; undefined for none. */
export function leavingIn(fd: number): { uid: number; gid: number; name: Buffer } | undefined {
  const value = readXattrFd(fd, leavesKey);
  const match =
    typeof value === "number" ? null : /^(\d{1,10}):(\d{1,10}):(.+)$/s.exec(value.toString("latin1"));
  return match === null
    ? undefined
    : { uid: Number(match[1]), gid: Number(match[2]), name: bytesOf(match[3] as never) };
}

/** Does what a crash has left to do in the directory open at `fd`, which has the mark. */
export function completeLeaving(m: WritableState, fd: number): void {
  const leaving = leavingIn(fd);
  const stat = emptyStat();
  if (
    leaving !== undefined &&
    statAt(fd, leaving.name, stat) === 0 &&
    isWhiteout(fd, leaving.name, stat, true)
  ) {
    const { uid, gid, name } = leaving;
    const staged = stageDevice(m, fd, uid, gid);
    const renamed = fault("leave.device") || renameAt(m.upper.temporaryFd, staged.name, fd, name);
    closeFd(staged.fd);
    if (renamed < 0) {
      removeTemporary(m.upper, staged.name);
      throw new FsError(-renamed, "rename over a whiteout");
    }
  }
  const removed = fault("leave.unmark") || removeXattrFd(fd, leavesKey);
  if (removed < 0 && removed !== -Errno.ENODATA) throw new FsError(-removed, "mark of a directory");
}
