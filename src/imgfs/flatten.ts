// An index and the blobs it refers to as one file: the same tree, and of the data what the tree refers to, once.
// Invariants: the bytes depend on the layers (their diffIDs, trees and contents), the config and the codec only, not on
// how the blobs store their data; the tree sections are those of the index, to the byte.
import { createHash } from "node:crypto";
import { closeSync, fsyncSync, ftruncateSync, openSync, unlinkSync } from "node:fs";
import { alignUp } from "../base/bytes.js";
import { type Digest, digestBytes } from "../base/digest.js";
import { Turns } from "../base/turns.js";
import { type Codec, noCodec } from "./codec.js";
import { readRaw } from "./content-reader.js";
import { copyBytes } from "./copy.js";
import { FrameSink, type StoredFrames, writeAll } from "./data-sink.js";
import { Corrupt } from "./errors.js";
import { parseHeader } from "./header.js";
import type { Image } from "./image.js";
import * as L from "./layout.js";
import { forEachRange, sizesByContent } from "./ranges.js";
import { type SealedFrames, sealSections, type TreeSections } from "./seal.js";

export interface FlattenOptions {
  readonly codec?: Codec | undefined;
  /** The OCI image config, to be embedded as it is. */
  readonly config?: Uint8Array | undefined;
  /** Ends the work; the promise rejects with its reason and no file is left. */
  readonly signal?: AbortSignal | undefined;
}

export interface FlatSummary {
  readonly rootDigest: Digest;
  readonly treeRoot: Digest;
  readonly fileSize: number;
  /** Bytes of file data, each content once, without padding. */
  readonly uniqueBytes: number;
  /** Those with padding, and what is stored of them; the same without a codec. */
  readonly rawSize: number;
  readonly dataSize: number;
}

/** A stored stretch of a content: where it is, and where it goes in the new raw address space. */
interface Extent {
  readonly content: number;
  /** Its record in RUN; -1 when the content's own record says where it lies. */
  readonly run: number;
  readonly blob: number;
  readonly from: number;
  readonly length: number;
  to: number;
}

/** Bytes that move together. */
interface Piece {
  readonly blob: number;
  readonly from: number;
  readonly to: number;
  length: number;
}

const chunk = 1 << 20;
const copyChunk = 32 << 20;
const TWO_32 = 0x1_0000_0000;

/**
 * Writes the file `path`, which must not exist, complete and synced. Throws Corrupt for a damaged image, an Error for
 * what is no index, or a system error; then no file is left.
 */
export async function flattenImage(
  image: Image,
  path: string,
  { codec = noCodec, config, signal }: FlattenOptions = {},
): Promise<FlatSummary> {
  if (image.kind !== "index") throw new Error(`${image.metadata.file}: not an index`);
  const extents = extentsOf(image);
  const rawSize = placeExtents(image, extents);
  const sections = sectionsOf(image, extents);
  const uniqueBytes = extents.reduce((sum, { length }) => sum + length, 0);
  const seal = (frames: SealedFrames | undefined, dataSize: number): Uint8Array<ArrayBuffer> =>
    sealSections(sections, {
      kind: L.Kind.index,
      source: sourceOf(image),
      dataSize,
      logicalBytes: image.logicalBytes,
      uniqueBytes,
      blobs: new Uint8Array(0),
      config,
      frames,
    });
  const fd = openSync(path, "wx+", 0o644);
  try {
    const turns = new Turns(signal);
    let metadata: Uint8Array<ArrayBuffer>;
    if (codec.name === "none") {
      metadata = seal(undefined, rawSize);
      await copyPieces(image, piecesOf(extents), fd, alignUp(metadata.length, L.ALIGN), turns);
    } else {
      // The length of the metadata does not depend on what the frames become, so that they can follow it at once.
      const sealed = (frames: StoredFrames): SealedFrames => ({
        ...frames,
        codec: L.CODEC_ZSTD,
        level: codec.level,
        rawSize,
      });
      const count = Math.ceil(rawSize / L.FRAME);
      const blank = {
        size: 0,
        places: new Uint8Array((count + 1) * 8),
        digests: new Uint8Array(count * L.DIGEST_SIZE),
      };
      const dataOffset = alignUp(seal(sealed(blank), rawSize).length, L.ALIGN);
      const frames = await compressPieces(
        image,
        piecesOf(extents),
        new FrameSink(fd, codec.level, dataOffset),
        turns,
      );
      metadata = seal(sealed(frames), frames.size);
    }
    const header = parseHeader(metadata.subarray(0, L.HEADER_SIZE), fileSizeOf(metadata), path);
    writeAll(fd, metadata, 0);
    ftruncateSync(fd, header.fileSize);
    fsyncSync(fd);
    const { rootDigest, treeRoot, fileSize, dataSize } = header;
    return { rootDigest, treeRoot, fileSize, uniqueBytes, rawSize, dataSize };
  } catch (cause) {
    unlinkSync(path);
    throw cause;
  } finally {
    closeSync(fd);
  }
}

/** The length that a file with this metadata says it has. */
function fileSizeOf(metadata: Uint8Array<ArrayBuffer>): number {
  return Number(new DataView(metadata.buffer).getBigUint64(L.Header.fileSize, true));
}

/** sha256 of the layers' diffIDs: unlike root digests they do not depend on a codec. */
function sourceOf(image: Image): Buffer {
  if (image.isFlat) return digestBytes(image.source);
  const hash = createHash("sha256");
  for (const { source } of image.blobs) hash.update(digestBytes(source));
  return hash.digest();
}

