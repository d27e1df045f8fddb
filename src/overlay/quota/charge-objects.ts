// Charges for new objects.
import type { Request, Status } from "../../fuse/operations.js";
import { BLOCK } from "../../quota/blocks.js";
import { S_IFDIR } from "../../sys/stat.js";
import type { Node } from "../inode-table.js";
import type { WritableState } from "../state.js";
import { costOfNew, goOn, refuse } from "./quota.js";

function bytesOf(type: number): number {
  return type === S_IFDIR ? BLOCK : 0;
}

/** Charges a new object of a type (S_IFMT bits). 0, a negative errno, or SUSPENDED. */
export function chargeNew(m: WritableState, q: Request, type: number): Status {
  const { quota } = m;
  if (quota === undefined) return 0;
  if (!quota.ledger.charge(bytesOf(type), 1)) return refuse(m, quota, q);
  goOn(quota, q);
  return 0;
}

/** It has not been made. */
export function creditNew(m: WritableState, type: number): void {
  m.quota?.ledger.credit(bytesOf(type), 1);
}

/** It has its record. */
export function ownNew(m: WritableState, node: Node): void {
  if (m.quota !== undefined) node.cost = costOfNew(node);
}
