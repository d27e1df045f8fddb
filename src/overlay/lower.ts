// The lower tree: what the overlay asks of an image, and the questions it answers from it alone.
// Never changes; a row is an object's identity for good. Device nodes are stored but, unless the mount shows them,
// absent from every answer here except `covers`: a name they hold still needs a whiteout when it is removed.
import { type Name, nameOf } from "../base/bytes.js";
import type { Digest } from "../base/digest.js";
import type { Attr } from "../fuse/operations.js";
import type { FrameCounts } from "../imgfs/image.js";
import type { Xattr } from "../imgfs/tree.js";
import type { Elsewhere, Task } from "../imgfs/work.js";
import { S_IFBLK, S_IFCHR, S_IFDIR, S_IFLNK, S_IFMT, S_IFREG } from "../sys/stat.js";
import { mapProblem, type OwnerMap, ownerProblem, shownId } from "./id-map.js";
import { type ShownXattrs, showXattrs } from "./id-xattrs.js";

/** One entry of a lower directory; the record is the caller's and is refilled by each call. */
export interface LowerEntry {
  row: number;
  /** DT_* */
  type: number;
  bytes: Uint8Array;
  start: number;
  end: number;
}

/** Where {@link LowerTree.read} puts bytes. */
export interface ReadTarget {
  address: number;
  bytes: Uint8Array;
  start: number;
}

/** The image as the overlay sees it: rows of inodes, row 0 the root. `Image` of src/imgfs is one. */
export interface LowerTree {
  readonly inodeCount: number;
  readonly treeRoot: Digest;
  lookup(directory: number, bytes: Uint8Array, start: number, end: number): number;
  mode(row: number): number;
  uid(row: number): number;
  gid(row: number): number;
  nlink(row: number): number;
  size(row: number): number;
  mtimeSec(row: number): number;
  mtimeNsec(row: number): number;
  rdev(row: number): number;
  parent(directory: number): number;
  entryCount(directory: number): number;
  entry(directory: number, index: number, out: LowerEntry): void;
  symlinkTarget(row: number): Uint8Array;
  xattrs(row: number): readonly Xattr[] | undefined;
  read(row: number, offset: number, out: ReadTarget, length: number): number;
  seek(row: number, offset: number, whence: number): number;
  /** True when {@link prepare} may find something to do. */
  readonly prepares?: boolean;
  /** Has begun elsewhere what reading these bytes needs, with length 0 what {@link dataRanges} does; see `Image`. */
  prepare?(row: number, offset: number, length: number, elsewhere: Elsewhere): number;
  /** The copy of a file's first bytes to a descriptor as work for the helper module; undefined when it is not one. */
  copyTask?(row: number, size: number, to: number, sync: boolean): Task | undefined;
  /** Figures of the cache of decoded frames, where there is one. */
  readonly frames?: FrameCounts | undefined;
  /** Does such work in helper threads. */
  readonly helperModule?: string | undefined;
  /** Bytes of a file that are data, not holes. */
  dataBytes(row: number): number;
  dataRanges(
    row: number,
    visit: (fd: number, blobOffset: number, fileOffset: number, length: number) => void,
  ): boolean;
  close(): void;
}

/** A name in a lower directory. */
export interface LowerName {
  readonly directory: number;
  readonly name: Buffer;
}

