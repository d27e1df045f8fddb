// A copy of metadata alone gets the data it has below, before they are changed for the first time (metacopy.ts).
import type { Request, Status } from "../fuse/operations.js";
import { chmodFd, fsyncFd, truncateFd, utimesFd } from "../sys/files.js";
import { check } from "../sys/libc.js";
import { emptyStat, type Stat, statFd } from "../sys/stat.js";
import { readXattrFd, writeXattrFd } from "../sys/xattr.js";
import { copyInBackground } from "./background-copy.js";
import { copyData } from "./copy-data.js";
import type { Node } from "./inode-table.js";
import { damageStatus, prepareCopy } from "./lower-data.js";
import { dropMarks } from "./metacopy.js";
import { writeOrigin } from "./origin.js";
import type { WritableState } from "./state.js";

const capabilities = Buffer.from("security.capability");

/**
 * Brings the first `limit` bytes of a metadata-only copy into it, which is cut to them. 0, a negative errno, or SUSPENDED:
 * then the request will come again.
 */
export function completeData(m: WritableState, q: Request, node: Node, limit: number): Status {
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
  const finish = (status: Status): Status => {
    const result = status < 0 ? status : commitData(m, node, fd, size, before, capability);
    if (result < 0) undo(fd, before, capability);
    return result;
  };
  let copied: Status;
  try {
    const background = copyInBackground(m, q, node.id, node.dataRow, fd, size, (status) => {
      const result = finish(status);
      if (result < 0) m.failedCopies.set(node.id, result);
      node.opens--;
      m.inodes.settle(node);
    });
    if (background !== undefined) {
      // The descriptor is the helper's until it is done.
      node.opens++;
      return background;
    }
    copied = copyData(m.lower.tree, node.dataRow, fd, size, m.buffer);
  } catch (cause) {
    copied = damageStatus(m, cause);
  }
  return finish(copied);
}

/** The bytes are there; makes them the file's own. 0 or a negative errno. */
function commitData(
  m: WritableState,
  node: Node,
  fd: number,
  size: number,
  before: Stat,
  capability: Buffer | number,
): Status {
  const steps: Array<() => number> = [
    () => (size < before.size ? truncateFd(fd, size) : 0),
    () => restore(fd, before, capability),
    () => (size === 0 || m.upper.volatile ? 0 : fsyncFd(fd)),
    () => dropMarks(fd),
    () => (node.row < 0 ? 0 : writeOrigin(m, fd, node.row, false)),
  ];
  for (const step of steps) {
    const result = step();
    if (result < 0) return result;
  }
  node.dataRow = -1;
  return 0;
}

/** Gives back what a copy that failed has taken. */
function undo(fd: number, before: Stat, capability: Buffer | number): void {
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
