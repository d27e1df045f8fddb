// Layers to one tree: a k-way merge of sorted directories, breadth first, into the tables of an index.
// Rules: the topmost layer wins a name; directories unite down to the first that is opaque, or to what is no
// directory; a whiteout hides what lower layers have and vanishes; a directory's metadata come from the topmost layer
// that describes it. Only names that survive count as links.
// Invariant: the bytes depend on the layers' root digests in their order, and on nothing else. What a hostile layer
// says about names is checked here, because the index vouches for it afterwards.
import { createHash } from "node:crypto";
import { displayName } from "../base/bytes.js";
import { type Digest, digestBytes, digestHex, digestOf } from "../base/digest.js";
import { type ContentRange, encodeBlobs } from "./content-reader.js";
import { Corrupt } from "./errors.js";
import { DigestIndex } from "./growable.js";
import type { Image } from "./image.js";
import * as L from "./layout.js";
import { corruptEntry, entryPath, LinkResolver } from "./links.js";
import { type Cursor, popHeap, pushHeap, sameName } from "./merge-heap.js";
import { compareBytes, nameHash } from "./names.js";
import { sealMetadata } from "./seal.js";
import { emptyFields, TreeTables } from "./tables.js";
import type { DirectoryEntry } from "./tree-reader.js";
import { implied } from "./walk.js";

/** What merging keeps of each layer: its rows and ids in the merged tables, -1 where not there yet. */
interface Layer {
  readonly image: Image;
  /** By row, directories left out. */
  readonly inodes: Int32Array;
  readonly owners: Map<number, number>;
  readonly xattrs: Map<number, number>;
  /** By content: its number among the different contents of all layers. */
  readonly contents: Int32Array;
  /** What may still be taken from the layer's heaps: a sound layer uses each byte and each run once. */
  readonly left: { targets: number; xattrs: number; runs: number };
}

/**
 * Bytes of the index over layer blobs, bottom first; of none it has an empty root. Throws Corrupt for a damaged layer, LinkError for a hard link
 * into nothing, an Error for what is no layer.
 */
export function mergeLayers(layers: readonly Image[]): Uint8Array<ArrayBuffer> {
  if (layers.length > L.MAX_BLOBS) throw new Error(`cannot merge ${layers.length} layers`);
  for (const { kind, metadata } of layers) {
    if (kind !== "layer") throw new Error(`${metadata.file}: not a layer blob`);
  }
  return new Merger(layers).run();
}

/** What an index over these layers is of: sha256 over their root digests, lowest first. */
export function indexSource(layers: readonly Pick<Image, "rootDigest">[]): Digest {
  const key = createHash("sha256");
  for (const { rootDigest } of layers) key.update(digestBytes(rootDigest));
  return digestOf(key.digest());
}

class Merger {
  private readonly layers: readonly Layer[];
  private readonly tables: TreeTables;
  private readonly links: LinkResolver;
  /** All contents of all layers by digest, bottom first: where each lies lowest, and its merged number. */
  private readonly sharedLayer: Int32Array;
  private readonly sharedContent: Int32Array;
  private readonly merged: Int32Array;
  /** By merged number of a content. */
  private readonly sizes: number[] = [];
  /** Directories that make up each merged directory, top first. */
  private readonly partLayer: number[] = [];
  private readonly partRow: number[] = [];
  private readonly firstPart: number[] = [];
  private readonly cursors: Cursor[] = [];
  private readonly heap: Cursor[] = [];
  private readonly group: Cursor[] = [];
  private logicalBytes = 0;
  private uniqueBytes = 0;
  private readonly fields = emptyFields();
  private readonly name: DirectoryEntry = { row: 0, type: 0, bytes: new Uint8Array(0), start: 0, end: 0 };
  private readonly range: ContentRange = { blob: 0, rawOffset: undefined, fileOffset: 0, length: 0 };

  constructor(images: readonly Image[]) {
    this.links = new LinkResolver(images);
    let entries = 0;
    let directories = 0;
    let inodes = 0;
    let names = 0;
    let contents = 0;
    for (const image of images) {
      entries += image.entryTotal;
      directories += image.directoryCount;
      inodes += image.inodeCount;
      names += image.nameBytes;
      contents += image.contentCount;
    }
    this.tables = new TreeTables({ entries, directories, inodes: inodes - directories, names, contents });
    const shared = new DigestIndex(contents);
    this.sharedLayer = new Int32Array(contents);
    this.sharedContent = new Int32Array(contents);
    this.merged = new Int32Array(contents).fill(-1);
    this.layers = images.map((image, layer) => this.share(image, layer, shared));
  }

