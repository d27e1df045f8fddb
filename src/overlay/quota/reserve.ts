// fallocate(2): blocks are charged when they are reserved, and noted in the file (allocated.ts), with a quota or without,
// so that a later mount with one counts the same.
import { FsError } from "../../base/errno.js";
import type { Request, Status } from "../../fuse/operations.js";
import { BLOCK, blocksOf } from "../../quota/blocks.js";
import { noRanges, type Ranges, withoutRange, withRange } from "../../quota/ranges.js";
import { fallocateFd } from "../../sys/files.js";
import { statFd } from "../../sys/stat.js";
import type { Node } from "../inode-table.js";
import type { WritableState } from "../state.js";
import { notable, readAllocated, writeAllocated } from "./allocated.js";
import { admit } from "./costs-mark.js";
import { eachFree } from "./file-blocks.js";
import { costOf, goOn, grow, refuse, remeasure } from "./quota.js";

/** FALLOC_FL_KEEP_SIZE, FALLOC_FL_PUNCH_HOLE and FALLOC_FL_ZERO_RANGE (include/uapi/linux/falloc.h). */
export const KEEP_SIZE = 0x01;
export const PUNCH_HOLE = 0x02;
const ZERO_RANGE = 0x10;

export function punches(mode: number): boolean {
  return (mode & PUNCH_HOLE) !== 0;
}

/** What a call of fallocate(2) is about to reserve, charged and noted. */
export interface Reservation {
  /** What the file had noted before. */
  readonly before: Ranges;
  /** Blocks that were neither data nor reserved. */
  readonly fresh: Ranges;
  /** Of these what was not asked for, but lies between two ranges that the file can only note as one. */
  readonly between: Ranges;
}

/** What the file of a record has noted. Throws FsError. */
function notedBy(m: WritableState, node: Node): Ranges {
  if (!m.upper.costs.allocated) return noRanges;
  const noted = node.cost?.allocated ?? readAllocated(m.fds.of(node));
  if (typeof noted === "number") throw new FsError(-noted, "reserved blocks of a file");
  return noted;
}

/** Charges and notes the blocks that bytes [offset, offset + length) lie in. Or a status to answer with. Throws FsError. */
export function reserve(
  m: WritableState,
  q: Request,
  node: Node,
  mode: number,
  offset: number,
  length: number,
): Reservation | Status {
  const { quota } = m;
  const fd = m.fds.of(node);
  const cost = quota === undefined ? undefined : costOf(m, node);
  const start = Math.floor(offset / BLOCK);
  const end = Math.ceil((offset + length) / BLOCK);
  const before = notedBy(m, node);
  // Where all of it is charged already and stays data, there is nothing to note.
  if (cost?.dense === true && end <= cost.blocks && (mode & ZERO_RANGE) === 0) {
    return { before, fresh: noRanges, between: noRanges };
  }
  const asked = withRange(before, start, end);
  const ranges = notable(asked);
  const between: number[] = [];
  for (let i = 0, at = 0; i < ranges.length; i += 2) {
    for (let edge = ranges[i] as number; edge < (ranges[i + 1] as number); at += 2) {
      if ((asked[at] as number) > edge) between.push(edge, asked[at] as number);
      edge = asked[at + 1] as number;
    }
  }
  let fresh: Ranges = noRanges;
  let wanted = 0;
  for (const [from, to] of [[start, end] as const, ...pairsOf(between)]) {
    const told = eachFree(fd, from, to, before, (a, b) => {
      fresh = withRange(fresh, a, b);
      wanted += b - a;
    });
    if (told < 0) return told;
  }
  if (quota !== undefined && cost !== undefined) {
    const blocks = cost.blocks;
    if (!grow(quota, node, cost, wanted)) return refuse(m, quota, q);
    goOn(quota, q);
    cost.dense = cost.dense && start <= blocks && between.length === 0;
  }
  const noted = admit(m.upper.costs, "allocated") || writeAllocated(fd, ranges);
  if (noted < 0) {
    if (quota !== undefined) remeasure(m, quota, node);
    return noted;
  }
  if (cost !== undefined) cost.allocated = ranges;
  return { before, fresh, between };
}

function pairsOf(ranges: Ranges): (readonly [number, number])[] {
  const pairs: (readonly [number, number])[] = [];
  for (let i = 0; i < ranges.length; i += 2) pairs.push([ranges[i] as number, ranges[i + 1] as number]);
  return pairs;
}

/** After the call: with an error everything is as it was. Gives the status to answer with. */
export function finishReservation(
  m: WritableState,
  node: Node,
  { before, fresh, between }: Reservation,
  status: Status,
): Status {
  const fd = m.fds.of(node);
  let result = status;
  for (const [from, to] of pairsOf(between)) {
    if (result === 0) result = fallocateFd(fd, KEEP_SIZE, from * BLOCK, (to - from) * BLOCK);
  }
  if (result === 0) return result;
  // Filesystems leave what they could reserve before they ran full. Data written meanwhile are not touched.
  for (const [from, to] of pairsOf(fresh)) {
    eachFree(fd, from, to, before, (a, b) => {
      fallocateFd(fd, KEEP_SIZE | PUNCH_HOLE, a * BLOCK, (b - a) * BLOCK);
    });
  }
  writeAllocated(fd, before);
  if (m.quota !== undefined) remeasure(m, m.quota, node);
  return result;
}

/** Blocks [start, end) of a file are no longer reserved: it says so, too. */
export function giveBack(m: WritableState, node: Node, start: number, end: number): void {
  const noted = notedBy(m, node);
  if (noted.length === 0) return;
  const left = withoutRange(noted, start, end);
  if (left.length === noted.length && left.every((block, i) => block === noted[i])) return;
  if (writeAllocated(m.fds.of(node), left) === 0 && node.cost !== undefined) node.cost.allocated = left;
}

/** Before a hole is punched: what the file costs is known. Throws FsError. */
export function beforePunch(m: WritableState, node: Node): void {
  if (m.quota !== undefined) costOf(m, node);
}

/**
 * After a hole has been punched: only the whole blocks in it have gone, and of those beyond the file's end none need have
 * (ext4 leaves them), so these are given back by truncate(2) alone.
 */
export function afterPunch(m: WritableState, node: Node, offset: number, length: number): void {
  if (notedBy(m, node).length > 0 && statFd(m.fds.of(node), m.stat) === 0) {
    const end = Math.min(Math.floor((offset + length) / BLOCK), blocksOf(m.stat.size));
    giveBack(m, node, Math.ceil(offset / BLOCK), end);
  }
  if (m.quota !== undefined) remeasure(m, m.quota, node);
}
