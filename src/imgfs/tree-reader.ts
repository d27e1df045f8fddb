// Reading the tree of an image: rows in, plain numbers out. Nothing is decoded ahead and nothing allocated on the way
// of lookup, attributes and listing.
// A file may be hostile with digests that fit: each function checks the records it uses. Two checks make every walk
// end: a directory's row is above its parent's, and a directory is named by the one entry its record points back to.
import { LRUCache } from "lru-cache";
import { fsError } from "../base/errno.js";
import { S_IFBLK, S_IFCHR, S_IFDIR, S_IFLNK, S_IFMT } from "../sys/stat.js";
import { Corrupt } from "./errors.js";
import * as L from "./layout.js";
import type { Metadata, Table } from "./metadata.js";
import { compareBytes, nameHash, nameProblem } from "./names.js";
import type { Xattr } from "./tree.js";
import { decodeXattrs } from "./xattrs.js";

/** One entry of a directory; the name is bytes [start, end). Owned by the caller and reused. */
export interface DirectoryEntry {
  /** -1 for a whiteout or a link to a lower layer. */
  row: number;
  /** DT_*, or in a layer whiteout (14) or link (15). */
  type: number;
  bytes: Uint8Array;
  start: number;
  end: number;
}

const XATTR_CACHE_BYTES = 1 << 20;
const TWO_32 = 0x1_0000_0000;
/** A bit for each type there may be, by its number in st_mode. */
const INODE_TYPES = (1 << 1) | (1 << 2) | (1 << 4) | (1 << 6) | (1 << 8) | (1 << 10);
const ENTRY_TYPES = INODE_TYPES | (1 << L.EntryType.whiteout) | (1 << L.EntryType.link);

export class TreeReader {
  /** @internal */
  readonly metadata: Metadata;
  readonly inodeCount: number;
  readonly directoryCount: number;
  protected readonly inodes: Table;
  private readonly isLayer: boolean;
  private readonly bytes: Uint8Array;
  private readonly u16: Uint16Array;
  private readonly u32: Uint32Array;
  private readonly directories: Table;
  private readonly entries: Table;
  private readonly names: Table;
  private readonly targets: Table;
  private readonly links: Table;
  private readonly owners: Table;
  private readonly overflow: Table;
  private readonly xattrOffsets: Table;
  private readonly xattrHeap: Table;
  private readonly xattrCache = new LRUCache<number, readonly Xattr[]>({ maxSize: XATTR_CACHE_BYTES });

  constructor(metadata: Metadata) {
    this.metadata = metadata;
    this.isLayer = metadata.header.kind === L.Kind.layer;
    this.bytes = metadata.bytes;
    this.u16 = metadata.u16;
    this.u32 = metadata.u32;
    this.directories = metadata.table("directory");
    this.entries = metadata.table("entry");
    this.names = metadata.table("names");
    this.inodes = metadata.table("inode");
    this.targets = metadata.table("targets");
    this.links = metadata.table("link");
    this.owners = metadata.table("owner");
    this.overflow = metadata.table("overflow");
    this.xattrOffsets = metadata.table("xattrOffset");
    this.xattrHeap = metadata.table("xattrs");
    this.inodeCount = this.inodes.count;
    this.directoryCount = this.directories.count - 1;
    if (this.directoryCount < 1)
      throw new Corrupt(metadata.file, "DIRECTORY", "record 0", "there is no root");
    if (this.inodeCount < this.directoryCount) {
      throw new Corrupt(
        metadata.file,
        "INODE",
        "",
        `${this.inodeCount} inodes, ${this.directoryCount} directories`,
      );
    }
  }

  get entryTotal(): number {
    return this.entries.count;
  }

  /** Bytes of TARGETS. */
  get targetBytes(): number {
    return this.targets.count;
  }

  /** Bytes of XATTRS. */
  get xattrTotal(): number {
    return this.xattrHeap.count;
  }

  /** Bytes of NAMES. */
  get nameBytes(): number {
    return this.names.count;
  }

  /** Row of the name in bytes [start, end), or -1; whiteouts and links of a layer are not found. */
  lookup(directory: number, bytes: Uint8Array, start: number, end: number): number {
    const index = this.find(directory, bytes, start, end);
    return index < 0 ? -1 : this.entryRow(directory, index);
  }

