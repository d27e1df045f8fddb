// Charges for changes of a file's data: writes and sizes. What fallocate(2) does is in reserve.ts.
// Invariant: the charge comes before the change; what then happens otherwise than expected is measured.
import { FsError } from "../../base/errno.js";
import type { Request, Status } from "../../fuse/operations.js";
import { BLOCK, blocksOf } from "../../quota/blocks.js";
import { fallocateFd } from "../../sys/files.js";
import { statFd } from "../../sys/stat.js";
import { fault } from "../fault.js";
import type { Node } from "../inode-table.js";
import type { WritableState } from "../state.js";
import { chargedBlocks, eachFree, isCharged } from "./file-blocks.js";
import { become, type Cost, costOf, goOn, grow, type Quota, refuse, remeasure, roomFor } from "./quota.js";
import { giveBack, KEEP_SIZE, PUNCH_HOLE } from "./reserve.js";

/**
 * Charges a write of `length` bytes at `offset`. The bytes that may be written: all of them, or with `whole` unset those
 * that fit; else a negative errno, or SUSPENDED. Throws FsError.
 */
export function chargeWrite(
  m: WritableState,
  quota: Quota,
  q: Request,
  node: Node,
  offset: number,
  length: number,
  whole: boolean,
): number {
  const cost = node.cost ?? costOf(m, node);
  const end = Math.ceil((offset + length) / BLOCK);
  if (cost.dense && end <= cost.blocks) return length;
  if (length === 0) return 0;
  const start = Math.floor(offset / BLOCK);
  const fits =
    cost.dense && (start <= cost.blocks || quota.granule === 1)
      ? growDense(quota, node, cost, Math.max(start, cost.blocks), end, whole)
      : growSparse(m, quota, node, cost, start, end, whole);
  const allowed = Math.min(length, fits * BLOCK - offset);
  if (allowed < (whole ? length : 1)) {
    if (quota.granule > 1) settle(m, quota, node);
    return refuse(m, quota, q);
  }
  goOn(quota, q);
  return allowed;
}

/** Charges blocks [start, end) of a file that has only those before. The block up to which it may be written. */
function growDense(quota: Quota, node: Node, cost: Cost, start: number, end: number, whole: boolean): number {
  let stop = end;
  const dense = start === cost.blocks;
  if (!grow(quota, node, cost, end - start)) {
    if (whole) return start;
    stop = start + Math.min(end - start, roomFor(quota, node, cost));
    if (stop > start) grow(quota, node, cost, stop - start);
  }
  if (stop > start) cost.dense = dense;
  return stop;
}

/** The same of a file with holes, which its filesystem is asked for. */
function growSparse(
  m: WritableState,
  quota: Quota,
  node: Node,
  cost: Cost,
  start: number,
  end: number,
  whole: boolean,
): number {
  const { granule } = quota;
  if (granule === 1 && end - start === 1) return growOne(m, quota, node, cost, start);
  const first = start - (start % granule);
  const last = Math.ceil(end / granule) * granule;
  const free: number[] = [];
  let wanted = 0;
  const told = eachFree(m.fds.of(node), first, last, cost.allocated, (from, to) => {
    free.push(from, to);
    wanted += to - from;
  });
  if (told < 0) throw new FsError(-told, "blocks of a file");
  if (wanted === 0) return end;
  cost.dense = false;
  if (grow(quota, node, cost, wanted)) return end;
  if (whole) return start;
  let room = roomFor(quota, node, cost);
  for (let i = 0; i < free.length; i += 2) {
    const [from, to] = [free[i] as number, free[i + 1] as number];
    const taken = Math.min(room, to - from);
    if (taken > 0) grow(quota, node, cost, taken);
    room -= taken;
    if (taken < to - from) return Math.max(start, from + taken - ((from + taken) % granule));
  }
  return end;
}

/** The same of one block, which is what writes at random are. */
function growOne(m: WritableState, quota: Quota, node: Node, cost: Cost, block: number): number {
  const charged = isCharged(m.fds.of(node), block, cost.allocated);
  if (charged < 0) throw new FsError(-charged, "blocks of a file");
  if (charged === 1) return block + 1;
  cost.dense = false;
  return grow(quota, node, cost, 1) ? block + 1 : block;
}

/** After a write or copy that did less than was charged, or perhaps other blocks. */
export function settle(m: WritableState, quota: Quota, node: Node): void {
  try {
    remeasure(m, quota, node);
  } catch (error) {
    // What was charged stays charged until the record is made anew.
    m.log.warn("blocks of a file not measured after a change", { nodeid: node.id, error });
    quota.exact = false;
  }
}

/** A write has been made of what was charged for it. */
export function written(m: WritableState, quota: Quota, node: Node, whole: boolean): void {
  if (!whole || (quota.granule > 1 && node.cost?.dense === false)) settle(m, quota, node);
}

/**
 * Before a file gets another size: what it costs is known, and charged where its filesystem makes no holes. 0, a negative
 * errno, or SUSPENDED.
 */
export function beforeResize(m: WritableState, q: Request, node: Node, size: number): Status {
  const { quota } = m;
  if (quota === undefined) return 0;
  const cost = costOf(m, node);
  const more = blocksOf(size) - cost.blocks;
  if (quota.holes || more <= 0) return 0;
  if (!grow(quota, node, cost, more)) return refuse(m, quota, q);
  goOn(quota, q);
  return 0;
}

/** After a file of `before` bytes has got another size, or the same. */
export function afterResize(m: WritableState, node: Node, before: number, size: number): void {
  const { quota } = m;
  const end = blocksOf(size);
  if (size <= before) giveBack(m, node, end, Infinity);
  if (quota === undefined || (size > before && quota.holes)) return;
  const cost = costOf(m, node);
  if (end === 0) {
    become(quota, node, cost, 0);
    cost.dense = true;
  } else if (cost.dense) become(quota, node, cost, Math.min(cost.blocks, end));
  else settle(m, quota, node);
}

/**
 * The last block of a file that is about to grow, where that is a hole which the filesystem would fill; else -1. What it
 * grows by starts at `offset`, Infinity for nothing but a larger size.
 */
export function holeAtEnd(m: WritableState, node: Node, offset: number): number {
  const { quota } = m;
  if (quota?.fillsEnd !== true) return -1;
  const fd = m.fds.of(node);
  const cost = costOf(m, node);
  if (statFd(fd, m.stat) < 0) return -1;
  const block = Math.floor(m.stat.size / BLOCK);
  if (m.stat.size % BLOCK === 0 || offset < (block + 1) * BLOCK) return -1;
  if (cost.dense && block < cost.blocks) return -1;
  return chargedBlocks(fd, block, block + 1, cost.allocated) === 0 ? block : -1;
}

/** After the file has grown: the hole is one again, and free as before. */
export function keepHole(m: WritableState, node: Node, block: number): void {
  if (block < 0 || m.quota === undefined) return;
  const punched =
    fault("data.allocate") || fallocateFd(m.fds.of(node), KEEP_SIZE | PUNCH_HOLE, block * BLOCK, BLOCK);
  if (punched < 0) settle(m, m.quota, node);
}