  run(): Uint8Array<ArrayBuffer> {
    let opaque = false;
    let describing = -1;
    for (let layer = this.layers.length - 1; layer >= 0 && !(opaque && describing >= 0); layer--) {
      const image = this.image(layer);
      if (!opaque) this.addPart(layer, 0);
      if (describing < 0 && !image.isImplied(0)) describing = layer;
      opaque ||= image.isOpaque(0);
    }
    this.firstPart.push(0);
    this.addDirectory(0, L.NONE, describing, 0);
    for (let row = 0; row < this.firstPart.length; row++) {
      this.tables.beginEntries(row);
      this.mergeDirectory(row, this.firstPart[row] as number, this.firstPart[row + 1] ?? this.partRow.length);
    }
    if (!Number.isSafeInteger(this.logicalBytes)) {
      throw new Error(
        `${this.image(this.layers.length - 1).metadata.file}: its files and those below have 2^53 bytes or more together`,
      );
    }
    return sealMetadata(this.tables, {
      kind: L.Kind.index,
      source: Buffer.from(digestHex(indexSource(this.layers.map(({ image }) => image))), "hex"),
      dataSize: 0,
      logicalBytes: this.logicalBytes,
      uniqueBytes: this.uniqueBytes,
      features: this.layers.some(({ image }) => image.codec.name !== "none") ? 1 << L.FEATURE_BLOB_CODECS : 0,
      blobs: encodeBlobs(
        this.layers.map(({ image }) => ({
          source: image.source,
          rootDigest: image.rootDigest,
          codec: image.codec,
          fileSize: image.fileSize,
          rawSize: image.metadata.header.rawSize,
          uniqueBytes: image.uniqueBytes,
        })),
      ),
    });
  }

  private image(layer: number): Image {
    return (this.layers[layer] as Layer).image;
  }

  private share(image: Image, layer: number, shared: DigestIndex): Layer {
    const contents = new Int32Array(image.contentCount);
    const { contentReader } = image;
    const { u32 } = image.metadata;
    for (let content = 0; content < contents.length; content++) {
      const known = shared.size;
      const id = shared.add(u32, contentReader.digestWord(content));
      if (id === known) {
        this.sharedLayer[id] = layer;
        this.sharedContent[id] = content;
      }
      contents[content] = id;
    }
    return {
      image,
      inodes: new Int32Array(image.inodeCount - image.directoryCount).fill(-1),
      owners: new Map(),
      xattrs: new Map(),
      contents,
      left: { targets: image.targetBytes, xattrs: image.xattrTotal, runs: contentReader.runTotal },
    };
  }

  /** Merges parts [first, end) as the entries of merged directory `row`. */
  private mergeDirectory(row: number, first: number, end: number): void {
    const { heap, group } = this;
    heap.length = 0;
    for (let part = first; part < end; part++) {
      const cursor = this.cursor(part - first);
      cursor.layer = this.partLayer[part] as number;
      cursor.directory = this.partRow[part] as number;
      const image = this.image(cursor.layer);
      cursor.next = image.firstEntry(cursor.directory);
      cursor.end = image.lastEntry(cursor.directory, cursor.next);
      cursor.hash = -1;
      if (this.advance(cursor)) pushHeap(heap, cursor);
    }
    while (heap.length > 0) {
      const top = heap[0] as Cursor;
      if (heap.length === 1) {
        // The rest of the last layer needs no comparing.
        group[0] = top;
        group.length = 1;
        this.emit(row);
        if (!this.advance(top)) heap.length = 0;
        continue;
      }
      group.length = 0;
      do {
        group.push(popHeap(heap));
      } while (heap.length > 0 && sameName(heap[0] as Cursor, top));
      this.emit(row);
      for (const cursor of group) if (this.advance(cursor)) pushHeap(heap, cursor);
    }
  }