  /** Number in ENTRY of the name, or -1. */
  find(directory: number, bytes: Uint8Array, start: number, end: number): number {
    const length = end - start;
    const { u32 } = this;
    let low = this.firstEntry(directory);
    let high = this.lastEntry(directory, low);
    if (length === 0 || length > L.NAME_MAX) return -1;
    const hash = nameHash(bytes, start, end);
    while (low < high) {
      const middle = (low + high) >>> 1;
      const at = this.entries.at(middle);
      const other = u32[at >> 2] as number;
      if (other < hash) low = middle + 1;
      else if (other > hash) high = middle;
      else {
        const otherLength = this.bytes[at + L.EntryRecord.nameLength] as number;
        const name = this.names.range(u32[(at + L.EntryRecord.nameOffset) >> 2] as number, otherLength);
        const order = compareBytes(this.bytes, name, name + otherLength, bytes, start, end);
        if (order === 0) return middle;
        if (order < 0) low = middle + 1;
        else high = middle;
      }
    }
    return -1;
  }

  /** First number in ENTRY of a directory. Throws Corrupt for a row there is not, ENOTDIR for another inode. */
  firstEntry(directory: number): number {
    return this.u32[this.directoryAt(directory) >> 2] as number;
  }

  /** Number in ENTRY after the directory's last; `first` is its first. */
  lastEntry(directory: number, first: number): number {
    const last = this.u32[this.directories.at(directory + 1) >> 2] as number;
    if (last < first || last > this.entries.count) {
      throw this.directories.corrupt(directory, `entries ${first} to ${last} of ${this.entries.count}`);
    }
    return last;
  }

  entryCount(directory: number): number {
    const first = this.firstEntry(directory);
    return this.lastEntry(directory, first) - first;
  }

  /** Entry `index` of a directory, in the stable order of the table. Throws Corrupt when there is none. */
  entry(directory: number, index: number, out: DirectoryEntry): void {
    const first = this.firstEntry(directory);
    const at = first + index;
    if (!(index >= 0 && at < this.lastEntry(directory, first))) {
      throw this.directories.corrupt(directory, `no entry ${index}`);
    }
    this.entryName(at, out);
    out.row = this.entryRow(directory, at);
  }

  /** Fills type and name of entry `index` of ENTRY; the row is left alone. Throws Corrupt for what is no name. */
  entryName(index: number, out: DirectoryEntry): void {
    const at = this.entries.at(index);
    const length = this.bytes[at + L.EntryRecord.nameLength] as number;
    const start = this.names.range(this.u32[(at + L.EntryRecord.nameOffset) >> 2] as number, length);
    const problem = nameProblem(this.bytes, start, start + length);
    if (problem !== undefined) throw this.entries.corrupt(index, problem);
    out.type = this.bytes[at + L.EntryRecord.type] as number;
    out.bytes = this.bytes;
    out.start = start;
    out.end = start + length;
  }

  entryType(index: number): number {
    return this.bytes[this.entries.at(index) + L.EntryRecord.type] as number;
  }

  entryHash(index: number): number {
    return this.u32[this.entries.at(index) >> 2] as number;
  }

  /** Row that entry `index` of `directory` names, checked; -1 for a whiteout or link. */
  entryRow(directory: number, index: number): number {
    const at = this.entries.at(index);
    const row = this.u32[(at + L.EntryRecord.row) >> 2] as number;
    const type = this.bytes[at + L.EntryRecord.type] as number;
    if (type === L.EntryType.directory) {
      if (row >= this.directoryCount || row <= directory) {
        throw this.entries.corrupt(index, `directory row ${row} in directory ${directory}`);
      }
      const record = this.directories.at(row) >> 2;
      if (this.u32[record + 1] !== directory || this.u32[record + 2] !== index) {
        throw this.directories.corrupt(
          row,
          `named by entry ${index} of directory ${directory}, but points elsewhere`,
        );
      }
      return row;
    }
    if (((ENTRY_TYPES >> type) & 1) === 0 || type > L.EntryType.link)
      throw this.entries.corrupt(index, `type ${type}`);
    if (type >= L.EntryType.whiteout) {
      if (this.isLayer) return -1;
      throw this.entries.corrupt(index, `type ${type} in an index`);
    }
    if (row < this.directoryCount || row >= this.inodeCount) {
      throw this.entries.corrupt(index, `inode row ${row}`);
    }
    const mode = this.u16[this.inodes.at(row) >> 1] as number;
    if (mode >>> 12 !== type)
      throw this.entries.corrupt(index, `type ${type}, but the inode's is ${mode >>> 12}`);
    return row;
  }

