// Reading file data: a content's records to ranges of blobs, ranges to bytes. Blob 0 is the file itself; the blobs of
// an index are opened when first needed, or all at once.
// Invariant: no range is read before it was found inside the raw address space of its blob.
import { existsSync } from "node:fs";
import { join } from "node:path";
import { type Digest, digestHex, digestOf } from "../base/digest.js";
import { Errno } from "../base/errno.js";
import { type Codec, noCodec, parseCodec } from "./codec.js";
import { Corrupt } from "./errors.js";
import { blobFile } from "./folder.js";
import type { FrameCache } from "./frame-cache.js";
import { FrameReader } from "./frame-reader.js";
import { FrameTable } from "./frames.js";
import { type ImageHeader, parseHeader } from "./header.js";
import * as L from "./layout.js";
import { Metadata, type Table } from "./metadata.js";
import { pack, packable, unpack } from "./pack.js";
import { type BlobSource, fileSource } from "./source.js";
import type { Elsewhere } from "./work.js";

/** A blob as the index that refers to it knows it. */
export interface BlobInfo {
  /** diffID of its layer: the name of the file it is found in. */
  readonly source: Digest;
  readonly rootDigest: Digest;
  readonly codec: Codec;
  readonly fileSize: number;
  readonly rawSize: number;
  /** Bytes of file data stored, without padding. */
  readonly uniqueBytes: number;
}

/** An opened blob, ready for its data to be read. */
export interface Blob {
  readonly source: BlobSource;
  readonly dataOffset: number;
  readonly rawSize: number;
  /** Sum of the file sizes of its layer, each inode once. */
  readonly logicalBytes: number;
  /** The way to compressed data; undefined where the raw address space lies in the file as it is. */
  readonly frames: FrameReader | undefined;
}

/** The data of an open file. */
export function blobOf(source: BlobSource, metadata: Metadata, cache: FrameCache): Blob {
  const { codec, dataOffset, rawSize, logicalBytes } = metadata.header;
  const frames =
    codec === L.CODEC_NONE ? undefined : new FrameReader(new FrameTable(metadata), source, cache);
  return { source, dataOffset, rawSize, logicalBytes, frames };
}

/** Bytes of a blob's raw address space into all of `into`. Throws Corrupt, or a system error. */
export function readRaw(blob: Blob, rawOffset: number, into: Uint8Array): void {
  if (blob.frames !== undefined) {
    blob.frames.read(rawOffset, into, 0, into.length);
    return;
  }
  const offset = blob.dataOffset + rawOffset;
  const got = blob.source.readBytes(offset, into);
  if (got < into.length) throw endsHere(blob, offset + got);
}

function endsHere({ source }: Blob, position: number): Corrupt {
  return new Corrupt(source.name, "data", `byte ${position}`, "the file ends here");
}

/** A stretch of a content in file order; `rawOffset` undefined for a hole. */
export interface ContentRange {
  blob: number;
  rawOffset: number | undefined;
  fileOffset: number;
  length: number;
}

/** Content of BLOBS. */
export function encodeBlobs(blobs: readonly BlobInfo[]): Buffer {
  return pack(
    blobs.map((blob) => ({
      source: Buffer.from(digestHex(blob.source), "hex"),
      root: Buffer.from(digestHex(blob.rootDigest), "hex"),
      size: packable(blob.fileSize),
      raw: packable(blob.rawSize),
      unique: packable(blob.uniqueBytes),
      ...(blob.codec.name === "none" ? {} : { codec: blob.codec.name, level: blob.codec.level }),
    })),
  );
}

/** The list in BLOBS; none for a layer. Throws Corrupt. */
export function decodeBlobs(metadata: Metadata): readonly BlobInfo[] {
  const heap = metadata.table("blobs");
  if (heap.count === 0) return [];
  const at = heap.range(0, heap.count);
  const list = unpack(metadata.bytes.subarray(at, at + heap.count));
  if (metadata.header.kind !== L.Kind.index) throw heap.corrupt(0, "a layer refers to no other blob");
  if (!Array.isArray(list) || list.length > L.MAX_BLOBS) throw heap.corrupt(0, "no list of blobs");
  return list.map((item: unknown, i) => {
    const blob = (typeof item === "object" && item !== null ? item : {}) as Record<string, unknown>;
    const digest = (value: unknown): Digest => {
      if (!Buffer.isBuffer(value) || value.length !== 32)
        throw heap.corrupt(0, `blob ${i + 1} without a digest`);
      return digestOf(value);
    };
    const size = (value: unknown): number => {
      const number = typeof value === "bigint" ? Number(value) : value;
      if (!Number.isSafeInteger(number)) throw heap.corrupt(0, `blob ${i + 1} without a size`);
      return number as number;
    };
    const codec = ((): Codec => {
      if (blob["codec"] === undefined && blob["level"] === undefined) return noCodec;
      try {
        if (typeof blob["level"] !== "number") throw new Error("no level");
        return parseCodec(`${String(blob["codec"])}:${String(blob["level"])}`);
      } catch {
        throw heap.corrupt(0, `blob ${i + 1} with an unknown codec`);
      }
    })();
    if (codec.name !== "none" && (metadata.header.features & (1 << L.FEATURE_BLOB_CODECS)) === 0) {
      throw heap.corrupt(0, `blob ${i + 1} has a codec, of which the header says nothing`);
    }
    return {
      source: digest(blob["source"]),
      rootDigest: digest(blob["root"]),
      codec,
      fileSize: size(blob["size"]),
      rawSize: size(blob["raw"]),
      uniqueBytes: size(blob["unique"]),
    };
  });
}

