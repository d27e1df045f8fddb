// An image or a layer as the mount, the merge and the tools see it: tree and data behind one object.
// Opening reads the header and the page digests, whatever the size of the tree. Everything throws Corrupt where the
// file is damaged.
import { dirname } from "node:path";
import { type Digest, digestOf } from "../base/digest.js";
import { Errno, fsError } from "../base/errno.js";
import { SEEK_DATA, SEEK_HOLE } from "../sys/files.js";
import { S_IFMT, S_IFREG } from "../sys/stat.js";
import { type Codec, codecOf } from "./codec.js";
import {
  type Blob,
  type BlobInfo,
  blobOf,
  type ContentRange,
  ContentReader,
  decodeBlobs,
  openBlob,
} from "./content-reader.js";
import { copyTask } from "./copy-task.js";
import { Corrupt } from "./errors.js";
import { FrameCache } from "./frame-cache.js";
import * as L from "./layout.js";
import { mergeLayers } from "./merge.js";
import { Metadata } from "./metadata.js";
import { type BlobSource, fileSource } from "./source.js";
import { TreeReader } from "./tree-reader.js";
import { Verifier } from "./verifier.js";
import type { CopyTask, Elsewhere } from "./work.js";

export type { BlobInfo } from "./content-reader.js";
export type { DirectoryEntry } from "./tree-reader.js";

export interface OpenOptions {
  /** Where the blobs of an index are; beside it unless given. */
  readonly blobDirectory?: string;
  /** Compares each content with its digest before it is first read. */
  readonly verify?: boolean;
}

/** Native memory that {@link Image.read} fills: `address` for the kernel, the same bytes in `bytes` from `start`. */
export interface ReadTarget {
  address: number;
  bytes: Uint8Array;
  start: number;
}

/** Figures of a cache of decoded frames. */
export interface FrameCounts {
  /** Frames in it, and at most. */
  readonly held: number;
  readonly limit: number;
  /** Reads of a frame that was in it. */
  readonly hits: number;
  /** Frames decoded, also ahead of a reader. */
  readonly decoded: number;
}

export class Image extends TreeReader {
  readonly kind: "layer" | "index";
  readonly rootDigest: Digest;
  readonly treeRoot: Digest;
  /** diffID of a layer; of an index sha256 over its layers' root digests. */
  readonly source: Digest;
  /** Blobs of an index in order, bottom layer first; none for a layer. */
  readonly blobs: readonly BlobInfo[];
  private readonly contents: ContentReader;
  private readonly self: BlobSource | undefined;
  private readonly verifier: Verifier | undefined;
  private readonly cache: FrameCache;

  private constructor(
    metadata: Metadata,
    self: BlobSource | undefined,
    cache: FrameCache,
    verify: boolean | undefined,
    open: (number: number) => Blob,
  ) {
    super(metadata);
    const { header } = metadata;
    this.kind = header.kind === L.Kind.layer ? "layer" : "index";
    this.rootDigest = header.rootDigest;
    this.treeRoot = header.treeRoot;
    this.source = digestOf(header.source);
    this.blobs = decodeBlobs(metadata);
    this.self = self;
    this.cache = cache;
    this.contents = new ContentReader(metadata, open);
    this.verifier = verify === true ? new Verifier(this.contents) : undefined;
  }

  /**
   * Opens an index or a layer blob. The blobs of an index are files (see folder.ts) beside it, opened when first read
   * from; {@link openBlobs} opens them all. Throws Corrupt, Unsupported, or Node's system error.
   */
  static open(path: string, options: OpenOptions = {}): Image {
    const source = fileSource(path);
    try {
      return Image.over(
        source,
        Metadata.open(source),
        options.blobDirectory ?? dirname(path),
        options.verify,
      );
    } catch (cause) {
      source.close();
      throw cause;
    }
  }

  /**
   * For the checker: damage that leaves the rest readable is told instead of thrown. `source` stays the caller's.
   * @internal
   */
  static inspect(source: BlobSource, tolerate: (damage: Corrupt) => void): Image {
    const metadata = Metadata.open(source, tolerate);
    metadata.rememberDamage();
    return Image.over(source, metadata, dirname(source.name));
  }

  private static over(source: BlobSource, metadata: Metadata, directory: string, verify?: boolean): Image {
    const cache = new FrameCache();
    const image: Image = new Image(metadata, source, cache, verify, (number) => {
      if (number === 0) return blobOf(source, metadata, cache);
      const info = image.blobs[number - 1];
      if (info === undefined) {
        throw new Corrupt(source.name, "CONTENT", "", `blob ${number} of ${image.blobs.length}`);
      }
      return openBlob(info, directory, cache);
    });
    return image;
  }

