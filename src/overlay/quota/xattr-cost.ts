// What the xattrs of an object cost: 4 KiB of names and values are free, as is what the image gave it; beyond that whole
// blocks. Counted are the names that programs see, but not ACLs, which are part of the mode.
//   user.imgfs.base-xattrs   bytes that an object copied up has from the image, in decimal, where they are more than free
import type { Name } from "../../base/bytes.js";
import { bytesOf, nameOf } from "../../base/bytes.js";
import type { Xattr } from "../../imgfs/tree.js";
import { BLOCK } from "../../quota/blocks.js";
import { nameKept } from "../kept-xattrs.js";
import { shownName } from "../xattr-names.js";

export const baseXattr: Buffer = Buffer.from("user.imgfs.base-xattrs");
const baseName = baseXattr.toString("latin1");

/** Bytes of names and values that are free. */
export const FREE_XATTRS = 4096;

/** Blocks that `bytes` of xattrs cost an object with `base` of them from the image. */
export function xattrBlocks(bytes: number, base: number): number {
  return Math.max(0, Math.ceil((bytes - Math.max(FREE_XATTRS, base)) / BLOCK));
}

function isCounted(name: Name): boolean {
  return !name.startsWith("system.posix_acl_");
}

/** What programs call an xattr on disk that counts; undefined for one that does not. */
export function countedName(stored: Name): Name | undefined {
  const name = nameKept(stored) ?? shownName(stored);
  return name !== undefined && isCounted(name) ? name : undefined;
}

/** Bytes that one xattr counts for. */
export function xattrBytes(name: Name, valueLength: number): number {
  return isCounted(name) ? name.length + valueLength : 0;
}

/** Bytes of the xattrs that an object of the image has. */
export function imageXattrBytes(xattrs: readonly Xattr[] | undefined): number {
  return (xattrs ?? []).reduce((sum, { name, value }) => sum + xattrBytes(name, value.length), 0);
}

export interface XattrCost {
  /** Names and values that count. */
  readonly bytes: number;
  /** Of these from the image. */
  readonly base: number;
}

/**
 * Adds up an object's xattrs: `list` is what listxattr(2) gave of it, `read` has a value or, with no room, its length, or
 * a negative errno. `except` is not counted.
 */
export function sumXattrs(
  list: Buffer,
  length: (name: Uint8Array) => number,
  value: (name: Uint8Array) => Buffer | number,
  except?: Name,
): XattrCost {
  let bytes = 0;
  let base = 0;
  for (const stored of list.length === 0 ? [] : (nameOf(list).split("\0").slice(0, -1) as Name[])) {
    if (stored === baseName) base = parseBase(value(baseXattr)) ?? 0;
    const name = countedName(stored);
    if (name === undefined || name === except) continue;
    bytes += xattrBytes(name, Math.max(0, length(bytesOf(stored))));
  }
  return { bytes, base };
}

/** The number in {@link baseXattr}; undefined where there is none or it is damaged. */
export function parseBase(value: Buffer | number): number | undefined {
  if (typeof value === "number" || !/^\d{1,9}$/.test(value.toString("latin1"))) return undefined;
  return Number(value.toString("latin1"));
}
