// Charges for copies of the image's data: all that a copy will take, before its first byte.
import { Errno, FsError } from "../../base/errno.js";
import type { Request, Status } from "../../fuse/operations.js";
import { BLOCK, blocksOf } from "../../quota/blocks.js";
import { noRanges } from "../../quota/ranges.js";
import { SEEK_DATA, SEEK_HOLE } from "../../sys/files.js";
import type { Node } from "../inode-table.js";
import type { LowerTree } from "../lower.js";
import type { WritableState } from "../state.js";
import { settle } from "./charge-data.js";
import type { FileBlocks } from "./file-blocks.js";
import { costOf, goOn, grow, refuse } from "./quota.js";

/** Blocks that a copy of a row's first `size` bytes takes. Throws FsError, Corrupt. */
export function blocksOfCopy(tree: LowerTree, row: number, size: number): FileBlocks {
  let count = 0;
  let next = 0;
  for (let at = 0; at < size; ) {
    const data = tree.seek(row, at, SEEK_DATA);
    if (data === -Errno.ENXIO || data >= size) break;
    if (data < 0) throw new FsError(-data, "data of a file of the image");
    const hole = tree.seek(row, data, SEEK_HOLE);
    if (hole < 0) throw new FsError(-hole, "data of a file of the image");
    at = Math.min(hole, size);
    const end = blocksOf(at);
    count += end - Math.max(next, Math.floor(data / BLOCK));
    next = end;
  }
  return { count, dense: count === next };
}

const nothing: FileBlocks = { count: 0, dense: true };

/** Charges the copy of a row that has no record yet, data and inode. What it was charged for, or a status to answer with. */
export function chargeCopy(m: WritableState, q: Request, row: number, size: number): FileBlocks | Status {
  const { quota } = m;
  if (quota === undefined) return nothing;
  const blocks = size > 0 ? blocksOfCopy(m.lower.tree, row, size) : nothing;
  if (!quota.ledger.charge(blocks.count * BLOCK, blocks.count > 0 ? 1 : 0)) return refuse(m, quota, q);
  goOn(quota, q);
  return blocks;
}

/** There is no copy after all. */
export function creditCopy(m: WritableState, { count }: FileBlocks): void {
  m.quota?.ledger.credit(count * BLOCK, count > 0 ? 1 : 0);
}

/** The copy has its record. */
export function ownCopy(m: WritableState, node: Node, { count, dense }: FileBlocks): void {
  if (m.quota !== undefined) node.cost = { blocks: count, dense, allocated: noRanges, xattrs: 0 };
}

/** Charges the data that a copy of metadata alone is to get. 0, a negative errno, or SUSPENDED. */
export function chargeData(m: WritableState, q: Request, node: Node, size: number): Status {
  const { quota } = m;
  if (quota === undefined) return 0;
  const cost = costOf(m, node);
  const blocks = blocksOfCopy(m.lower.tree, node.dataRow, size);
  if (!grow(quota, node, cost, blocks.count)) return refuse(m, quota, q);
  goOn(quota, q);
  cost.dense = blocks.dense;
  return 0;
}

/** It has not got them. */
export function creditData(m: WritableState, node: Node): void {
  if (m.quota !== undefined) settle(m, m.quota, node);
}