/** Opens a blob for its data and checks that it is the one an index means. Throws Corrupt or a system error. */
export function openBlob(info: BlobInfo, directory: string, cache: FrameCache): Blob {
  const path = join(directory, blobFile(info.source, info.codec));
  if (!existsSync(path)) throw new Error(`${path}: the blob of layer ${info.source} is missing`);
  const source = fileSource(path);
  try {
    const header = readHeader(source);
    if (header.rootDigest !== info.rootDigest) {
      throw new Corrupt(
        source.name,
        "header",
        "",
        `root digest ${header.rootDigest}, not ${info.rootDigest}`,
      );
    }
    // Without a codec nothing of its metadata is needed.
    if (header.codec !== L.CODEC_NONE) return blobOf(source, Metadata.open(source), cache);
    const { dataOffset, rawSize, logicalBytes } = header;
    return { source, dataOffset, rawSize, logicalBytes, frames: undefined };
  } catch (cause) {
    source.close();
    throw cause;
  }
}

/** The header alone. Throws Corrupt or Unsupported. */
function readHeader(source: BlobSource): ImageHeader {
  const page = new Uint8Array(Math.min(L.HEADER_SIZE, source.size));
  return parseHeader(page.subarray(0, Math.max(0, source.readBytes(0, page))), source.size, source.name);
}

const TWO_32 = 0x1_0000_0000;

export class ContentReader {
  readonly count: number;
  private readonly metadata: Metadata;
  private readonly contents: Table;
  private readonly runs: Table;
  private readonly digests: Table;
  private readonly open: (number: number) => Blob;
  private readonly blobs: Blob[] = [];

  /** `open` gives blob `number`, 0 being the file itself; it throws for one there is not. */
  constructor(metadata: Metadata, open: (number: number) => Blob) {
    this.metadata = metadata;
    this.contents = metadata.table("content");
    this.runs = metadata.table("run");
    this.digests = metadata.table("contentDigest");
    this.open = open;
    this.count = this.contents.count;
    if (this.digests.count !== this.count) {
      throw new Corrupt(
        metadata.file,
        "CONTENT_DIGEST",
        "",
        `${this.digests.count} digests, ${this.count} contents`,
      );
    }
  }

  blob(number: number): Blob {
    const known = this.blobs[number];
    if (known !== undefined) return known;
    const blob = this.open(number);
    this.blobs[number] = blob;
    return blob;
  }

  /** Closes every blob that was opened. */
  close(): void {
    for (const blob of this.blobs) blob?.source.close();
    this.blobs.length = 0;
  }

  /** The digest of a content: a view of the image's own bytes. */
  digest(content: number): Uint8Array {
    const at = this.digests.at(content);
    return this.metadata.bytes.subarray(at, at + L.DIGEST_SIZE);
  }

  /** Where the digest begins in the image's 32-bit words. */
  digestWord(content: number): number {
    return this.digests.at(content) >> 2;
  }

  /** Damage of a content's record. */
  corrupt(content: number, problem: string): Corrupt {
    return this.contents.corrupt(content, problem);
  }

  /** First of the content's records in RUN. */
  firstRun(content: number): number {
    return this.metadata.u32[(this.contents.at(content) >> 2) + 2] as number;
  }

  get runTotal(): number {
    return this.runs.count;
  }

  /** Runs of a content: 0 for one hole, 1 for one stored piece. Throws Corrupt when they are not all there. */
  runCount(content: number): number {
    const at = this.contents.at(content) >> 2;
    const count = this.metadata.u32[at + 3] as number;
    if (count > 1 && (this.metadata.u32[at + 2] as number) + count > this.runs.count) {
      throw this.contents.corrupt(content, `${count} runs reach beyond the ${this.runs.count} there are`);
    }
    return count;
  }

