// The tables of a tree under construction. Layer writer and merge both fill them by the same canonical walk, so that
// equal trees give equal bytes:
// - directories breadth first; in each, entries by (name hash, name bytes); root is row 0;
// - a directory's row is its place in that order; other inodes follow, by their first entry in it;
// - names, targets, owners, xattr sets and contents are numbered by first use in the walk.
import { Heap, powerOfTwo, Records } from "./growable.js";
import * as L from "./layout.js";

/** What an inode record holds; times and sizes as in tree.ts. */
export interface InodeFields {
  /** st_mode, type bits included. */
  mode: number;
  owner: number;
  /** Index of the xattr set plus 1; 0 for none. */
  xattrs: number;
  size: number;
  mtimeSec: number;
  mtimeNsec: number;
  data: number;
  aux: number;
}

/** Fields of zeros, to be filled anew for each inode. */
export function emptyFields(): InodeFields {
  return { mode: 0, owner: 0, xattrs: 0, size: 0, mtimeSec: 0, mtimeNsec: 0, data: 0, aux: 0 };
}

interface Wide {
  readonly owner: number;
  readonly xattrs: number;
  readonly size: number;
  readonly mtimeSec: number;
}

const SECONDS_MIN = -(2 ** 33);
const SECONDS_MAX = 2 ** 33 - 1;
const SIZE_MAX = 2 ** 48 - 1;
const SHORT_MAX = 0xfffe;
const TWO_32 = 0x1_0000_0000;

/** Inode records with their link counts, which are known only at the end, and the values too wide for a record. */
class Inodes {
  readonly records: Records;
  nlink: Uint32Array;
  readonly wide = new Map<number, Wide>();

  constructor(capacity: number) {
    this.records = new Records(8, capacity);
    this.nlink = new Uint32Array(Math.max(1, capacity));
  }

  add(f: InodeFields, nlink: number): number {
    const index = this.records.count;
    const at = this.records.push();
    const w = this.records.words;
    const fits =
      f.owner <= SHORT_MAX &&
      f.xattrs <= SHORT_MAX &&
      f.size <= SIZE_MAX &&
      f.mtimeSec >= SECONDS_MIN &&
      f.mtimeSec <= SECONDS_MAX;
    w[at] = f.mode;
    if (fits) {
      const high = Math.floor(f.mtimeSec / TWO_32);
      w[at + 1] = f.owner | (f.xattrs << 16);
      w[at + 2] = f.size >>> 0;
      w[at + 3] = Math.floor(f.size / TWO_32);
      w[at + 4] = f.mtimeSec >>> 0;
      w[at + 5] = f.mtimeNsec | (high << 30);
    } else {
      w[at + 5] = f.mtimeNsec;
      this.wide.set(index, { owner: f.owner, xattrs: f.xattrs, size: f.size, mtimeSec: f.mtimeSec });
    }
    w[at + 6] = f.data;
    w[at + 7] = f.aux;
    if (index === this.nlink.length) {
      const grown = new Uint32Array(index * 2);
      grown.set(this.nlink);
      this.nlink = grown;
    }
    this.nlink[index] = nlink;
    return index;
  }

  /** Puts link counts in place; rows that do not fit go to `overflow`. */
  finish(firstRow: number, overflow: Records): void {
    const { words, count } = this.records;
    for (let index = 0; index < count; index++) {
      const at = index * 8;
      const nlink = this.nlink[index] as number;
      let wide = this.wide.get(index);
      if (wide === undefined && nlink <= SHORT_MAX) {
        words[at] = (words[at] as number) | (nlink << 16);
        continue;
      }
      wide ??= narrow(words, at);
      words[at + 1] = 0;
      words[at + 2] = 0;
      words[at + 3] = L.INODE_OVERFLOW << 16;
      words[at + 4] = 0;
      words[at + 5] = (words[at + 5] as number) & 0x3fff_ffff;
      const to = overflow.push();
      const o = overflow.words;
      o[to] = firstRow + index;
      o[to + 1] = nlink;
      o[to + 2] = wide.owner;
      o[to + 3] = wide.xattrs;
      o[to + 4] = wide.size >>> 0;
      o[to + 5] = Math.floor(wide.size / TWO_32);
      o[to + 6] = wide.mtimeSec >>> 0;
      o[to + 7] = Math.floor(wide.mtimeSec / TWO_32);
    }
  }
}

