// nodeid to inode. The nodeid of an object that is or was in the image is its row + 1, and while it is only there it
// has no record: two 32-bit words per row, touched when it is looked up, are all it costs. Objects of the upper
// directory have a record, from the lookup that finds them until the kernel forgets them.
// Invariants: one record per nodeid and per backing inode; a record outlives the records below it; ids above the
// image's are never given twice.
import { S_IFDIR, S_IFREG } from "../sys/stat.js";
import type { Listing } from "./listing.js";
import type { Override } from "./override.js";
import type { Cost } from "./quota/quota.js";

/** What only a directory has. */
export interface DirectoryPart {
  /** The lower directory merged below it, or -1: none, or hidden by an opaque mark. */
  lowerRow: number;
  /** Its names in the upper directory, when they have been read. */
  listing: Listing | undefined;
  /** Subdirectories in the merged view; -1 when not counted yet. */
  subdirectories: number;
  /** Objects with an origin may be found here under names that the lower directory does not have. */
  impure: boolean;
  /** Group that new objects inherit by the setgid bit, NO_GROUP, or GROUP_UNKNOWN. */
  group: number;
  /** New objects inherit a default ACL. */
  defaultAcl: boolean;
  /** Files here may be whiteouts in xattr form. */
  xattrWhiteouts: boolean;
}

export const NO_GROUP = -1;
export const GROUP_UNKNOWN = -2;

/** An inode that has, or had, something in the upper directory. */
export interface Node {
  readonly id: number;
  /** The image row it is, or was copied up from; -1 when it was born in the upper directory. */
  readonly row: number;
  /** S_IFMT bits, as they show. */
  readonly type: number;
  readonly ino: number;
  /** Inode number of the backing object; 0 while it exists in the image only. */
  backing: number;
  /** What it shows instead of what the backing object has; undefined where that is the same. */
  override: Override | undefined;
  /** No capabilities are kept beside the file. */
  uncapable: boolean;
  /** It was copied up from the image, or its origin says so. */
  copied: boolean;
  /** What it costs, once that is known; of use to a quota alone. */
  cost: Cost | undefined;
  /** The image row that the file's data are those of, while the backing file has none of its own; -1 otherwise. */
  dataRow: number;
  /** A place where the backing object is found, undefined when no name of it is known; then `fd` holds it. */
  parent: Node | undefined;
  name: Buffer;
  /** Backing descriptor, or -1. Read-only for a directory, O_PATH for what is neither directory nor file. */
  fd: number;
  /** The descriptor pool's: its place there, and whether it was used since the clock came round. */
  slot: number;
  recent: boolean;
  /** Open handles counted on it. */
  opens: number;
  lookups: number;
  /** Records whose parent it is. */
  children: number;
  /** The hard-link index holds a link to the backing object. */
  indexed: boolean;
  /** The last name is gone. */
  removed: boolean;
  readonly directory: DirectoryPart | undefined;
}

/** st_ino of objects born in the upper directory: above every row. */
const UPPER_INO_BASE = 2 ** 33;

/** st_ino of an object born in the upper directory with this backing inode. */
export function upperIno(backing: number): number {
  return UPPER_INO_BASE + (backing % 2 ** 52);
}

export class InodeTable {
  private readonly records = new Map<number, Node>();
  private readonly backings = new Map<number, Node>();
  private readonly rowCount: number;
  private readonly counts: Uint32Array;
  private readonly parents: Uint32Array;
  private readonly release: (node: Node) => void;
  private nextId: number;

  /** `release` is called with each record that is dropped. */
  constructor(rowCount: number, writable: boolean, release: (node: Node) => void) {
    this.release = release;
    this.rowCount = rowCount;
    this.counts = new Uint32Array(writable ? rowCount : 0);
    this.parents = new Uint32Array(writable ? rowCount : 0);
    this.nextId = rowCount + 1;
  }

  /** Records in the table. */
  get size(): number {
    return this.records.size;
  }

  get(id: number): Node | undefined {
    return this.records.get(id);
  }

