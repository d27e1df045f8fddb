// The quota of one mount, and what is known of the cost of each object with a record.
// Invariants: the ledger holds what every object of the upper costs, those without a name included as long as somebody
// has them, and what is just being made; nothing on disk grows before it is charged, and credit comes after it has gone.
// What an object costs is measured once, when it is first to change, and followed from there.
import type { Name } from "../../base/bytes.js";
import { Errno, FsError } from "../../base/errno.js";
import type { Request, Status } from "../../fuse/operations.js";
import { BLOCK } from "../../quota/blocks.js";
import type { Ledger } from "../../quota/ledger.js";
import { noRanges, type Ranges } from "../../quota/ranges.js";
import type { QuotaSettings } from "../../quota/settings.js";
import { S_IFDIR, S_IFREG } from "../../sys/stat.js";
import { backingXattrNames, getBackingXattr } from "../backing-metadata.js";
import type { Node } from "../inode-table.js";
import type { WritableState } from "../state.js";
import { readAllocated } from "./allocated.js";
import { measureBlocks } from "./file-blocks.js";
import { sumXattrs, type XattrCost, xattrBlocks } from "./xattr-cost.js";

/** What one object costs. Owned by its record. */
export interface Cost {
  /** Of a file's data, or of a directory. */
  blocks: number;
  /** A file's are its first `blocks` ones: where it grows next no call need be made to know what is new. */
  dense: boolean;
  /** What the file has noted as reserved. */
  allocated: Ranges;
  /** Blocks of xattrs beyond what is free. */
  xattrs: number;
}

export interface Quota {
  readonly ledger: Ledger;
  /** What a request past a limit is answered with. */
  readonly refused: Status;
  /** Blocks that a byte of data takes on the upper's filesystem; 1 nearly everywhere. */
  readonly granule: number;
  /** Whether that filesystem tells holes from data. */
  readonly holes: boolean;
  /** Whether it makes a hole in a file's last block data when the file grows. */
  readonly fillsEnd: boolean;
  /** False once something could not be measured: what is charged is then not for the next mount to go by. */
  exact: boolean;
  /** When a last name went, in milliseconds of performance.now(). */
  lastRemoval: number;
  /** Requests that have been put off because credit may be on its way, and how often. */
  readonly putOff: Map<number, number>;
}

export function createQuota(
  ledger: Ledger,
  { errno }: Pick<QuotaSettings, "errno">,
  disk: Pick<Quota, "granule" | "holes" | "fillsEnd">,
): Quota {
  return { ledger, refused: -Errno[errno], ...disk, exact: true, lastRemoval: -Infinity, putOff: new Map() };
}

/** Inodes that an object with this many blocks counts for: of copies only files with data of their own. */
function inodesOf(node: Pick<Node, "copied" | "type">, blocks: number): number {
  if (!node.copied) return 1;
  return node.type === S_IFREG && blocks > 0 ? 1 : 0;
}

/** What an object costs, measured where it is not known. Throws FsError. */
export function costOf(m: WritableState, node: Node): Cost {
  node.cost ??= measure(m, node);
  return node.cost;
}

function measure(m: WritableState, node: Node): Cost {
  // What is neither file nor directory can have no user. xattrs.
  if (node.type !== S_IFREG && node.type !== S_IFDIR) return costOfNew(node);
  const xattrs = m.upper.costs.xattrs ? blocksOfXattrs(measureXattrs(m, node)) : 0;
  if (node.type === S_IFDIR || node.dataRow >= 0) return { ...costOfNew(node), xattrs };
  return { ...measureFile(m, node), xattrs };
}

/** What an object without data and xattrs costs. */
export function costOfNew({ type, copied }: Pick<Node, "type" | "copied">): Cost {
  return { blocks: type === S_IFDIR && !copied ? 1 : 0, dense: true, allocated: noRanges, xattrs: 0 };
}

function measureFile(m: WritableState, node: Node): Omit<Cost, "xattrs"> {
  const fd = m.fds.of(node);
  const allocated = m.upper.costs.allocated ? readAllocated(fd) : noRanges;
  if (typeof allocated === "number") throw new FsError(-allocated, "reserved blocks of a file");
  const found = measureBlocks(fd, allocated);
  if (typeof found === "number") throw new FsError(-found, "blocks of a file");
  return { blocks: found.count, dense: found.dense, allocated };
}

/** Adds up an object's xattrs, but for one. Throws FsError. */
export function measureXattrs(m: WritableState, node: Node, except?: Name): XattrCost {
  const list = backingXattrNames(m.fds, node);
  if (list === -Errno.EOPNOTSUPP) return { bytes: 0, base: 0 };
  if (typeof list === "number") throw new FsError(-list, "xattrs");
  const { buffer } = m;
  return sumXattrs(
    list,
    (name) => getBackingXattr(m.fds, node, name, 0, 0),
    (name) => {
      const length = getBackingXattr(m.fds, node, name, buffer.address, buffer.length);
      return length < 0 ? length : Buffer.from(buffer.bytes.subarray(0, length));
    },
    except,
  );
}

