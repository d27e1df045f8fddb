// What fallocate(2) has reserved for a file: no call tells such blocks from holes, so the file says it itself, in
// user.imgfs.allocated: [start, end) in blocks as pairs of u64, little endian, ascending, at most 64 of them. Blocks that
// have been written since may still be among them.
// Invariant: what is reserved is noted before, and what is given back after, so a crash leaves a file that says too much.
import { Errno } from "../../base/errno.js";
import { joined, type Ranges } from "../../quota/ranges.js";
import { readXattrFd, removeXattrFd, writeXattrFd } from "../../sys/xattr.js";
import { fault } from "../fault.js";

export const allocatedXattr: Buffer = Buffer.from("user.imgfs.allocated");
const MOST_RANGES = 64;
const PAIR = 16;

/** As many ranges as a file can note: where there are more, what lies between the nearest is taken in. */
export function notable(ranges: Ranges): Ranges {
  return joined(ranges, MOST_RANGES);
}

/** The ranges in a value, or undefined where it cannot be one. */
export function parseAllocated(value: Buffer): Ranges | undefined {
  if (value.length % PAIR !== 0 || value.length > MOST_RANGES * PAIR) return undefined;
  const ranges: number[] = [];
  for (let at = 0; at < value.length; at += 8) {
    const block = Number(value.readBigUInt64LE(at));
    if (block > Number.MAX_SAFE_INTEGER || (at > 0 && block <= (ranges.at(-1) as number))) return undefined;
    ranges.push(block);
  }
  return ranges;
}

/** What the file open at `fd` has noted, none where it is damaged; or a negative errno. */
export function readAllocated(fd: number): Ranges | number {
  const value = readXattrFd(fd, allocatedXattr);
  if (value === -Errno.ENODATA || value === -Errno.EOPNOTSUPP) return [];
  return typeof value === "number" ? value : (parseAllocated(value) ?? []);
}

/** Notes the ranges, of which there must not be too many (see {@link notable}). 0 or a negative errno. */
export function writeAllocated(fd: number, ranges: Ranges): number {
  const failed = fault("allocated.note");
  if (failed < 0) return failed;
  if (ranges.length === 0) {
    const removed = removeXattrFd(fd, allocatedXattr);
    return removed === -Errno.ENODATA ? 0 : removed;
  }
  const value = Buffer.alloc(ranges.length * 8);
  ranges.forEach((block, i) => {
    value.writeBigUInt64LE(BigInt(block), i * 8);
  });
  return writeXattrFd(fd, allocatedXattr, value);
}