  /** Row of the directory that holds a directory; the root's is the root. */
  parent(directory: number): number {
    const parent = this.u32[(this.directoryAt(directory) >> 2) + 1] as number;
    if (directory === 0 ? parent !== 0 : parent >= directory) {
      throw this.directories.corrupt(directory, `parent ${parent}`);
    }
    return parent;
  }

  /** Path of a directory from the root, without a slash in front: empty for the root. */
  path(directory: number): Buffer {
    const names: Buffer[] = [];
    const out: DirectoryEntry = { row: 0, type: 0, bytes: this.bytes, start: 0, end: 0 };
    for (let at = directory; at !== 0; ) {
      const parent = this.parent(at);
      this.entryName(this.u32[(this.directoryAt(at) >> 2) + 2] as number, out);
      names.push(slash, Buffer.from(out.bytes.subarray(out.start, out.end)));
      at = parent;
    }
    return Buffer.concat(names.reverse().slice(0, -1));
  }

  /** True for a directory of a layer that hides what lower layers have in it. */
  isOpaque(directory: number): boolean {
    return ((this.u32[(this.directoryAt(directory) >> 2) + 3] as number) & L.DIRECTORY_OPAQUE) !== 0;
  }

  /** True for a directory of a layer that only stands for the way to what is below. */
  isImplied(directory: number): boolean {
    return ((this.u32[(this.directoryAt(directory) >> 2) + 3] as number) & L.DIRECTORY_IMPLIED) !== 0;
  }

  /** Target path of a layer's link entry, `index` in ENTRY. */
  linkTarget(index: number): Uint8Array {
    const link = this.u32[(this.entries.at(index) + L.EntryRecord.row) >> 2] as number;
    const at = this.links.at(link) >> 2;
    const length = this.u32[at + 1] as number;
    if (length > L.PATH_MAX) throw this.links.corrupt(link, `target of ${length} bytes`);
    const start = this.targets.range(this.u32[at] as number, length);
    return this.bytes.subarray(start, start + length);
  }

  /** st_mode, type bits included. */
  mode(row: number): number {
    const mode = this.u16[this.inodes.at(row) >> 1] as number;
    const type = mode & S_IFMT;
    if ((type === S_IFDIR) !== row < this.directoryCount || ((INODE_TYPES >> (type >>> 12)) & 1) === 0) {
      throw this.inodes.corrupt(row, `mode 0${mode.toString(8)}`);
    }
    return mode;
  }

  uid(row: number): number {
    return this.u32[this.owners.at(this.ownerIndex(row)) >> 2] as number;
  }

  gid(row: number): number {
    return this.u32[(this.owners.at(this.ownerIndex(row)) >> 2) + 1] as number;
  }

  ownerIndex(row: number): number {
    const at = this.inodes.at(row);
    if (this.isWide(at)) return this.u32[(this.wideAt(row) >> 2) + 2] as number;
    return this.u16[(at + L.InodeRecord.owner) >> 1] as number;
  }

  /** Names of the inode in this tree; for a directory 2 and its subdirectories. */
  nlink(row: number): number {
    const at = this.inodes.at(row);
    if (this.isWide(at)) return this.u32[(this.wideAt(row) >> 2) + 1] as number;
    return this.u16[(at + L.InodeRecord.nlink) >> 1] as number;
  }

  /** Bytes of a file or symlink; 0 for others. */
  size(row: number): number {
    const at = this.inodes.at(row);
    const { u32 } = this;
    if (!this.isWide(at)) {
      return (u32[(at + 8) >> 2] as number) + (this.u16[(at + 12) >> 1] as number) * TWO_32;
    }
    const wide = this.wideAt(row) >> 2;
    const size = (u32[wide + 4] as number) + (u32[wide + 5] as number) * TWO_32;
    if (size > Number.MAX_SAFE_INTEGER) throw this.overflow.corrupt(row, `size ${size}`);
    return size;
  }