  /**
   * Merges layer blobs, bottom first, in memory, and opens the result. Throws as {@link open} and mergeLayers do.
   */
  static stack(paths: readonly string[], { verify }: Pick<OpenOptions, "verify"> = {}): Image {
    const layers: Image[] = [];
    try {
      for (const path of paths) layers.push(Image.open(path));
      const name = paths.join(", ");
      const cache = new FrameCache();
      const blobs = layers.map((layer) => blobOf(layer.self as BlobSource, layer.metadata, cache));
      const metadata = Metadata.whole(name, mergeLayers(layers));
      const image = new Image(metadata, undefined, cache, verify, (number) => {
        const blob = blobs[number - 1];
        if (blob === undefined) throw new Corrupt(name, "CONTENT", "", `blob ${number} of ${blobs.length}`);
        return blob;
      });
      image.openBlobs();
      return image;
    } catch (cause) {
      for (const layer of layers) layer.close();
      throw cause;
    }
  }

  /** The file's length, of an image merged in memory that of its index. */
  get fileSize(): number {
    return this.metadata.header.fileSize;
  }

  /** Sum of file sizes, each inode once. */
  get logicalBytes(): number {
    return this.metadata.header.logicalBytes;
  }

  /** Sum over its layers of {@link logicalBytes}: what they unpack to. A flattened image counts as one layer. */
  get layerBytes(): number {
    if (this.blobs.length === 0) return this.logicalBytes;
    return this.blobs.reduce((sum, _, i) => sum + this.contents.blob(i + 1).logicalBytes, 0);
  }

  /** Bytes of file data stored in this file and, of an index, in its blobs as far as it refers to them. */
  get uniqueBytes(): number {
    return this.metadata.header.uniqueBytes;
  }

  /** How this file's own data is stored. */
  get codec(): Codec {
    return codecOf(this.metadata.header);
  }

  /** Length of the raw address space of this file's own data, and the bytes stored of it. */
  get dataSizes(): { readonly raw: number; readonly stored: number } {
    const { rawSize, dataSize } = this.metadata.header;
    return { raw: rawSize, stored: dataSize };
  }

  /** Whether this is a flattened image: an index that refers to no layers, because it holds all data itself. */
  get isFlat(): boolean {
    return this.kind === "index" && this.metadata.table("blobs").count === 0;
  }

  /** The OCI config that a flattened image holds. Throws Corrupt. */
  get config(): Buffer | undefined {
    if (!this.metadata.has("config")) return undefined;
    const heap = this.metadata.table("config");
    const at = heap.range(0, heap.count);
    return Buffer.from(this.metadata.bytes.subarray(at, at + heap.count));
  }

  get contentCount(): number {
    return this.contents.count;
  }

  /** @internal */
  get contentReader(): ContentReader {
    return this.contents;
  }

  /** Opens every blob of an index now and checks that each is the one meant. Throws as {@link open}. */
  openBlobs(): void {
    for (let number = 1; number <= this.blobs.length; number++) this.contents.blob(number);
  }

  /** Number of a file's content; -1 for an empty file. Throws EISDIR or EINVAL for what is no file. */
  content(row: number): number {
    const type = this.mode(row) & S_IFMT;
    if (type !== S_IFREG) throw fsError(row < this.directoryCount ? "EISDIR" : "EINVAL");
    const content = this.inodeData(row);
    if ((content === L.NONE) !== (this.size(row) === 0)) {
      throw this.inodes.corrupt(row, `${this.size(row)} bytes and content ${content}`);
    }
    if (content === L.NONE) return -1;
    if (content >= this.contents.count)
      throw this.inodes.corrupt(row, `content ${content} of ${this.contents.count}`);
    return content;
  }

  /**
   * Reads up to `length` bytes at `offset`. The count, short only at the end of the file, or a negative errno. Holes
   * are filled with zeros.
   */
  read(row: number, offset: number, out: ReadTarget, length: number): number {
    if ((this.mode(row) & S_IFMT) !== S_IFREG)
      return row < this.directoryCount ? -Errno.EISDIR : -Errno.EINVAL;
    if (offset < 0 || length < 0) return -Errno.EINVAL;
    const content = this.content(row);
    if (content < 0) return 0;
    const size = this.size(row);
    const count = Math.min(length, size - offset);
    if (count <= 0) return 0;
    this.verifier?.check(content, size);
    return this.contents.read(content, size, offset, out, count);
  }