  private cursor(index: number): Cursor {
    let cursor = this.cursors[index];
    if (cursor === undefined) {
      const bytes = this.name.bytes;
      cursor = {
        layer: 0,
        directory: 0,
        next: 0,
        end: 0,
        hash: 0,
        type: 0,
        entry: 0,
        bytes,
        start: 0,
        nameEnd: 0,
      };
      this.cursors[index] = cursor;
    }
    return cursor;
  }

  /** Moves to the next entry; false at the end. Throws Corrupt for an entry out of order or with a wrong hash. */
  private advance(cursor: Cursor): boolean {
    if (cursor.next >= cursor.end) return false;
    const image = this.image(cursor.layer);
    const { name } = this;
    const entry = cursor.next++;
    image.entryName(entry, name);
    const hash = image.entryHash(entry);
    if (hash !== nameHash(name.bytes, name.start, name.end)) {
      throw corruptEntry(image, cursor.directory, entry, "the hash is not that of the name");
    }
    const order =
      hash - cursor.hash ||
      compareBytes(name.bytes, name.start, name.end, cursor.bytes, cursor.start, cursor.nameEnd);
    if (order <= 0) throw corruptEntry(image, cursor.directory, entry, "out of order");
    cursor.hash = hash;
    cursor.entry = entry;
    cursor.type = name.type;
    cursor.bytes = name.bytes;
    cursor.start = name.start;
    cursor.nameEnd = name.end;
    return true;
  }

  /** Adds what is visible of the group, cursors on the same name, top first. */
  private emit(row: number): void {
    const top = this.group[0] as Cursor;
    const { tables } = this;
    let target: number;
    let type = top.type;
    if (type === L.EntryType.whiteout) return;
    if (type === L.EntryType.directory) {
      target = this.directory(row);
    } else {
      let { layer } = top;
      let source: number;
      if (type === L.EntryType.link) {
        const found = this.links.resolve(layer, top.directory, top.entry);
        layer = found.layer;
        source = found.row;
      } else source = this.image(layer).entryRow(top.directory, top.entry);
      target = this.inode(layer, source);
      type = this.image(layer).mode(source) >>> 12;
    }
    tables.addEntry(row, type, target, top.hash, top.bytes, top.start, top.nameEnd);
  }

  /**
   * Adds the directory that the group makes, as an entry of `row`. Its parts end at an opaque one; its metadata come
   * from the first layer that describes it, which may lie below that. Throws when a directory that is only implied
   * meets something else below: its entries would be placed through a symlink, or into a file.
   */
  private directory(row: number): number {
    this.firstPart.push(this.partRow.length);
    let opaque = false;
    let describing = -1;
    let describingRow = 0;
    for (const { layer, directory, entry, type } of this.group) {
      if (type === L.EntryType.whiteout) break;
      if (type !== L.EntryType.directory) {
        if (describing >= 0) break;
        const top = this.group[0] as Cursor;
        const image = this.image(top.layer);
        const path = displayName(entryPath(image, top.directory, top.entry));
        const what = type === L.EntryType.symlink ? "a symlink" : "not a directory";
        throw new Error(
          `${image.metadata.file}: it has entries in ${path}, which is ${what} in the layers below`,
        );
      }
      const image = this.image(layer);
      const child = image.entryRow(directory, entry);
      if (!opaque) this.addPart(layer, child);
      if (describing < 0 && !image.isImplied(child)) {
        describing = layer;
        describingRow = child;
      }
      opaque ||= image.isOpaque(child);
      if (opaque && describing >= 0) break;
    }
    return this.addDirectory(row, this.tables.entries.count, describing, describingRow);
  }

  private addPart(layer: number, row: number): void {
    this.partLayer.push(layer);
    this.partRow.push(row);
  }

  /** Adds a directory with the metadata of `row` in `layer`, or where that is -1 those of one nobody describes. */
  private addDirectory(parent: number, selfEntry: number, layer: number, row: number): number {
    const { fields } = this;
    if (layer >= 0) {
      this.common(layer, row);
      return this.tables.addDirectory(parent, selfEntry, 0, fields);
    }
    fields.mode = 0o040000 | implied.mode;
    fields.owner = this.tables.ownerId(implied.uid, implied.gid);
    fields.xattrs = 0;
    fields.size = 0;
    fields.mtimeSec = implied.mtimeSec;
    fields.mtimeNsec = implied.mtimeNsec;
    fields.data = 0;
    fields.aux = 0;
    return this.tables.addDirectory(parent, selfEntry, 0, fields);
  }

