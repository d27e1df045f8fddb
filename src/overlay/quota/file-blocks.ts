// Blocks of an open file, as its filesystem tells them: those that data extents touch (SEEK_DATA, SEEK_HOLE), and those
// that are noted as reserved. st_blocks is no help: it counts what each filesystem likes.
import { Errno } from "../../base/errno.js";
import { BLOCK } from "../../quota/blocks.js";
import { type Ranges, within } from "../../quota/ranges.js";
import { SEEK_DATA, SEEK_HOLE, seekFd } from "../../sys/files.js";

/** The blocks that a file is charged for. */
export interface FileBlocks {
  readonly count: number;
  /** They are its first `count` blocks. */
  readonly dense: boolean;
}

/** Counts the charged blocks of the file open at `fd`, or gives a negative errno. */
export function measureBlocks(fd: number, allocated: Ranges): FileBlocks | number {
  let count = 0;
  let last = 0;
  const result = eachCharged(fd, 0, Infinity, allocated, (start, end) => {
    count += end - start;
    last = end;
    return true;
  });
  return result < 0 ? result : { count, dense: count === last };
}

/**
 * Calls `visit` with the charged blocks in [start, end), range by range, ascending, none twice, until it says false. 0 or a
 * negative errno.
 */
export function eachCharged(
  fd: number,
  start: number,
  end: number,
  allocated: Ranges,
  visit: (start: number, end: number) => boolean,
): number {
  const reserved = allocated.length === 0 ? allocated : within(allocated, start, end);
  let next = 0;
  let at = start;
  let [dataStart, dataEnd] = [start, start];
  while (at < end) {
    if (dataEnd <= at && dataStart !== Infinity) {
      const data = nextData(fd, at, end);
      if (typeof data === "number") return data;
      [dataStart, dataEnd] = data ?? [Infinity, Infinity];
    }
    while (next < reserved.length && (reserved[next + 1] as number) <= at) next += 2;
    const reservedStart = next < reserved.length ? (reserved[next] as number) : Infinity;
    const from = Math.max(at, Math.min(dataStart, reservedStart));
    if (from >= end) return 0;
    const inData = from >= dataStart ? dataEnd : 0;
    const inReserved = from >= reservedStart ? (reserved[next + 1] as number) : 0;
    const to = Math.min(end, Math.max(inData, inReserved));
    if (!visit(from, to)) return 0;
    at = to;
  }
  return 0;
}

/** The blocks of the next data extent that reaches into block `at` or lies after it; undefined without one before `end`. */
function nextData(fd: number, at: number, end: number): [number, number] | undefined | number {
  const data = seekFd(fd, at * BLOCK, SEEK_DATA);
  if (data === -Errno.ENXIO || data >= end * BLOCK) return undefined;
  if (data < 0) return data;
  const hole = seekFd(fd, data, SEEK_HOLE);
  if (hole < 0) return hole;
  return [Math.floor(data / BLOCK), Math.ceil(hole / BLOCK)];
}

/** 1 where a block of the file open at `fd` is charged, 0 where it is not, or a negative errno. One call, nothing made. */
export function isCharged(fd: number, block: number, allocated: Ranges): number {
  for (let i = 0; i < allocated.length && (allocated[i] as number) <= block; i += 2) {
    if (block < (allocated[i + 1] as number)) return 1;
  }
  const data = seekFd(fd, block * BLOCK, SEEK_DATA);
  if (data === -Errno.ENXIO) return 0;
  if (data < 0) return data;
  return data < (block + 1) * BLOCK ? 1 : 0;
}

/** Charged blocks in [start, end), or a negative errno. */
export function chargedBlocks(fd: number, start: number, end: number, allocated: Ranges): number {
  let count = 0;
  const result = eachCharged(fd, start, end, allocated, (from, to) => {
    count += to - from;
    return true;
  });
  return result < 0 ? result : count;
}

/** Blocks in [start, end) that are not charged, in order, told to `visit`. 0 or a negative errno. */
export function eachFree(
  fd: number,
  start: number,
  end: number,
  allocated: Ranges,
  visit: (start: number, end: number) => void,
): number {
  let at = start;
  const result = eachCharged(fd, start, end, allocated, (from, to) => {
    if (from > at) visit(at, from);
    at = to;
    return true;
  });
  if (result === 0 && at < end) visit(at, end);
  return result;
}