  /** Seconds since 1970, may be negative. */
  mtimeSec(row: number): number {
    const at = this.inodes.at(row);
    const { u32 } = this;
    if (!this.isWide(at)) {
      return (u32[(at + 16) >> 2] as number) + ((u32[(at + 20) >> 2] as number) >> 30) * TWO_32;
    }
    const wide = this.wideAt(row) >> 2;
    const seconds = (u32[wide + 6] as number) + ((u32[wide + 7] as number) | 0) * TWO_32;
    if (!Number.isSafeInteger(seconds)) throw this.overflow.corrupt(row, `mtime ${seconds}`);
    return seconds;
  }

  mtimeNsec(row: number): number {
    const nsec = (this.u32[(this.inodes.at(row) + 20) >> 2] as number) & 0x3fff_ffff;
    if (nsec >= 1e9) throw this.inodes.corrupt(row, `${nsec} nanoseconds`);
    return nsec;
  }

  /** Device number in the kernel's 32-bit encoding; 0 for what is no device. */
  rdev(row: number): number {
    const type = this.mode(row) & S_IFMT;
    return type === S_IFCHR || type === S_IFBLK ? this.inodeData(row) : 0;
  }

  /** Throws EINVAL for what is no symlink. The bytes are the image's own: not to be changed. */
  symlinkTarget(row: number): Uint8Array {
    const mode = this.mode(row);
    if ((mode & S_IFMT) !== S_IFLNK) throw fsError("EINVAL");
    if ((mode & 0o7777) !== 0o777) throw this.inodes.corrupt(row, "mode of a symlink is not 0777");
    const at = this.inodes.at(row);
    const length = this.u32[(at + 28) >> 2] as number;
    if (length === 0 || length > L.PATH_MAX)
      throw this.inodes.corrupt(row, `symlink target of ${length} bytes`);
    const start = this.targets.range(this.u32[(at + 24) >> 2] as number, length);
    const target = this.bytes.subarray(start, start + length);
    if (target.includes(0)) throw this.inodes.corrupt(row, "symlink target with a NUL");
    return target;
  }

  /** Undefined when there are none. */
  xattrs(row: number): readonly Xattr[] | undefined {
    const set = this.xattrIndex(row);
    if (set === 0) return undefined;
    const cached = this.xattrCache.get(set);
    if (cached !== undefined) return cached;
    const encoded = this.xattrBytes(set);
    const xattrs = decodeXattrs(encoded);
    if (xattrs === undefined) throw this.xattrOffsets.corrupt(set - 1, "no set of extended attributes");
    this.xattrCache.set(set, xattrs, { size: encoded.length });
    return xattrs;
  }

  /** Number of the inode's xattr set plus 1, 0 for none. */
  xattrIndex(row: number): number {
    const at = this.inodes.at(row);
    if (this.isWide(at)) return this.u32[(this.wideAt(row) >> 2) + 3] as number;
    return this.u16[(at + L.InodeRecord.xattrs) >> 1] as number;
  }

  /** The encoded set; `set` as {@link xattrIndex} gives it. */
  xattrBytes(set: number): Uint8Array {
    const start = this.u32[this.xattrOffsets.at(set - 1) >> 2] as number;
    const end = this.u32[this.xattrOffsets.at(set) >> 2] as number;
    const at = this.xattrHeap.range(start, end - start);
    return this.bytes.subarray(at, at + (end - start));
  }

  /** Field `data` of an inode. */
  protected inodeData(row: number): number {
    return this.u32[(this.inodes.at(row) + L.InodeRecord.data) >> 2] as number;
  }

  private directoryAt(directory: number): number {
    if (directory >= this.directoryCount && directory < this.inodeCount) throw fsError("ENOTDIR");
    if (directory === this.directoryCount) throw this.directories.corrupt(directory, "out of range");
    return this.directories.at(directory);
  }

  private isWide(at: number): boolean {
    return ((this.u16[(at + L.InodeRecord.flags) >> 1] as number) & L.INODE_OVERFLOW) !== 0;
  }

  /** Position of the row's OVERFLOW record. */
  private wideAt(row: number): number {
    let low = 0;
    let high = this.overflow.count;
    while (low < high) {
      const middle = (low + high) >>> 1;
      const at = this.overflow.at(middle);
      const other = this.u32[at >> 2] as number;
      if (other === row) return at;
      if (other < row) low = middle + 1;
      else high = middle;
    }
    throw this.inodes.corrupt(row, "has no record in OVERFLOW");
  }
}

const slash = Buffer.from("/");