  withBacking(backing: number): Node | undefined {
    return this.backings.get(backing);
  }

  newId(): number {
    return this.nextId++;
  }

  add(node: Node): void {
    this.records.set(node.id, node);
    if (node.backing !== 0) this.backings.set(node.backing, node);
    if (node.parent !== undefined) node.parent.children++;
  }

  /** The object now exists in the upper directory, as this backing inode. */
  setBacking(node: Node, backing: number): void {
    node.backing = backing;
    this.backings.set(backing, node);
  }

  /** The backing inode number may come again for another object. */
  forgetBacking(node: Node): void {
    if (this.backings.get(node.backing) === node) this.backings.delete(node.backing);
  }

  /** Where the backing object is from now on. */
  place(node: Node, parent: Node | undefined, name: Buffer): void {
    const old = node.parent;
    if (parent !== undefined) parent.children++;
    node.parent = parent;
    node.name = name;
    if (old !== undefined) {
      old.children--;
      this.settle(old);
    }
  }

  /** The kernel has been told of the object once more. */
  remember(id: number): void {
    if (id <= this.rowCount) {
      if (id <= this.counts.length) this.counts[id - 1]!++;
      return;
    }
    const node = this.records.get(id);
    if (node !== undefined) node.lookups++;
  }

  lookupsOf(node: Node): number {
    return node.id <= this.rowCount ? (this.counts[node.id - 1] as number) : node.lookups;
  }

  forget(id: number, count: number): void {
    if (id <= this.rowCount) {
      if (id > this.counts.length) return;
      this.counts[id - 1] = Math.max(0, (this.counts[id - 1] as number) - count);
    }
    const node = this.records.get(id);
    if (node === undefined) return;
    if (id > this.rowCount) node.lookups = Math.max(0, node.lookups - count);
    this.settle(node);
  }

  /** Drops a record that nothing refers to any more, and then its parents that were kept only for it. */
  settle(node: Node): void {
    for (let at: Node | undefined = node; at !== undefined; ) {
      if (at.id === 1 || at.children > 0 || at.opens > 0 || this.lookupsOf(at) > 0) return;
      if (this.records.get(at.id) !== at) return;
      this.records.delete(at.id);
      this.forgetBacking(at);
      this.release(at);
      const parent: Node | undefined = at.parent;
      at.parent = undefined;
      if (parent !== undefined) parent.children--;
      at = parent;
    }
  }

  /** Remembers in which lower directory a row was found, for the day it is copied up. */
  noteParent(row: number, directory: number): void {
    this.parents[row] = directory + 1;
  }

  /** The lower directory of {@link noteParent}, or -1. */
  notedParent(row: number): number {
    return (this.parents[row] as number) - 1;
  }

  *[Symbol.iterator](): IterableIterator<Node> {
    yield* this.records.values();
  }
}

/** A record with nothing open and nothing counted. */
export function createNode(
  identity: Pick<Node, "id" | "row" | "type" | "ino" | "backing" | "directory">,
  parent: Node | undefined,
  name: Buffer,
): Node {
  // Spelled out: an object that is spread gets a hidden class of its own, which takes more memory than the record.
  return {
    id: identity.id,
    row: identity.row,
    type: identity.type,
    ino: identity.ino,
    backing: identity.backing,
    directory: identity.directory,
    override: undefined,
    uncapable: false,
    copied: false,
    cost: undefined,
    dataRow: -1,
    parent,
    name,
    fd: -1,
    slot: -1,
    recent: false,
    opens: 0,
    lookups: 0,
    children: 0,
    indexed: false,
    removed: false,
  };
}

/** S_IFMT bits of the backing object. */
export function backingType({ type, override }: Node): number {
  return override === undefined || type === S_IFDIR ? type : S_IFREG;
}

/** A directory part with nothing known of its contents. */
export function createDirectoryPart(lowerRow: number): DirectoryPart {
  return {
    lowerRow,
    listing: undefined,
    subdirectories: -1,
    impure: false,
    group: GROUP_UNKNOWN,
    defaultAcl: false,
    xattrWhiteouts: false,
  };
}
