// Which image row a backing object was copied up from: what keeps its nodeid, st_ino and other names across a
// remount. Files say it themselves, in user.imgfs.origin: the row, and the head of the image's tree_root. Objects
// that cannot carry user xattrs (symlinks, FIFOs, devices), and objects with more names in the image, are hard-linked
// as WORK/index/ROW. A merged directory needs neither: its place says it, or the mark of its move (redirect.ts).
// Invariant: an object claims a row only while no other backing object does; a second claimant is an object of its own.

import { type Digest, digestHex } from "../base/digest.js";
import { Errno } from "../base/errno.js";
import { linkAt, unlinkAt } from "../sys/files.js";
import { usesTrusted } from "../sys/process.js";
import { S_IFMT, S_IFREG, type Stat } from "../sys/stat.js";
import {
  getXattrAt,
  getXattrFd,
  readXattrAt,
  readXattrFd,
  removeXattrFd,
  writeXattrFd,
} from "../sys/xattr.js";
import { fault } from "./fault.js";
import type { Node } from "./inode-table.js";
import type { Lower } from "./lower.js";
import type { OverlayState, WritableState } from "./state.js";
import { claimTree, type Upper } from "./upper.js";

export const originXattr: Buffer = Buffer.from("user.imgfs.origin");
const trustedMetacopy = Buffer.from("trusted.overlay.metacopy");

/** Where an object of the upper directory comes from; rows of the image, or -1. */
export interface Origin {
  /** Whose copy it is. */
  readonly row: number;
  /** Whose data it has, while it is a copy of the metadata alone. */
  readonly dataRow: number;
  /** It was copied up from the image, also where it is no longer known as the copy of a row. */
  readonly copied: boolean;
}

const NO_ORIGIN: Origin = { row: -1, dataRow: -1, copied: false };
/** How the origin of a copy of metadata alone ends; the second where it has the mark of overlayfs for that, too. */
const METADATA_ONLY = " meta";
const METACOPY = " metacopy";

/** A row of this image, and of no other. */
export function rowText(treeRoot: Digest, row: number): string {
  return `${row} ${digestHex(treeRoot).slice(0, 16)}`;
}

/** The row that such a text names, and what follows it; -1 when it is none of this image. */
export function parseRow(lower: Lower, text: string): { row: number; rest: string } {
  const { treeRoot, inodeCount } = lower.tree;
  const row = Number.parseInt(text, 10);
  const whole = rowText(treeRoot, row);
  return row >= 0 && row < inodeCount && text.startsWith(whole)
    ? { row, rest: text.slice(whole.length) }
    : { row: -1, rest: "" };
}

/** Marks a file as the copy of a row, or of its metadata alone. 0 or a negative errno. */
export function writeOrigin(m: WritableState, fd: number, row: number, metadataOnly: boolean): number {
  const { treeRoot } = m.lower.tree;
  const claimed = claimTree(m.upper, treeRoot);
  const kind = !metadataOnly ? "" : m.upper.trustedXattrs ? METACOPY : METADATA_ONLY;
  const text = `${rowText(treeRoot, row)}${kind}`;
  if (claimed < 0) return claimed;
  return fault("copy-up.origin") || writeXattrFd(fd, originXattr, Buffer.from(text));
}

/** Takes the mark off a file that is nobody's copy any more. 0 or a negative errno. */
export function dropOrigin(fd: number): number {
  const result = removeXattrFd(fd, originXattr);
  return result === -Errno.ENODATA ? 0 : result;
}

/** Where the object `name` came from. `marked` is false when it cannot carry a mark of its own. */
export function readOrigin(
  m: OverlayState,
  directoryFd: number,
  name: Uint8Array,
  stat: Stat,
  marked: boolean,
): Origin {
  const upper = m.upper as Upper;
  const { tree } = m.lower;
  const indexed = upper.indexRows.get(stat.ino);
  if (indexed !== undefined) {
    const dataRow = readIndexedOrigin(m, upper, indexed, stat);
    return { row: validRow(m, indexed, stat), dataRow, copied: true };
  }
  if (!marked || (stat.mode & S_IFMT) !== S_IFREG) return NO_ORIGIN;
  const origin = parseOrigin(m, directoryFd, name, stat);
  // Without its link in the index an object that had more names is cut off from them: it stands alone.
  return origin.row < 0 || tree.nlink(origin.row) === 1 ? origin : { ...origin, row: -1 };
}

/** The image row whose data the file linked in the index has, or -1. */
export function readIndexedOrigin(m: OverlayState, upper: Upper, row: number, stat: Stat): number {
  if ((stat.mode & S_IFMT) !== S_IFREG) return -1;
  return parseOrigin(m, upper.indexFd, indexName(row), stat).dataRow;
}

function parseOrigin(m: OverlayState, directoryFd: number, name: Uint8Array, stat: Stat): Origin {
  const value = readXattrAt(directoryFd, name, originXattr);
  if (typeof value === "number") return NO_ORIGIN;
  const { row: named, rest } = parseRow(m.lower, value.toString("latin1"));
  if (named < 0) return NO_ORIGIN;
  const row = validRow(m, named, stat);
  if (rest === METADATA_ONLY) return { row, dataRow: row, copied: true };
  if (rest !== METACOPY) return rest === "" ? { row, dataRow: -1, copied: true } : NO_ORIGIN;
  // Without the mark the kernel's overlayfs has copied the data since.
  const marked = !usesTrusted || getXattrAt(directoryFd, name, trustedMetacopy, 0, 0) >= 0;
  return { row, dataRow: marked ? row : -1, copied: true };
}

/** Whether the file open at `fd`, which has an origin, says that it is a copy of the metadata alone. */
export function lacksData(fd: number): boolean {
  const value = readXattrFd(fd, originXattr);
  if (typeof value === "number") return false;
  const text = value.toString("latin1");
  if (text.endsWith(METADATA_ONLY)) return true;
  return text.endsWith(METACOPY) && (!usesTrusted || getXattrFd(fd, trustedMetacopy, 0, 0) >= 0);
}

function validRow(m: OverlayState, row: number, stat: Stat): number {
  const { tree } = m.lower;
  return row < tree.inodeCount && (tree.mode(row) & S_IFMT) === (stat.mode & S_IFMT) ? row : -1;
}

/** The name of a row in the index. */
export function indexName(row: number): Buffer {
  return Buffer.from(String(row));
}

/** True for objects whose copy must be linked in the index to be known again. */
export function needsIndex(m: OverlayState, row: number): boolean {
  const { tree } = m.lower;
  return (tree.mode(row) & S_IFMT) !== S_IFREG || tree.nlink(row) > 1;
}

/** Notes what has been linked in the index. */
export function noteIndexed(upper: Upper, node: Node, row: number): void {
  upper.index.set(row, node.backing);
  upper.indexRows.set(node.backing, row);
  node.indexed = true;
}

/** Takes an object whose last name is gone out of the index. */
export function dropFromIndex(upper: Upper, node: Node): void {
  if (!node.indexed) return;
  // What stays after a failure is swept by the next mount.
  if (fault("unlink.index") === 0) unlinkAt(upper.indexFd, indexName(node.row));
  upper.index.delete(node.row);
  upper.indexRows.delete(node.backing);
  node.indexed = false;
}

/** Gives an object in the index one more name. 0 or a negative errno. */
export function linkFromIndex(upper: Upper, row: number, directoryFd: number, name: Uint8Array): number {
  return fault("copy-up.link") || linkAt(upper.indexFd, indexName(row), directoryFd, name);
}
