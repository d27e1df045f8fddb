// The names a directory has in the upper directory, read once and then kept in step with every change made here.
// Offsets of readdir depend on nothing but the name, so they hold across creation, deletion, a listing that was
// dropped and read again, and a remount: a name that the lower directory has too is given at its lower index, any
// other at a position made from its hash.
import { type Name, nameOf } from "../base/bytes.js";
import { readDirectory, seekFd, withoutAtime } from "../sys/files.js";

/** DT_UNKNOWN where the filesystem does not tell. */
export const DT_UNKNOWN = 0;
export const DT_CHR = 2;
export const DT_DIR = 4;
export const DT_REG = 8;

export interface ListedName {
  readonly name: Name;
  /** DT_*; a whiteout is whatever stands for it until `whiteout` says so. */
  type: number;
  backing: number;
  /** Undefined when it is not known yet and `type` leaves it possible. */
  whiteout: boolean | undefined;
  /** Position among the names that the lower directory does not have. */
  readonly position: number;
}

/** Names by name, and in the order of their positions. */
export interface Listing {
  readonly names: Map<Name, ListedName>;
  /** Sorted by position; may hold names that are gone, or stale records of names that came back. */
  order: ListedName[];
  /** Added since `order` was sorted. */
  added: ListedName[];
}

/** The first offset of the hashed part; lower indexes stay below it. */
export const HASHED_OFFSET_BASE = 2 ** 40;
const HASH_RANGE = 2 ** 51;

/** A 51-bit hash of a name; the same in every mount. */
function positionOf(name: string): number {
  let a = 0x9e3779b9;
  let b = 0x85ebca6b;
  for (let i = 0; i < name.length; i++) {
    const c = name.charCodeAt(i);
    a = Math.imul(a ^ c, 0x9e3779b1);
    b = Math.imul(b ^ c, 0x5f356495);
  }
  a = Math.imul(a ^ (a >>> 16), 0x85ebca6b) ^ Math.imul(b ^ (b >>> 13), 0xc2b2ae35);
  b = Math.imul(b ^ (b >>> 16), 0x85ebca6b) ^ Math.imul(a ^ (a >>> 13), 0xc2b2ae35);
  return ((a >>> 0) * 2 ** 19 + ((b >>> 0) & 0x7_ffff)) % HASH_RANGE;
}

/** Reads the upper names of the directory open at `fd`, and sets no atime. A Listing or a negative errno. */
export function readListing(fd: number): Listing | number {
  const names = new Map<Name, ListedName>();
  const order: ListedName[] = [];
  const rewound = seekFd(fd, 0, 0);
  if (rewound < 0) return rewound;
  const result = withoutAtime(fd, () =>
    readDirectory(fd, (bytes, start, end, type, backing) => {
      const listed = createListed(nameOf(bytes, start, end), type, backing);
      names.set(listed.name, listed);
      order.push(listed);
    }),
  );
  if (result < 0) return result;
  order.sort(byPosition);
  return { names, order, added: [] };
}

/** The listing of a directory with nothing in it. */
export function emptyListing(): Listing {
  return { names: new Map(), order: [], added: [] };
}

function createListed(name: Name, type: number, backing: number): ListedName {
  return { name, type, backing, whiteout: undefined, position: positionOf(name) };
}

function byPosition(a: ListedName, b: ListedName): number {
  return a.position - b.position;
}

/** Notes a name that was made or replaced. */
export function listName(
  listing: Listing,
  name: Name,
  type: number,
  backing: number,
  whiteout: boolean,
): void {
  const known = listing.names.get(name);
  if (known !== undefined) {
    known.type = type;
    known.backing = backing;
    known.whiteout = whiteout;
    return;
  }
  const listed = createListed(name, type, backing);
  listed.whiteout = whiteout;
  listing.names.set(name, listed);
  listing.added.push(listed);
  dropStale(listing);
}

/** Notes that a name is gone. */
export function unlistName(listing: Listing, name: Name): void {
  listing.names.delete(name);
  dropStale(listing);
}

/** Names come and go in directories that nobody lists: what is kept of gone ones stays in proportion to those there. */
function dropStale(listing: Listing): void {
  const limit = 2 * listing.names.size + 64;
  if (listing.added.length > limit)
    listing.added = listing.added.filter((listed) => isListed(listing, listed));
  if (listing.order.length > limit)
    listing.order = listing.order.filter((listed) => isListed(listing, listed));
}

/** The names sorted by position, gone ones possibly among them: test each with {@link isListed}. */
export function inOrder(listing: Listing): readonly ListedName[] {
  if (listing.added.length > 0) {
    // Two sorted runs: the sort merges them in linear time.
    const kept = listing.order.filter((listed) => isListed(listing, listed));
    const added = listing.added.filter((listed) => isListed(listing, listed));
    listing.order = kept.concat(added.sort(byPosition)).sort(byPosition);
    listing.added = [];
  }
  return listing.order;
}

export function isListed(listing: Listing, listed: ListedName): boolean {
  return listing.names.get(listed.name) === listed;
}

/** Index of the first of `order` at or after a position. */
export function indexAt(order: readonly ListedName[], position: number): number {
  let low = 0;
  let high = order.length;
  while (low < high) {
    const middle = (low + high) >>> 1;
    if ((order[middle] as ListedName).position < position) low = middle + 1;
    else high = middle;
  }
  return low;
}