  /** Whether {@link prepare} may find something to do, so that it is worth calling. */
  get prepares(): boolean {
    return this.verifier !== undefined || this.codec.name !== "none" || this.blobs.some(isCompressed);
  }

  /** The cache of decoded frames; undefined where nothing is compressed. */
  get frames(): FrameCounts | undefined {
    const compressed = this.codec.name !== "none" || this.blobs.some(isCompressed);
    return compressed ? this.cache : undefined;
  }

  /** URL of the module whose runTask does in other threads what {@link prepare} and {@link copyTask} give. */
  get helperModule(): string | undefined {
    return this.prepares ? new URL("./work.js", import.meta.url).href : undefined;
  }

  /**
   * Begins elsewhere what reading these bytes would take long for. The key of work that a read should wait for, or 0
   * when it can go ahead: it does itself what is left. With length 0 only
   * what copying the data by {@link dataRanges} needs. Throws Corrupt.
   */
  prepare(row: number, offset: number, length: number, elsewhere: Elsewhere): number {
    if ((this.mode(row) & S_IFMT) !== S_IFREG) return 0;
    const content = this.content(row);
    if (content < 0) return 0;
    const size = this.size(row);
    const verifying = this.verifier?.prepare(content, size, elsewhere) ?? 0;
    if (verifying !== 0) return verifying;
    const count = Math.min(length, size - offset);
    return count <= 0 ? 0 : this.contents.prepare(content, size, offset, count, elsewhere);
  }

  /**
   * The copy of a file's first `size` bytes to the descriptor `to`, which has that size already, as a task for another
   * thread; undefined when that is not the way: see {@link dataRanges}. Throws Corrupt.
   */
  copyTask(row: number, size: number, to: number, sync: boolean): CopyTask | undefined {
    const content = this.content(row);
    return content < 0
      ? undefined
      : copyTask(this.contents, content, this.size(row), Math.min(size, this.size(row)), to, sync);
  }

  /** Position of the next data (SEEK_DATA) or hole (SEEK_HOLE) from `offset` on, or a negative errno. */
  seek(row: number, offset: number, whence: number): number {
    if ((this.mode(row) & S_IFMT) !== S_IFREG) return -Errno.EINVAL;
    if (whence !== SEEK_DATA && whence !== SEEK_HOLE) return -Errno.EINVAL;
    const size = this.size(row);
    if (offset < 0 || offset >= size) return -Errno.ENXIO;
    const content = this.content(row);
    return this.contents.seek(content, size, offset, whence === SEEK_HOLE);
  }

  /** Bytes of a file that are data, not holes. Throws Corrupt, EISDIR or EINVAL. */
  dataBytes(row: number): number {
    const content = this.content(row);
    return content < 0 ? 0 : this.contents.dataBytes(content, this.size(row));
  }

  /**
   * Calls `visit(fd, blobOffset, fileOffset, length)` for each stored range in file order, holes left out. False,
   * without a call, when the bytes do not lie in a file as they are. Throws EISDIR or EINVAL for what is no file.
   */
  dataRanges(
    row: number,
    visit: (fd: number, blobOffset: number, fileOffset: number, length: number) => void,
  ): boolean {
    const content = this.content(row);
    if (content < 0) return true;
    const size = this.size(row);
    this.verifier?.check(content, size);
    const range: ContentRange = { blob: 0, rawOffset: undefined, fileOffset: 0, length: 0 };
    const count = Math.max(1, this.contents.runCount(content));
    for (let run = 0; run < count; run++) {
      this.contents.range(content, run, size, range);
      if (range.rawOffset === undefined) continue;
      const { blob, offset } = this.contents.stored(content, range);
      if (blob.source.fd < 0 || blob.frames !== undefined) return false;
      visit(blob.source.fd, offset, range.fileOffset, range.length);
    }
    return true;
  }

  /** sha256 of a file's bytes, or for a sparse file the digest FORMAT.md defines; undefined for an empty file. */
  contentDigest(row: number): Uint8Array | undefined {
    const content = this.content(row);
    return content < 0 ? undefined : this.contents.digest(content);
  }

  /** Closes the file and the blobs it opened. */
  close(): void {
    this.contents.close();
    this.cache.release();
    this.self?.close();
  }
}

function isCompressed({ codec }: BlobInfo): boolean {
  return codec.name !== "none";
}
