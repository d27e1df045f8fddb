// How the upper's filesystem tells a file's blocks: found by a file in WORK/tmp, because no call says it.
import { Errno, errnoName } from "../../base/errno.js";
import { BLOCK } from "../../quota/blocks.js";
import {
  closeFd,
  O_CREAT,
  O_EXCL,
  O_NOFOLLOW,
  O_RDWR,
  openAt,
  pwrite,
  SEEK_DATA,
  SEEK_HOLE,
  seekFd,
  truncateFd,
  unlinkAt,
} from "../../sys/files.js";
import type { Region } from "../../sys/memory.js";
import { fault } from "../fault.js";
import { temporaryName, type Upper } from "../upper.js";
import type { Quota } from "./quota.js";

/** Larger than any block there is, and than the largest page. */
const PROBE_SIZE = 8 << 20;

/** Throws an Error of one line. */
export function probeBlocks(upper: Upper, buffer: Region): Pick<Quota, "granule" | "holes" | "fillsEnd"> {
  const name = temporaryName(upper);
  const flags = O_CREAT | O_EXCL | O_RDWR | O_NOFOLLOW;
  const fd = fault("setup.probe-blocks") || openAt(upper.temporaryFd, name, flags, 0o600);
  if (fd < 0) throw failure(upper, fd);
  unlinkAt(upper.temporaryFd, name);
  try {
    let result = truncateFd(fd, PROBE_SIZE);
    if (result === 0) result = pwrite(fd, buffer.address, 1, PROBE_SIZE / 2);
    if (result < 0) throw failure(upper, result);
    const data = seekFd(fd, 0, SEEK_DATA);
    const hole = data < 0 ? data : seekFd(fd, data, SEEK_HOLE);
    if (hole < 0 && hole !== -Errno.EINVAL && hole !== -Errno.EOPNOTSUPP) throw failure(upper, hole);
    if (hole < 0 || hole - data === PROBE_SIZE) return { granule: 1, holes: false, fillsEnd: false };
    return { granule: Math.max(1, Math.ceil((hole - data) / BLOCK)), holes: true, fillsEnd: fillsEnd(fd) };
  } finally {
    closeFd(fd);
  }
}

/** Whether a file that grows past a hole in its last block gets zeros there in place of the hole, as on btrfs. */
function fillsEnd(fd: number): boolean {
  const grown = truncateFd(fd, 0) || truncateFd(fd, BLOCK + 1) || truncateFd(fd, 3 * BLOCK);
  return grown === 0 && seekFd(fd, 0, SEEK_DATA) >= 0;
}

function failure({ path }: Upper, result: number): Error {
  return new Error(
    `upper directory ${path}: cannot see how its filesystem counts blocks: ${errnoName(-result)}`,
  );
}
