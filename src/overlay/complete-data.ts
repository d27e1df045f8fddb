// A copy of metadata alone gets the data it has below, before they are changed for the first time (metacopy.ts).
import type { Request, Status } from "../fuse/operations.js";
import { chmodFd, fsyncFd, truncateFd, utimesFd } from "../sys/files.js";
import { check } from "../sys/libc.js";
import { emptyStat, type Stat, statFd } from "../sys/stat.js";
import { readXattrFd, writeXattrFd } from "../sys/xattr.js";
import { copyInBackground } from "./background-copy.js";
import { withoutSuidgid } from "./backing-metadata.js";
import { copyData } from "./copy-data.js";
import { fault } from "./fault.js";
import type { Node } from "./inode-table.js";
import { damageStatus, prepareCopy } from "./lower-data.js";
import { dropMarks, markAgain } from "./metacopy.js";
import { dropOrigin, writeOrigin } from "./origin.js";
import { changeMode, dropKeptCapabilities, shownMode } from "./owners.js";
import { chargeData, creditData } from "./quota/charge-copy.js";
import { disown } from "./quota/quota.js";
import type { WritableState } from "./state.js";

/** What a file of the upper was longer than has been cut, in one step with what else truncate(2) does. */
export const CUT = 1;

const capabilities = Buffer.from("security.capability");

/**
 * Brings the first `limit` bytes of a metadata-only copy into it, which is cut to them. 0, CUT when it was longer (with
 * `kill` setuid and setgid are off then), a negative errno, or SUSPENDED: then the request will come again.
 */
export function completeData(m: WritableState, q: Request, node: Node, limit: number, kill: boolean): Status {
  const failed = m.failedCopies.get(node.id);
  if (failed !== undefined) {
    m.failedCopies.delete(node.id);
    return failed;
  }
  const prepared = limit > 0 ? prepareCopy(m, q, node.dataRow) : 0;
  if (prepared < 0) return prepared;
  const fd = m.fds.of(node);
  const before = emptyStat();
  check(statFd(fd, before), "stat in the upper directory");
  const capability = readXattrFd(fd, capabilities);
  const size = Math.min(limit, before.size);
  const charged = chargeData(m, q, node, size);
  if (charged < 0) return charged;
  const finish = (status: Status, synced: boolean): Status => {
    const result = status < 0 ? status : commitData(m, node, fd, size, before, capability, kill, synced);
    if (result < 0) {
      undo(m, node, fd, before, capability);
      creditData(m, node);
    }
    return result;
  };
  let copied: Status;
  try {
    const background = copyInBackground(m, q, node.id, node.dataRow, fd, size, "complete.data", (status) => {
      const result = finish(status, true);
      if (result < 0) m.failedCopies.set(node.id, result);
      node.opens--;
      m.inodes.settle(node);
    });
    if (background !== undefined) {
      // The descriptor is the helper's until it is done.
      node.opens++;
      return background;
    }
    copied = fault("complete.data") || copyData(m.lower.tree, node.dataRow, fd, size, m.buffer);
  } catch (cause) {
    copied = damageStatus(m, cause);
  }
  return finish(copied, false);
}

/** The bytes are there; makes them the file's own. 0 or a negative errno. */
function commitData(
  m: WritableState,
  node: Node,
  fd: number,
  size: number,
  before: Stat,
  capability: Buffer | number,
  kill: boolean,
  synced: boolean,
): Status {
  const cut = size < before.size;
  const mode = shownMode(node, before);
  const kept = withoutSuidgid(mode);
  const steps: Array<() => number> = [
    () => (cut ? dropKeptCapabilities(m, node) : 0),
    () => (cut && kill && kept !== mode ? changeMode(m, node, kept & 0o7777) : 0),
    // The times of a cut file are those of the cut, and so from this step on nothing is left to be done that shows.
    () =>
      cut
        ? fault("complete.size") || truncateFd(fd, size)
        : fault("complete.restore") || restore(fd, before, capability),
    () => (size === 0 || m.upper.volatile ? 0 : fault("complete.sync") || (synced ? 0 : fsyncFd(fd))),
    () => fault("complete.marks") || dropMarks(fd),
    () => fault("complete.origin") || (node.row < 0 ? dropOrigin(fd) : writeOrigin(m, fd, node.row, false)),
  ];
  for (const step of steps) {
    const result = step();
    if (result < 0) return result;
  }
  node.dataRow = -1;
  if (node.row < 0) disown(m, node);
  if (cut && kept !== mode) m.services?.invalidateInode(node.id, -1, 0);
  return cut ? CUT : 0;
}

/** Gives back what a copy that failed has taken. The data stay where it cannot be marked again that there are none. */
function undo(m: WritableState, node: Node, fd: number, before: Stat, capability: Buffer | number): void {
  if (markAgain(m, node, fd) < 0) return;
  truncateFd(fd, 0);
  truncateFd(fd, before.size);
  restore(fd, before, capability);
}

/** Puts back what writing has taken off: bits, capabilities, times. 0 or a negative errno. */
function restore(fd: number, before: Stat, capability: Buffer | number): number {
  const mode = chmodFd(fd, before.mode & 0o7777);
  if (mode < 0) return mode;
  const set = typeof capability === "number" ? 0 : writeXattrFd(fd, capabilities, capability);
  return set < 0 ? set : utimesFd(fd, before.atimeSec, before.atimeNsec, before.mtimeSec, before.mtimeNsec);
}