  /** Run `index` of a content of `size` bytes. Throws Corrupt for one that is empty or out of order. */
  range(content: number, index: number, size: number, out: ContentRange): void {
    const { u16, u32 } = this.metadata;
    const at = this.contents.at(content);
    const count = this.runCount(content);
    out.fileOffset = 0;
    out.length = size;
    if (count <= 1) {
      out.blob = u16[(at + L.ContentRecord.blob) >> 1] as number;
      out.rawOffset =
        count === 0
          ? undefined
          : (u32[at >> 2] as number) + (u16[(at + L.ContentRecord.rawHigh) >> 1] as number) * TWO_32;
      return;
    }
    const first = u32[(at + L.ContentRecord.firstRun) >> 2] as number;
    const run = this.runs.at(first + index);
    const end = index + 1 === count ? size : this.fileOffset(first + index + 1);
    out.fileOffset = this.fileOffset(first + index);
    out.length = end - out.fileOffset;
    if (!(out.length > 0) || end > size || (index === 0 && out.fileOffset !== 0)) {
      throw this.runs.corrupt(first + index, `covers bytes ${out.fileOffset} to ${end} of ${size}`);
    }
    out.blob = u16[(run + L.RunRecord.blob) >> 1] as number;
    out.rawOffset =
      out.blob === L.HOLE_BLOB
        ? undefined
        : (u32[run >> 2] as number) + (u16[(run + L.RunRecord.rawHigh) >> 1] as number) * TWO_32;
  }

  /** The run that byte `offset` < `size` lies in: O(log runs). */
  runAt(content: number, offset: number): number {
    const count = this.runCount(content);
    if (count <= 1) return 0;
    const first = this.metadata.u32[(this.contents.at(content) >> 2) + 2] as number;
    let low = 0;
    let high = count - 1;
    while (low < high) {
      const middle = (low + high + 1) >>> 1;
      if (this.fileOffset(first + middle) <= offset) low = middle;
      else high = middle - 1;
    }
    return low;
  }

  /** Where in its blob's file a stored range begins, if the blob has no codec. Throws Corrupt when it is not inside the blob. */
  stored(content: number, range: ContentRange): { blob: Blob; offset: number } {
    const blob = this.blob(range.blob);
    const rawOffset = range.rawOffset as number;
    if (rawOffset + range.length > blob.rawSize) {
      throw this.contents.corrupt(
        content,
        `bytes ${rawOffset} to ${rawOffset + range.length} are outside the ${blob.rawSize} of ${blob.source.name}`,
      );
    }
    return { blob, offset: blob.dataOffset + rawOffset };
  }

  private readonly scratch: ContentRange = { blob: 0, rawOffset: undefined, fileOffset: 0, length: 0 };

  /** See Image.read; the caller has cut `length` to the size. */
  read(
    content: number,
    size: number,
    offset: number,
    out: { address: number; bytes: Uint8Array; start: number },
    length: number,
  ): number {
    const range = this.scratch;
    let run = this.runAt(content, offset);
    for (let done = 0; done < length; run++) {
      this.range(content, run, size, range);
      const skip = offset + done - range.fileOffset;
      if (skip < 0 || skip >= range.length)
        throw this.contents.corrupt(content, `no run for byte ${offset + done}`);
      const count = Math.min(length - done, range.length - skip);
      if (range.rawOffset === undefined) out.bytes.fill(0, out.start + done, out.start + done + count);
      else {
        const { blob, offset: at } = this.stored(content, range);
        if (blob.frames !== undefined) {
          blob.frames.read(range.rawOffset + skip, out.bytes, out.start + done, count);
        } else {
          const got = blob.source.read(at + skip, out.address + done, count);
          if (got < 0) return done > 0 ? done : got;
          if (got < count) throw endsHere(blob, at + skip + got);
        }
      }
      done += count;
    }
    return length;
  }

  /** See Image.prepare. */
  prepare(content: number, size: number, offset: number, length: number, elsewhere: Elsewhere): number {
    const range = this.scratch;
    let key = 0;
    let run = this.runAt(content, offset);
    for (let done = 0; done < length; run++) {
      this.range(content, run, size, range);
      const skip = offset + done - range.fileOffset;
      if (skip < 0 || skip >= range.length) return 0;
      const count = Math.min(length - done, range.length - skip);
      if (range.rawOffset !== undefined) {
        const { frames } = this.stored(content, range).blob;
        if (frames !== undefined) key = frames.prepare(range.rawOffset + skip, count, elsewhere) || key;
      }
      done += count;
    }
    return key;
  }

  /** See Image.seek. */
  seek(content: number, size: number, offset: number, hole: boolean): number {
    const range = this.scratch;
    const count = Math.max(1, this.runCount(content));
    for (let run = this.runAt(content, offset); run < count; run++) {
      this.range(content, run, size, range);
      if ((range.rawOffset === undefined) === hole) return Math.max(offset, range.fileOffset);
    }
    return hole ? size : -Errno.ENXIO;
  }

  /** Bytes of a content of `size` bytes that are data, not holes. Throws Corrupt. */
  dataBytes(content: number, size: number): number {
    const count = this.runCount(content);
    if (count <= 1) return count === 0 ? 0 : size;
    const range = this.scratch;
    let total = 0;
    for (let run = 0; run < count; run++) {
      this.range(content, run, size, range);
      if (range.rawOffset !== undefined) total += range.length;
    }
    return total;
  }

  private fileOffset(run: number): number {
    const at = this.runs.at(run) >> 2;
    return (this.metadata.u32[at + 2] as number) + (this.metadata.u32[at + 3] as number) * TWO_32;
  }
}