/** What is stored of each content, in the order of the layers and of the data in each. */
function extentsOf(image: Image): Extent[] {
  const reader = image.contentReader;
  const sizes = sizesByContent(image);
  const extents: Extent[] = [];
  for (let content = 0; content < reader.count; content++) {
    let run = reader.runCount(content) > 1 ? reader.firstRun(content) : -1;
    forEachRange(image, content, sizes[content] as number, (range) => {
      const { blob, rawOffset, length } = range;
      if (rawOffset !== undefined) {
        reader.stored(content, range);
        extents.push({ content, run, blob, from: rawOffset, length, to: 0 });
      }
      if (run >= 0) run++;
    });
  }
  return extents.sort((a, b) => a.blob - b.blob || a.from - b.from);
}

/** Gives each its new place by the rule of FORMAT.md, section 6; the length of the new raw address space. */
function placeExtents(image: Image, extents: Extent[]): number {
  let size = 0;
  let last: Extent | undefined;
  for (const extent of extents) {
    if (last !== undefined && last.blob === extent.blob && last.from + last.length > extent.from) {
      const problem = `lies in what content ${last.content} has`;
      throw new Corrupt(image.metadata.file, "CONTENT", `record ${extent.content}`, problem);
    }
    extent.to = alignUp(size, extent.length < L.ALIGN ? L.SMALL_ALIGN : L.ALIGN);
    size = extent.to + extent.length;
    last = extent;
  }
  return size;
}

/** The sections of the index with CONTENT and RUN that point into the new file. */
function sectionsOf(image: Image, extents: readonly Extent[]): TreeSections {
  const { metadata } = image;
  for (let page = 0; page < metadata.pageCount; page++) metadata.load(page);
  const section = (name: L.SectionName): Uint8Array<ArrayBuffer> => {
    const { offset, length } = metadata.header.sections.find(({ id }) => id === L.Section[name].id) as {
      offset: number;
      length: number;
    };
    return Uint8Array.from(metadata.bytes.subarray(offset, offset + length));
  };
  const content = section("content");
  const run = section("run");
  const place = (records: Uint8Array<ArrayBuffer>, index: number, to: number): void => {
    const view = new DataView(records.buffer, index * L.ContentRecord.byteLength);
    view.setUint32(L.ContentRecord.rawLow, to >>> 0, true);
    view.setUint16(L.ContentRecord.rawHigh, Math.floor(to / TWO_32), true);
    view.setUint16(L.ContentRecord.blob, 0, true);
  };
  for (const { content: index, run: number, to } of extents) {
    if (number < 0) place(content, index, to);
    else place(run, number, to);
  }
  return {
    directory: [section("directory")],
    entry: [section("entry")],
    names: [section("names")],
    inode: [section("inode")],
    targets: [section("targets")],
    link: [section("link")],
    owner: [section("owner")],
    overflow: [section("overflow")],
    xattrOffset: [section("xattrOffset")],
    xattrs: [section("xattrs")],
    contentDigest: [section("contentDigest")],
    content: [content],
    run: [run],
  };
}

function piecesOf(extents: readonly Extent[]): Piece[] {
  const pieces: Piece[] = [];
  for (const { blob, from, to, length } of extents) {
    const last = pieces.at(-1);
    if (last !== undefined && last.blob === blob && from - last.from === to - last.to) {
      // Bytes between contents are zero in a sound blob, and not looked at in another: they are not copied.
      const gap = to - last.to - last.length;
      if (gap === 0) {
        last.length += length;
        continue;
      }
    }
    pieces.push({ blob, from, to, length });
  }
  return pieces;
}

/** The data as it is, inside the kernel where the blob has it so. */
async function copyPieces(
  image: Image,
  pieces: readonly Piece[],
  fd: number,
  dataOffset: number,
  turns: Turns,
): Promise<void> {
  const buffer = Buffer.allocUnsafe(chunk);
  for (const { blob: number, from, to, length } of pieces) {
    const blob = image.contentReader.blob(number);
    const direct = blob.frames === undefined && blob.source.fd >= 0;
    for (let done = 0; done < length; ) {
      const count = Math.min(length - done, direct ? copyChunk : chunk);
      if (direct) copyBytes(blob.source.fd, blob.dataOffset + from + done, fd, dataOffset + to + done, count);
      else {
        readRaw(blob, from + done, buffer.subarray(0, count));
        writeAll(fd, buffer.subarray(0, count), dataOffset + to + done);
      }
      done += count;
      if (turns.due) await turns.take();
    }
  }
}

/** The data in frames, whose borders are not those of the blobs. */
async function compressPieces(
  image: Image,
  pieces: readonly Piece[],
  sink: FrameSink,
  turns: Turns,
): Promise<StoredFrames> {
  const buffer = Buffer.allocUnsafe(L.FRAME);
  let end = 0;
  for (const { blob: number, from, to, length } of pieces) {
    const blob = image.contentReader.blob(number);
    sink.write(Buffer.alloc(to - end), Infinity);
    for (let done = 0; done < length; ) {
      const count = Math.min(length - done, L.FRAME);
      readRaw(blob, from + done, buffer.subarray(0, count));
      sink.write(buffer.subarray(0, count), Infinity);
      done += count;
      if (turns.due) await turns.take();
    }
    end = to + length;
  }
  return sink.finish();
}
