// What df says: the upper's filesystem, or for a read-only mount the image's size, all of it used.
import type { Request, StatfsReply, Status } from "../fuse/operations.js";
import { BLOCK } from "../quota/blocks.js";
import { type Statfs, statfsFd } from "../sys/stat.js";
import type { Quota } from "./quota/quota.js";
import { NAME_MAX } from "./resolve.js";
import type { OverlayState } from "./state.js";

/** FUSE STATFS. */
export function statfs(m: OverlayState, _q: Request, out: StatfsReply): Status {
  out.namelen = NAME_MAX;
  if (m.upper === undefined) {
    out.bsize = BLOCK;
    out.frsize = BLOCK;
    out.blocks = Math.ceil(m.lower.totalSize() / BLOCK);
    out.bfree = 0;
    out.bavail = 0;
    out.files = m.lower.tree.inodeCount;
    out.ffree = 0;
    return 0;
  }
  const counts: Statfs = {
    type: 0,
    bsize: 0,
    blocks: 0,
    bfree: 0,
    bavail: 0,
    files: 0,
    ffree: 0,
    namelen: 0,
    frsize: 0,
  };
  const result = statfsFd(m.upper.rootFd, counts);
  if (result < 0) return result;
  out.bsize = counts.bsize;
  out.frsize = counts.frsize;
  out.blocks = counts.blocks;
  out.bfree = counts.bfree;
  out.bavail = counts.bavail;
  out.files = counts.files;
  out.ffree = counts.ffree;
  return m.quota === undefined ? 0 : limitStatfs(m.quota, counts, out);
}

/** What a limit leaves of what the upper's filesystem has: use stays what it is, and together that is at most the limit. */
function limitStatfs({ ledger }: Quota, disk: Statfs, out: StatfsReply): Status {
  const report = ledger.report();
  if (report === undefined) return 0;
  if (report.byteLimit !== Infinity) {
    const left = Math.floor(Math.min(report.bytesLeft, disk.bavail * disk.frsize) / BLOCK);
    out.bsize = BLOCK;
    out.frsize = BLOCK;
    out.blocks = Math.ceil(report.bytes / BLOCK) + left;
    out.bfree = left;
    out.bavail = left;
  }
  if (report.inodeLimit !== Infinity) {
    // Filesystems that make inodes as they need them say that they have none.
    const left = disk.files === 0 ? report.inodesLeft : Math.min(report.inodesLeft, disk.ffree);
    out.files = report.inodes + left;
    out.ffree = left;
  }
  return 0;
}
