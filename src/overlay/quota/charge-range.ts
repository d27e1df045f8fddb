// Charges for copy_file_range(2).
import type { Request, Status } from "../../fuse/operations.js";
import { blocksOf } from "../../quota/blocks.js";
import { statFd } from "../../sys/stat.js";
import type { Node } from "../inode-table.js";
import type { WritableState } from "../state.js";
import { chargeWrite, settle } from "./charge-data.js";

/** What is copied from: an object of the upper, or with `row` from 0 on one whose data are the image's. */
export interface Source {
  readonly node: Node | undefined;
  readonly row: number;
  readonly offset: number;
}

/**
 * Charges the copy of at most `length` bytes to `target`. The bytes to copy, 0 at the end of the source; a negative errno,
 * or SUSPENDED. Throws FsError.
 */
export function chargeRange(
  m: WritableState,
  q: Request,
  source: Source,
  target: Node,
  toOffset: number,
  length: number,
): number {
  if (m.quota === undefined) return length;
  const size = sizeOf(m, source);
  if (size < 0) return size;
  const wanted = Math.min(length, Math.max(0, size - source.offset));
  return wanted === 0 ? 0 : chargeWrite(m, m.quota, q, target, toOffset, wanted, false);
}

function sizeOf(m: WritableState, { node, row }: Source): Status {
  if (row >= 0) return m.lower.tree.size(row);
  const result = statFd(m.fds.of(node as Node), m.stat);
  return result < 0 ? result : m.stat.size;
}

/**
 * After the copy. Where the filesystem shares extents, holes of the source are holes of the target too, and so it is
 * measured unless the source is known to have none, nor to have become larger by truncation.
 */
export function afterRange(
  m: WritableState,
  node: Node | undefined,
  row: number,
  target: Node,
  whole: boolean,
): void {
  const { quota } = m;
  if (quota === undefined) return;
  const cost = node?.cost;
  const exact =
    row >= 0 ||
    (cost?.dense === true &&
      cost.allocated.length === 0 &&
      blocksOf(Math.max(0, sizeOf(m, { node, row, offset: 0 }))) <= cost.blocks);
  if (!whole || !exact) settle(m, quota, target);
}
