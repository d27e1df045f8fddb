// Charges for xattrs beyond what is free (xattr-cost.ts).
import type { Name } from "../../base/bytes.js";
import { FsError } from "../../base/errno.js";
import type { Request, Status } from "../../fuse/operations.js";
import { BLOCK } from "../../quota/blocks.js";
import { S_IFDIR, S_IFREG } from "../../sys/stat.js";
import { writeXattrFd } from "../../sys/xattr.js";
import { fault } from "../fault.js";
import type { Node } from "../inode-table.js";
import type { WritableState } from "../state.js";
import { admit } from "./costs-mark.js";
import { costOf, goOn, measureXattrs, type Quota, refuse } from "./quota.js";
import { baseXattr, FREE_XATTRS, imageXattrBytes, xattrBlocks, xattrBytes } from "./xattr-cost.js";

/** Only files and directories can have user. xattrs, and so as many as anybody likes. */
export function paysForXattrs({ type }: Pick<Node, "type">): boolean {
  return type === S_IFREG || type === S_IFDIR;
}

/** Charges an xattr of `length` bytes that is about to be set. 0, a negative errno, or SUSPENDED. Throws FsError. */
export function chargeXattr(m: WritableState, q: Request, node: Node, name: Name, length: number): Status {
  const { quota } = m;
  const { costs } = m.upper;
  const counted = xattrBytes(name, length);
  if (counted === 0 || !paysForXattrs(node) || (quota === undefined && costs.xattrs)) return 0;
  // What it replaces may have cost something.
  if (costs.xattrs) knowXattrs(m, node);
  const { bytes, base } = measureXattrs(m, node, name);
  const blocks = xattrBlocks(bytes + counted, base);
  if (blocks === 0) return 0;
  const admitted = admit(costs, "xattrs");
  if (admitted < 0 || quota === undefined) return admitted;
  const cost = costOf(m, node);
  const more = blocks - cost.xattrs;
  if (more <= 0) return 0;
  if (!quota.ledger.charge(more * BLOCK, 0)) return refuse(m, quota, q);
  goOn(quota, q);
  cost.xattrs = blocks;
  return 0;
}

/** Before one is removed: what the object's xattrs cost is known. */
export function knowXattrs(m: WritableState, node: Node): void {
  if (m.quota !== undefined && paysForXattrs(node)) costOf(m, node);
}

/** After xattrs have changed, or could not be changed: the object pays for those it has. */
export function settleXattrs(m: WritableState, node: Node): void {
  const { cost } = node;
  if (m.quota === undefined || cost === undefined || cost.xattrs === 0) return;
  try {
    credit(m, m.quota, node);
  } catch (error) {
    m.log.warn("xattrs not measured after a change", { nodeid: node.id, error });
    m.quota.exact = false;
  }
}

function credit(m: WritableState, quota: Quota, node: Node): void {
  const cost = costOf(m, node);
  const { bytes, base } = measureXattrs(m, node);
  const blocks = xattrBlocks(bytes, base);
  quota.ledger.credit((cost.xattrs - blocks) * BLOCK, 0);
  cost.xattrs = blocks;
}

/** A copy of a row that is open at `fd` says how many bytes of xattrs the image gave it. Throws FsError. */
export function noteBase(m: Pick<WritableState, "lower" | "upper">, row: number, fd: number): void {
  const bytes = imageXattrBytes(m.lower.xattrs(row));
  if (bytes <= FREE_XATTRS) return;
  const noted =
    admit(m.upper.costs, "xattrs") ||
    fault("copy-up.xattr") ||
    writeXattrFd(fd, baseXattr, Buffer.from(String(bytes)));
  if (noted < 0) throw new FsError(-noted, "note of a copy's xattrs");
}