export interface Lower {
  readonly tree: LowerTree;
  /** The row of a name, or -1; device nodes that are not shown are absent. */
  find(directory: number, bytes: Uint8Array, start: number, end: number): number;
  /** True when the lower directory holds the name, shown or not. */
  covers(directory: number, name: Uint8Array): boolean;
  hidden(row: number): boolean;
  isDirectory(row: number): boolean;
  /** The name by which `directory` holds `row`; undefined when it does not. */
  nameIn(directory: number, row: number): Buffer | undefined;
  /** A directory that holds an object, known after one scan of the whole tree: for when no lookup has told it. */
  findParent(row: number): number;
  /** A path of a row from the image's root. */
  pathOf(row: number): Buffer;
  /** Every name of an object that has several; empty for the others. */
  namesOf(row: number): readonly LowerName[];
  /** The owner that the mount shows, which is a copy's owner where {@link idProblem} has none. */
  uid(row: number): number;
  gid(row: number): number;
  /** The owner that everything shows, copies and new objects too. */
  readonly squash: OwnerMap["squash"];
  /** The xattrs that the mount shows; undefined when there are none. */
  xattrs(row: number): readonly Xattr[] | undefined;
  /** Why a copy of the row would lose an id; undefined when it would not. */
  idProblem(row: number): string | undefined;
  /** The same for an id that a copy cannot keep even beside itself. */
  copyProblem(row: number): string | undefined;
  fillAttr(row: number, attr: Attr): void;
  /** st_blocks: units of 512 bytes in whole blocks of 4 KiB, holes left out, as a copy of the row will have it. */
  blocks(row: number): number;
  /** Bytes of all regular files, each inode once. */
  totalSize(): number;
}

const BLOCK = 4096;

