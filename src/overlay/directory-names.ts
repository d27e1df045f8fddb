// The names of a directory that has something in the upper: its listing, kept in memory for the directories used
// last, its subdirectory count, and whether anything shows in it.
import { nameOf } from "../base/bytes.js";
import { FsError } from "../base/errno.js";
import { check } from "../sys/libc.js";
import { emptyStat, S_IFDIR, S_IFMT, statAt } from "../sys/stat.js";
import type { DirectoryPart, Node } from "./inode-table.js";
import {
  DT_CHR,
  DT_DIR,
  DT_UNKNOWN,
  type ListedName,
  type Listing,
  listName,
  readListing,
  unlistName,
} from "./listing.js";
import type { LowerEntry } from "./lower.js";
import type { OverlayState } from "./state.js";
import { isWhiteout, mayHoldXattrWhiteouts } from "./whiteout.js";

/** Listings kept at a time, and names in them all together. */
const MAX_LISTINGS = 64;
const MAX_NAMES = 500_000;

/** The listing of a directory that exists in the upper. Throws FsError. */
export function listingOf(m: OverlayState, directory: Node): Listing {
  const part = directory.directory as DirectoryPart;
  if (part.listing !== undefined) {
    if (m.listed.size > 1) {
      m.listed.delete(directory);
      m.listed.add(directory);
    }
    return part.listing;
  }
  const read = readListing(m.fds.of(directory));
  if (typeof read === "number") throw new FsError(-read, "reading the upper directory");
  keepListing(m, directory, read);
  return read;
}

/** Keeps a directory's listing, and drops others while there are too many. */
export function keepListing(m: OverlayState, directory: Node, listing: Listing): void {
  (directory.directory as DirectoryPart).listing = listing;
  m.listed.add(directory);
  if (m.listed.size > 1) dropListings(m, directory);
}

function dropListings(m: OverlayState, keep: Node): void {
  let names = 0;
  for (const node of m.listed) names += node.directory?.listing?.names.size ?? 0;
  for (const node of m.listed) {
    if (m.listed.size <= MAX_LISTINGS && names <= MAX_NAMES) return;
    if (node === keep) continue;
    names -= node.directory?.listing?.names.size ?? 0;
    dropListing(m, node);
  }
}

export function dropListing(m: OverlayState, node: Node): void {
  if (node.directory === undefined) return;
  node.directory.listing = undefined;
  m.listed.delete(node);
}

/** True when a listed name stands for an absence. */
export function isListedWhiteout(m: OverlayState, directory: Node, listed: ListedName): boolean {
  if (listed.whiteout !== undefined) return listed.whiteout;
  const marked = (directory.directory as DirectoryPart).xattrWhiteouts;
  const xattrWhiteouts = mayHoldXattrWhiteouts(m.upper, marked);
  const plain = listed.type !== DT_CHR && listed.type !== DT_UNKNOWN && !xattrWhiteouts;
  if (plain) {
    listed.whiteout = false;
    return false;
  }
  const fd = m.fds.of(directory);
  const name = Buffer.from(listed.name, "latin1");
  const stat = emptyStat();
  check(statAt(fd, name, stat), "stat in the upper directory");
  listed.type = (stat.mode & S_IFMT) >>> 12;
  listed.whiteout = isWhiteout(fd, name, stat, xattrWhiteouts);
  return listed.whiteout;
}

/** Notes in a listing, when there is one, what a name now is; `mode` 0 when it is gone. */
export function noteName(
  directory: Node,
  name: Uint8Array,
  mode: number,
  backing: number,
  whiteout = false,
): void {
  const listing = directory.directory?.listing;
  if (listing === undefined) return;
  if (mode === 0) unlistName(listing, nameOf(name));
  else listName(listing, nameOf(name), (mode & S_IFMT) >>> 12, backing, whiteout);
}

/** Subdirectories of a directory in the merged view. */
export function countSubdirectories(m: OverlayState, directory: Node): number {
  const part = directory.directory as DirectoryPart;
  if (part.subdirectories >= 0) return part.subdirectories;
  const listing = listingOf(m, directory);
  let count = part.lowerRow < 0 ? 0 : m.lower.tree.nlink(part.lowerRow) - 2;
  for (const listed of listing.names.values()) {
    const whiteout = isListedWhiteout(m, directory, listed);
    if (!whiteout && listed.type === DT_DIR) count++;
    if (part.lowerRow < 0) continue;
    const name = Buffer.from(listed.name, "latin1");
    const row = m.lower.find(part.lowerRow, name, 0, name.length);
    if (row >= 0 && m.lower.isDirectory(row)) count--;
  }
  part.subdirectories = count;
  return count;
}

/** A subdirectory came or went. */
export function addSubdirectories(directory: Node, type: number, change: number): void {
  const part = directory.directory as DirectoryPart;
  if (type === S_IFDIR && part.subdirectories >= 0) part.subdirectories += change;
}

/** True when nothing shows in a directory, whiteouts aside. */
export function isEmpty(m: OverlayState, id: number): boolean {
  const directory = m.inodes.get(id);
  const entry: LowerEntry = { row: 0, type: 0, bytes: new Uint8Array(0), start: 0, end: 0 };
  const lowerRow = directory === undefined ? id - 1 : (directory.directory as DirectoryPart).lowerRow;
  const listing = directory === undefined || directory.backing === 0 ? undefined : listingOf(m, directory);
  if (directory !== undefined && listing !== undefined) {
    for (const listed of listing.names.values()) {
      if (!isListedWhiteout(m, directory, listed)) return false;
    }
  }
  if (lowerRow < 0) return true;
  const count = m.lower.tree.entryCount(lowerRow);
  for (let i = 0; i < count; i++) {
    m.lower.tree.entry(lowerRow, i, entry);
    if (entry.row < 0 || m.lower.hidden(entry.row)) continue;
    if (listing?.names.has(nameOf(entry.bytes, entry.start, entry.end)) !== true) return false;
  }
  return true;
}