function narrow(words: Uint32Array, at: number): Wide {
  const shorts = words[at + 1] as number;
  return {
    owner: shorts & 0xffff,
    xattrs: shorts >>> 16,
    size: (words[at + 2] as number) + ((words[at + 3] as number) & 0xffff) * TWO_32,
    mtimeSec: (words[at + 4] as number) + ((words[at + 5] as number) >> 30) * TWO_32,
  };
}

export class TreeTables {
  readonly directories: Records;
  readonly entries: Records;
  readonly names: Heap;
  readonly targets = new Heap();
  readonly links = new Records(2);
  readonly owners = new Records(2);
  readonly xattrOffsets = new Records(1);
  readonly xattrs = new Heap();
  readonly digests: Heap;
  readonly contents: Records;
  readonly runs = new Records(4);
  private readonly directoryInodes: Inodes;
  private readonly otherInodes: Inodes;
  /** Entry index plus 1 of the first entry with a name, by name hash. */
  private nameSlots: Int32Array;
  private nameCount = 0;
  private readonly ownerIds = new Map<number, Map<number, number>>();
  private readonly xattrIds = new Map<string, number>();

  /** The capacities only save growing. */
  constructor(capacity: {
    entries: number;
    directories: number;
    inodes: number;
    names: number;
    contents: number;
  }) {
    this.directories = new Records(4, capacity.directories + 1);
    this.entries = new Records(4, capacity.entries);
    this.names = new Heap(capacity.names);
    this.digests = new Heap(capacity.contents * L.DIGEST_SIZE);
    this.contents = new Records(4, capacity.contents);
    this.directoryInodes = new Inodes(capacity.directories);
    this.otherInodes = new Inodes(capacity.inodes);
    this.nameSlots = new Int32Array(powerOfTwo(capacity.entries * 2));
    this.xattrOffsets.push();
  }

  /** Adds a directory named by entry `selfEntry` (NONE for the root) and returns its row. */
  addDirectory(parent: number, selfEntry: number, flags: number, inode: InodeFields): number {
    const at = this.directories.push();
    const { words } = this.directories;
    words[at + 1] = parent;
    words[at + 2] = selfEntry;
    words[at + 3] = flags;
    return this.directoryInodes.add(inode, 2);
  }

  /** Adds another inode without names and returns its number among those. */
  addInode(inode: InodeFields): number {
    return this.otherInodes.add(inode, 0);
  }

  /** Entries added from now on belong to directory `row`; rows come in order. */
  beginEntries(row: number): void {
    this.directories.words[row * 4] = this.entries.count;
  }

  /**
   * Adds an entry to directory `directory`. `target` is a directory's row, another inode's number, a link's number,
   * or NONE for a whiteout. Returns the entry's index.
   */
  addEntry(
    directory: number,
    type: number,
    target: number,
    hash: number,
    bytes: Uint8Array,
    start: number,
    end: number,
  ): number {
    const index = this.entries.count;
    const nameOffset = this.internName(index, hash, bytes, start, end);
    const at = this.entries.push();
    const { words } = this.entries;
    words[at] = hash;
    words[at + 1] = target;
    words[at + 2] = nameOffset;
    words[at + 3] = (end - start) | (type << 8);
    if (type === L.EntryType.directory) bump(this.directoryInodes.nlink, directory);
    else if (type < L.EntryType.whiteout) bump(this.otherInodes.nlink, target);
    return index;
  }

  addLink(target: Uint8Array): number {
    const offset = this.targets.append(target);
    const at = this.links.push();
    this.links.words[at] = offset;
    this.links.words[at + 1] = target.length;
    return this.links.count - 1;
  }

  ownerId(uid: number, gid: number): number {
    let groups = this.ownerIds.get(uid);
    if (groups === undefined) {
      groups = new Map();
      this.ownerIds.set(uid, groups);
    }
    let id = groups.get(gid);
    if (id === undefined) {
      const at = this.owners.push();
      this.owners.words[at] = uid;
      this.owners.words[at + 1] = gid;
      id = this.owners.count - 1;
      groups.set(gid, id);
    }
    return id;
  }

  /** Index plus 1 of an encoded xattr set; 0 for no bytes. */
  xattrSet(encoded: Uint8Array): number {
    if (encoded.length === 0) return 0;
    const key = Buffer.from(encoded.buffer, encoded.byteOffset, encoded.length).toString("latin1");
    let id = this.xattrIds.get(key);
    if (id === undefined) {
      this.xattrs.append(encoded);
      const at = this.xattrOffsets.push();
      this.xattrOffsets.words[at] = this.xattrs.length;
      id = this.xattrIds.size + 1;
      this.xattrIds.set(key, id);
    }
    return id;
  }