export function createLower(tree: LowerTree, devices: boolean, owners?: OwnerMap): Lower {
  const cursor: LowerEntry = { row: 0, type: 0, bytes: new Uint8Array(0), start: 0, end: 0 };
  let links: Map<number, LowerName[]> | undefined;
  let parents: Int32Array | undefined;
  let total: number | undefined;

  const hidden = (row: number): boolean => {
    if (devices) return false;
    const type = tree.mode(row) & S_IFMT;
    return type === S_IFCHR || type === S_IFBLK;
  };

  const visit = (seen: (directory: number, entry: LowerEntry) => boolean): void => {
    const pending = [0];
    for (let directory = pending.pop(); directory !== undefined; directory = pending.pop()) {
      const count = tree.entryCount(directory);
      for (let i = 0; i < count; i++) {
        tree.entry(directory, i, cursor);
        if (cursor.row < 0) continue;
        if ((tree.mode(cursor.row) & S_IFMT) === S_IFDIR) pending.push(cursor.row);
        else if (!seen(directory, cursor)) return;
      }
    }
  };

  const hardLinks = (): Map<number, LowerName[]> => {
    const map = new Map<number, LowerName[]>();
    visit((directory, { row, bytes, start, end }) => {
      if (tree.nlink(row) < 2) return true;
      const names = map.get(row) ?? [];
      names.push({ directory, name: Buffer.from(bytes.subarray(start, end)) });
      map.set(row, names);
      return true;
    });
    return map;
  };

  const squash = owners?.squash;
  const uid = (row: number): number => {
    if (owners === undefined) return tree.uid(row);
    return squash === undefined ? shownId(owners.user, tree.uid(row)) : squash.uid;
  };
  const gid = (row: number): number => {
    if (owners === undefined) return tree.gid(row);
    return squash === undefined ? shownId(owners.group, tree.gid(row)) : squash.gid;
  };
  // Sets are the image's own objects, shared by the inodes that have the same and cached there.
  const shown = new WeakMap<readonly Xattr[], ShownXattrs>();
  const showOnce = (map: OwnerMap, set: readonly Xattr[]): ShownXattrs => {
    const known = shown.get(set) ?? showXattrs(map, set);
    shown.set(set, known);
    return known;
  };

  const nameIn = (directory: number, row: number): Buffer | undefined => {
    const count = tree.entryCount(directory);
    for (let i = 0; i < count; i++) {
      tree.entry(directory, i, cursor);
      if (cursor.row === row) return Buffer.from(cursor.bytes.subarray(cursor.start, cursor.end));
    }
    return undefined;
  };

  const findParent = (row: number): number => {
    if (parents === undefined) {
      const found = new Int32Array(tree.inodeCount).fill(-1);
      visit((directory, entry) => {
        found[entry.row] = directory;
        return true;
      });
      parents = found;
    }
    return parents[row] ?? -1;
  };

  const isDirectory = (row: number): boolean => (tree.mode(row) & S_IFMT) === S_IFDIR;

  const blocks = (row: number): number => Math.ceil(diskBytes(tree, row) / BLOCK) * (BLOCK / 512);

  return {
    tree,
    hidden,
    blocks,
    uid,
    gid,
    squash,
    xattrs(row) {
      const set = tree.xattrs(row);
      return owners === undefined || set === undefined ? set : showOnce(owners, set).xattrs;
    },
    idProblem(row) {
      if (owners === undefined || squash !== undefined) return undefined;
      const set = tree.xattrs(row);
      const owner = ownerProblem(owners, tree.uid(row), tree.gid(row));
      return owner ?? (set === undefined ? undefined : showOnce(owners, set).problem);
    },
    copyProblem(row) {
      if (owners === undefined || squash !== undefined) return undefined;
      const set = tree.xattrs(row);
      const owner = mapProblem(owners, tree.uid(row), tree.gid(row));
      return owner ?? (set === undefined ? undefined : showOnce(owners, set).problem);
    },
    find(directory, bytes, start, end) {
      const row = tree.lookup(directory, bytes, start, end);
      return row >= 0 && hidden(row) ? -1 : row;
    },
    covers: (directory, name) => tree.lookup(directory, name, 0, name.length) >= 0,
    isDirectory,
    nameIn,
    findParent,
    pathOf(row) {
      const parts: Uint8Array[] = [];
      for (let at = row; at > 0; ) {
        const parent = isDirectory(at) ? tree.parent(at) : findParent(at);
        parts.unshift(Buffer.from("/"), nameIn(parent, at) as Buffer);
        at = parent;
      }
      return Buffer.concat(parts);
    },
    namesOf(row) {
      if (tree.nlink(row) < 2) return [];
      links ??= hardLinks();
      return links.get(row) ?? [];
    },
    fillAttr(row, attr) {
      const mode = tree.mode(row);
      attr.ino = row + 1;
      // A directory's is never 0 to who asks: `test -s` goes by it.
      attr.size = isDirectory(row) ? BLOCK : tree.size(row);
      attr.blocks = blocks(row);
      // Layers give symlinks all sorts of modes; on Linux they have this one, and a copied-up one will.
      attr.mode = (mode & S_IFMT) === S_IFLNK ? S_IFLNK | 0o777 : mode;
      attr.nlink = tree.nlink(row);
      attr.uid = uid(row);
      attr.gid = gid(row);
      attr.rdev = tree.rdev(row);
      attr.blksize = 4096;
      const seconds = tree.mtimeSec(row);
      const nanoseconds = tree.mtimeNsec(row);
      attr.atimeSec = seconds;
      attr.atimeNsec = nanoseconds;
      attr.mtimeSec = seconds;
      attr.mtimeNsec = nanoseconds;
      attr.ctimeSec = seconds;
      attr.ctimeNsec = nanoseconds;
    },
    totalSize() {
      if (total === undefined) {
        total = 0;
        for (let row = 0; row < tree.inodeCount; row++) {
          if ((tree.mode(row) & S_IFMT) === S_IFREG) total += tree.size(row);
        }
      }
      return total;
    },
  };
}

/** What an object takes on a disk, but for its inode. */
function diskBytes(tree: LowerTree, row: number): number {
  const type = tree.mode(row) & S_IFMT;
  if (type === S_IFDIR) return BLOCK;
  return type === S_IFREG ? tree.dataBytes(row) : 0;
}

/** The value of a lower object's xattr, or undefined. */
export function lowerXattr(lower: Lower, row: number, name: Name): Buffer | undefined {
  return lower.xattrs(row)?.find((xattr) => xattr.name === name)?.value;
}

/** A Name from part of a buffer that will be reused. */
export function nameKey(bytes: Uint8Array, start: number, end: number): Name {
  return nameOf(bytes, start, end);
}