function blocksOfXattrs({ bytes, base }: XattrCost): number {
  return xattrBlocks(bytes, base);
}

/**
 * Charges more blocks of an object, and its inode where they are a copy's first ones. False where that would pass a limit,
 * and then nothing is charged.
 */
export function grow(quota: Quota, node: Node, cost: Cost, blocks: number): boolean {
  const inodes = inodesOf(node, cost.blocks + blocks) - inodesOf(node, cost.blocks);
  if (!quota.ledger.charge(blocks * BLOCK, inodes)) return false;
  cost.blocks += blocks;
  return true;
}

/** Blocks by which an object can grow now. */
export function roomFor({ ledger }: Quota, node: Node, cost: Cost): number {
  if (inodesOf(node, cost.blocks + 1) > inodesOf(node, cost.blocks) && ledger.inodesLeft < 1) return 0;
  return Math.floor(ledger.bytesLeft / BLOCK);
}

/** An object has this many blocks now, which is what it is charged for from here on. */
export function become(quota: Quota, node: Node, cost: Cost, blocks: number): void {
  const inodes = inodesOf(node, cost.blocks) - inodesOf(node, blocks);
  if (blocks !== cost.blocks) quota.ledger.credit((cost.blocks - blocks) * BLOCK, inodes);
  cost.blocks = blocks;
}

/** Looks at a file again: after a change whose extent is not known. Throws FsError. */
export function remeasure(m: WritableState, quota: Quota, node: Node): void {
  const cost = costOf(m, node);
  const { blocks, dense, allocated } = node.dataRow >= 0 ? costOfNew(node) : measureFile(m, node);
  become(quota, node, cost, blocks);
  cost.dense = dense;
  cost.allocated = allocated;
}

/** Before the last name of an object may go: what it costs must be known when it is no longer to be found. */
export function knowCost(m: WritableState, node: Node): void {
  if (m.quota === undefined) return;
  m.quota.lastRemoval = performance.now();
  if (node.cost !== undefined || node.backing === 0) return;
  try {
    costOf(m, node);
  } catch (error) {
    // Removing works whatever happens. What is not known stays charged until the upper is counted again.
    m.log.warn("the cost of a removed object is not known", { nodeid: node.id, error });
    m.quota.exact = false;
    node.cost = costOfNew(node);
  }
}

/** The record of an object without a name goes, and with it the object. */
export function creditGone(quota: Quota, node: Node): void {
  const { cost } = node;
  if (cost === undefined || !node.removed || node.backing === 0) return;
  quota.ledger.credit((cost.blocks + cost.xattrs) * BLOCK, inodesOf(node, cost.blocks));
  node.cost = undefined;
}

/** A copy is nobody's copy any more. */
export function disown({ quota }: WritableState, node: Node): void {
  const { cost, copied } = node;
  node.copied = false;
  if (!copied || quota === undefined || cost === undefined) return;
  quota.ledger.credit(0, inodesOf({ type: node.type, copied }, cost.blocks) - inodesOf(node, cost.blocks));
}

/**
 * A directory's last name has gone. It holds nothing any more, and so is credited at once: the kernel keeps it for as long
 * as a file is open that was in it. From here on it costs what a copy does.
 */
export function creditDirectory(quota: Quota, node: Node): void {
  creditGone(quota, node);
  node.copied = true;
  node.cost = costOfNew(node);
}

/** How long after a removal the kernel's word that an object is forgotten may be on its way, in milliseconds. */
const FORGET_TIME = 20;
const PAUSE = 2;
const MOST_PAUSES = 4;

/**
 * What to answer a request with that would pass a limit. Where an object has lost its last name just now, its credit comes
 * with the kernel's word that it is forgotten, which may be queued behind this request: then that is put off for a moment
 * (SUSPENDED), and comes again.
 */
export function refuse(m: WritableState, quota: Quota, q: Request): Status {
  const pauses = quota.putOff.get(q.unique) ?? 0;
  if (
    m.services !== undefined &&
    q.unique !== 0 &&
    pauses < MOST_PAUSES &&
    performance.now() - quota.lastRemoval < FORGET_TIME
  ) {
    quota.putOff.set(q.unique, pauses + 1);
    return m.services.suspend(q, -q.unique, { kind: "pause", milliseconds: PAUSE }, () => undefined);
  }
  quota.putOff.delete(q.unique);
  return quota.refused;
}

/** A request that may have been put off goes on. */
export function goOn(quota: Quota, q: Request): void {
  if (quota.putOff.size > 0) quota.putOff.delete(q.unique);
}