  private common(layer: number, row: number): void {
    const { fields } = this;
    const { image, owners, xattrs } = this.layers[layer] as Layer;
    const ownerIndex = image.ownerIndex(row);
    let owner = owners.get(ownerIndex);
    if (owner === undefined) {
      owner = this.tables.ownerId(image.uid(row), image.gid(row));
      owners.set(ownerIndex, owner);
    }
    const set = image.xattrIndex(row);
    let xattrSet = set === 0 ? 0 : xattrs.get(set);
    if (xattrSet === undefined) {
      // Decoded for its checks only.
      image.xattrs(row);
      const encoded = image.xattrBytes(set);
      this.take(layer, "xattrs", encoded.length);
      xattrSet = this.tables.xattrSet(encoded);
      xattrs.set(set, xattrSet);
    }
    fields.mode = image.mode(row);
    fields.owner = owner;
    fields.xattrs = xattrSet;
    fields.size = 0;
    fields.mtimeSec = image.mtimeSec(row);
    fields.mtimeNsec = image.mtimeNsec(row);
    fields.data = 0;
    fields.aux = 0;
  }

  /** Refuses a layer whose records share what they must not: it could make an index of any size. */
  private take(layer: number, what: keyof Layer["left"], count: number): void {
    const { image, left } = this.layers[layer] as Layer;
    left[what] -= count;
    if (left[what] < 0) {
      throw new Corrupt(image.metadata.file, what.toUpperCase(), "", "used more than once");
    }
  }

  /** Number in the merged tables of a layer's inode that is no directory. */
  private inode(layer: number, row: number): number {
    const { image, inodes } = this.layers[layer] as Layer;
    const index = row - image.directoryCount;
    const known = inodes[index] as number;
    if (known >= 0) return known;
    const { fields } = this;
    this.common(layer, row);
    switch (fields.mode >>> 12) {
      case L.EntryType.file:
        fields.size = image.size(row);
        fields.data = this.content(layer, image.content(row), fields.size);
        this.logicalBytes += fields.size;
        break;
      case L.EntryType.symlink: {
        const target = image.symlinkTarget(row);
        this.take(layer, "targets", target.length);
        fields.data = this.tables.targets.append(target);
        fields.aux = target.length;
        fields.size = target.length;
        break;
      }
      default:
        fields.data = image.rdev(row);
    }
    const number = this.tables.addInode(fields);
    inodes[index] = number;
    return number;
  }

  /** Merged number of a layer's content, at its lowest copy. */
  private content(layer: number, content: number, size: number): number {
    if (content < 0) return L.NONE;
    const shared = (this.layers[layer] as Layer).contents[content] as number;
    const known = this.merged[shared] as number;
    if (known >= 0) {
      // Its runs were placed for one size: a file of another would read past them.
      if (this.sizes[known] !== size) {
        const { contentReader } = this.image(layer);
        throw contentReader.corrupt(
          content,
          `${size} bytes, but ${this.sizes[known]} where its digest was met before`,
        );
      }
      return known;
    }
    const lowest = this.sharedLayer[shared] as number;
    const source = this.sharedContent[shared] as number;
    const reader = this.image(lowest).contentReader;
    const count = reader.runCount(source);
    const blob = lowest + 1;
    const { range, tables } = this;
    const firstRun = count > 1 ? tables.runs.count : 0;
    if (count > 1) this.take(lowest, "runs", count);
    for (let run = 0; run < Math.max(1, count); run++) {
      reader.range(source, run, size, range);
      if (range.rawOffset !== undefined) {
        // `stored` refuses another blob than the layer itself, because a layer lists none.
        reader.stored(source, range);
        this.uniqueBytes += range.length;
      }
      if (count > 1) tables.addRun(blob, range.rawOffset, range.fileOffset);
    }
    const { bytes } = this.image(lowest).metadata;
    const digest = reader.digestWord(source) * 4;
    const rawOffset = count === 1 ? (range.rawOffset as number) : 0;
    const id = tables.addContent(bytes, digest, count === 1 ? blob : 0, rawOffset, firstRun, count);
    this.merged[shared] = id;
    this.sizes[id] = size;
    return id;
  }
}