  /** Adds a content; `runs` are raw offsets with file offsets, for one stored piece its raw offset alone. */
  addContent(
    digest: Uint8Array,
    start: number,
    blob: number,
    rawOffset: number,
    firstRun: number,
    runCount: number,
  ): number {
    this.digests.append(digest, start, start + L.DIGEST_SIZE);
    const at = this.contents.push();
    const { words } = this.contents;
    words[at] = rawOffset >>> 0;
    words[at + 1] = Math.floor(rawOffset / TWO_32) | (blob << 16);
    words[at + 2] = firstRun;
    words[at + 3] = runCount;
    return this.contents.count - 1;
  }

  /** Adds a run of the content to be added next; `rawOffset` undefined for a hole. Returns its index. */
  addRun(blob: number, rawOffset: number | undefined, fileOffset: number): number {
    const at = this.runs.push();
    const { words } = this.runs;
    words[at] = rawOffset === undefined ? 0xffff_ffff : rawOffset >>> 0;
    words[at + 1] = rawOffset === undefined ? 0xffff_ffff : Math.floor(rawOffset / TWO_32) | (blob << 16);
    words[at + 2] = fileOffset >>> 0;
    words[at + 3] = Math.floor(fileOffset / TWO_32);
    return this.runs.count - 1;
  }

  get inodeCount(): number {
    return this.directoryInodes.records.count + this.otherInodes.records.count;
  }

  /** Completes the tables, once, and returns the bytes of each section as pieces; BLOBS and PAGES are not ours. */
  finish(): Record<
    Exclude<L.SectionName, "config" | "blobs" | "frame" | "frameDigest" | "pages">,
    readonly Uint8Array[]
  > {
    const directoryCount = this.directories.count;
    const sentinel = this.directories.push();
    this.directories.words[sentinel] = this.entries.count;
    const { words, count } = this.entries;
    for (let at = 0; at < count * 4; at += 4) {
      const type = ((words[at + 3] as number) >>> 8) & 0xff;
      if (type !== L.EntryType.directory && type < L.EntryType.whiteout) {
        words[at + 1] = (words[at + 1] as number) + directoryCount;
      }
    }
    const overflow = new Records(8, 1);
    this.directoryInodes.finish(0, overflow);
    this.otherInodes.finish(directoryCount, overflow);
    return {
      directory: [this.directories.bytes],
      entry: [this.entries.bytes],
      names: [this.names.bytes],
      inode: [this.directoryInodes.records.bytes, this.otherInodes.records.bytes],
      targets: [this.targets.bytes],
      link: [this.links.bytes],
      owner: [this.owners.bytes],
      overflow: [overflow.bytes],
      xattrOffset: [this.xattrOffsets.bytes],
      xattrs: [this.xattrs.bytes],
      contentDigest: [this.digests.bytes],
      content: [this.contents.bytes],
      run: [this.runs.bytes],
    };
  }

  /** Where the name's bytes are in NAMES; each different name is there once. `entry` is the entry about to be added. */
  private internName(entry: number, hash: number, bytes: Uint8Array, start: number, end: number): number {
    if ((this.nameCount + 1) * 2 > this.nameSlots.length) this.growNames();
    const length = end - start;
    const mask = this.nameSlots.length - 1;
    const { words } = this.entries;
    const { data } = this.names;
    let slot = hash & mask;
    for (let other = this.nameSlots[slot] as number; other !== 0; other = this.nameSlots[slot] as number) {
      const at = (other - 1) * 4;
      if (words[at] === hash && ((words[at + 3] as number) & 0xff) === length) {
        const offset = words[at + 2] as number;
        let i = 0;
        while (i < length && data[offset + i] === bytes[start + i]) i++;
        if (i === length) return offset;
      }
      slot = (slot + 1) & mask;
    }
    this.nameSlots[slot] = entry + 1;
    this.nameCount++;
    return this.names.append(bytes, start, end);
  }

  private growNames(): void {
    const old = this.nameSlots;
    const { words } = this.entries;
    this.nameSlots = new Int32Array(old.length * 2);
    const mask = this.nameSlots.length - 1;
    for (const other of old) {
      if (other === 0) continue;
      let slot = (words[(other - 1) * 4] as number) & mask;
      while (this.nameSlots[slot] !== 0) slot = (slot + 1) & mask;
      this.nameSlots[slot] = other;
    }
  }
}

function bump(counts: Uint32Array, index: number): void {
  counts[index] = (counts[index] as number) + 1;
}
