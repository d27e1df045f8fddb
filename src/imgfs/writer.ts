// Writes a layer blob: contents as they come, the tree at the end, in one pass over the data.
// Contents go to the file from offset 0; finish() slides the tables in front of them.
// Invariant: the bytes depend on the tree, the contents and their order only; what the tree does not refer to is not
// in the file.
import { closeSync, fsyncSync, ftruncateSync, openSync, renameSync, unlinkSync } from "node:fs";
import { alignUp } from "../base/bytes.js";
import { type Digest, digestBytes } from "../base/digest.js";
import { FALLOC_FL_INSERT_RANGE, fallocateFd } from "../sys/files.js";
import { type Codec, noCodec } from "./codec.js";
import { ContentStream, type Run, type StoredContent } from "./contents.js";
import { copyBytes } from "./copy.js";
import { FileSink, FrameSink, type StoredFrames, writeAll } from "./data-sink.js";
import { parseHeader } from "./header.js";
import * as L from "./layout.js";
import { sealMetadata } from "./seal.js";
import type { ContentRef, DirectoryInode } from "./tree.js";
import { tablesOfTree } from "./walk.js";

export interface LayerSummary {
  /** sha256 of the header, and through it of everything in the file. */
  rootDigest: Digest;
  treeRoot: Digest;
  inodes: number;
  entries: number;
  contents: number;
  /** Bytes of the finished file. */
  fileSize: number;
  /** Sum of file sizes, each inode once. */
  logicalBytes: number;
  /** Bytes of file data, each content once, without padding. */
  uniqueBytes: number;
  /** Those with padding, and what is stored of them; the same without a codec. */
  rawSize: number;
  dataSize: number;
}

export class LayerWriter {
  private readonly path: string;
  private fd: number;
  private readonly level: number;
  /** Undefined with codec none. */
  private readonly frames: FrameSink | undefined;
  private readonly stream: ContentStream;

  private constructor(path: string, fd: number, level: number, frames: FrameSink | undefined) {
    this.path = path;
    this.fd = fd;
    this.level = level;
    this.frames = frames;
    this.stream = new ContentStream(frames ?? new FileSink(fd));
  }

  /**
   * Creates the file `path` exclusively; it is a temporary that the caller renames after finish(). Throws Node's
   * system error, EEXIST when the file exists, or an Error where the codec is not available.
   */
  static create(path: string, { name, level }: Codec = noCodec): LayerWriter {
    const fd = openSync(path, "wx+", 0o644);
    try {
      return new LayerWriter(path, fd, level, name === "none" ? undefined : new FrameSink(fd, level));
    } catch (cause) {
      closeSync(fd);
      unlinkSync(path);
      throw cause;
    }
  }

  beginContent(): void {
    this.usable();
    this.stream.begin();
  }

  /** The next bytes of the content. They may be reused after the call. Throws the system error of a failed write. */
  append(bytes: Uint8Array): void {
    this.stream.append(bytes);
  }

  /** The next `length` bytes of the content are a hole. */
  appendHole(length: number): void {
    if (!Number.isSafeInteger(length) || length < 0) throw new Error(`a hole of ${length} bytes`);
    this.stream.appendHole(length);
  }

  /** Undefined for an empty content. Contents with equal bytes and equal holes have the same id and are stored once. */
  endContent(): ContentRef | undefined {
    return this.stream.end();
  }

  /**
   * Writes the tables, fsyncs and closes. `source` is the layer's diffID. Throws an Error for a tree that no image
   * can hold (names, ids, times out of range, a directory twice), or a system error; abort() then cleans up.
   */
  finish(root: DirectoryInode, source: Digest): LayerSummary {
    this.usable();
    this.stream.flush();
    const stored = this.stream.contents;
    const { tables, order, logicalBytes } = tablesOfTree(root, stored);
    // In stream order, which is the order of the data; the tables number contents by the walk.
    const used = new Uint8Array(stored.length);
    for (const id of order) used[id] = 1;
    const kept = stored.filter((_, id) => used[id] === 1);
    const moved = kept.length === stored.length ? undefined : relocate(stored, used);
    const uniqueBytes = kept.reduce((sum, content) => sum + content.stored, 0);
    const rawSize = moved?.size ?? this.stream.position;
    const frames =
      this.frames === undefined ? undefined : this.finishFrames(this.frames, moved?.pieces, rawSize);
    const dataSize = frames?.size ?? rawSize;
    const digests = this.stream.digestBytes;
    for (const id of order)
      addContent(tables, stored[id] as StoredContent, digests, id * L.DIGEST_SIZE, moved?.offsets);
    const inodes = tables.inodeCount;
    const entries = tables.entries.count;
    const metadata = sealMetadata(tables, {
      kind: L.Kind.layer,
      source: digestBytes(source),
      dataSize,
      logicalBytes,
      uniqueBytes,
      blobs: new Uint8Array(0),
      frames: frames && { ...frames, codec: L.CODEC_ZSTD, level: this.level, rawSize },
    });
    const pieces = frames === undefined ? moved?.pieces : undefined;
    ftruncateSync(this.fd, frames?.size ?? this.stream.position);
    this.place(metadata, dataSize, pieces ?? [{ from: 0, to: 0, length: dataSize }], pieces !== undefined);
    fsyncSync(this.fd);
    this.close();
    const fileSize = dataSize === 0 ? metadata.length : alignUp(metadata.length, L.ALIGN) + dataSize;
    const { rootDigest, treeRoot } = parseHeader(metadata.subarray(0, L.HEADER_SIZE), fileSize, this.path);
    return {
      rootDigest,
      treeRoot,
      inodes,
      entries,
      contents: order.length,
      fileSize,
      logicalBytes,
      uniqueBytes,
      rawSize,
      dataSize,
    };
  }

  /** Closes and removes the file; does nothing after finish(). Never throws. */
  abort(): void {
    if (this.fd < 0) return;
    try {
      this.close();
    } catch {
      // Nothing more can be done about it.
    }
    for (const path of [this.path, this.copyPath]) {
      try {
        unlinkSync(path);
      } catch {
        // Not there.
      }
    }
  }

  private get copyPath(): string {
    return `${this.path}.slide`;
  }

  private usable(): void {
    if (this.fd < 0) throw new Error("the layer writer is closed");
  }

  private close(): void {
    const { fd } = this;
    this.fd = -1;
    closeSync(fd);
  }

  /** The frames in the file as it is then; when contents move, the file is a new one. */
  private finishFrames(sink: FrameSink, pieces: readonly Piece[] | undefined, rawSize: number): StoredFrames {
    const frames = sink.finish();
    if (pieces === undefined) return frames;
    const fd = openSync(this.copyPath, "wx+", 0o644);
    try {
      const moved = new FrameSink(fd, this.level);
      moveFrames(sink, this.stream.position, pieces, moved);
      const result = moved.finish();
      if (result.digests.length !== Math.ceil(rawSize / L.FRAME) * L.DIGEST_SIZE)
        throw new Error("frames are missing");
      renameSync(this.copyPath, this.path);
      this.close();
      this.fd = fd;
      return result;
    } catch (cause) {
      if (this.fd !== fd) closeSync(fd);
      throw cause;
    }
  }

  /** Brings the tables in front of the data: shifting the file's extents where it can, else into a second file. */
  private place(metadata: Uint8Array, dataSize: number, pieces: readonly Piece[], rewritten: boolean): void {
    const dataOffset = dataSize === 0 ? 0 : alignUp(metadata.length, L.ALIGN);
    if (dataSize === 0) ftruncateSync(this.fd, 0);
    else if (rewritten || fallocateFd(this.fd, FALLOC_FL_INSERT_RANGE, 0, dataOffset) !== 0) {
      const copy = openSync(this.copyPath, "wx+", 0o644);
      try {
        ftruncateSync(copy, dataOffset + dataSize);
        for (const { from, to, length } of pieces) copyBytes(this.fd, from, copy, dataOffset + to, length);
      } catch (cause) {
        closeSync(copy);
        throw cause;
      }
      renameSync(this.copyPath, this.path);
      this.close();
      this.fd = copy;
    }
    writeAll(this.fd, metadata, 0);
  }
}

/** Bytes that move together, as offsets in the data before and after. */
interface Piece {
  readonly from: number;
  readonly to: number;
  length: number;
}

/**
 * New places for the contents that are used, in their old order, as if the others had never been: see ContentStream
 * for the rule. Pieces reach over the zeros between two contents, and never over a content that was left out.
 */
function relocate(
  stored: readonly StoredContent[],
  used: Uint8Array,
): {
  size: number;
  offsets: Map<Run, number>;
  pieces: Piece[];
} {
  const offsets = new Map<Run, number>();
  const pieces: Piece[] = [];
  let size = 0;
  let skipped = false;
  for (const [id, content] of stored.entries()) {
    if (used[id] === 0) {
      skipped = true;
      continue;
    }
    content.runs.forEach((run, i) => {
      if (run.rawOffset === undefined) return;
      const length = (content.runs[i + 1]?.fileOffset ?? content.size) - run.fileOffset;
      const to = alignUp(size, length < L.ALIGN ? L.SMALL_ALIGN : L.ALIGN);
      const last = pieces.at(-1);
      if (last !== undefined && !skipped && run.rawOffset - last.from === to - last.to)
        last.length = to + length - last.to;
      else pieces.push({ from: run.rawOffset, to, length });
      offsets.set(run, to);
      size = to + length;
      skipped = false;
    });
  }
  return { size, offsets, pieces };
}

function addContent(
  tables: ReturnType<typeof tablesOfTree>["tables"],
  content: StoredContent,
  digests: Uint8Array,
  digestStart: number,
  moved: Map<Run, number> | undefined,
): void {
  const place = (run: Run): number | undefined => moved?.get(run) ?? run.rawOffset;
  const [first] = content.runs as [Run, ...Run[]];
  if (content.runs.length === 1) {
    const rawOffset = place(first);
    tables.addContent(digests, digestStart, 0, rawOffset ?? 0, 0, rawOffset === undefined ? 0 : 1);
    return;
  }
  const firstRun = tables.runs.count;
  for (const run of content.runs) tables.addRun(0, place(run), run.fileOffset);
  tables.addContent(digests, digestStart, 0, 0, firstRun, content.runs.length);
}

/** Writes pieces of a compressed raw address space of `size` bytes to another one, in their new places. */
function moveFrames(from: FrameSink, size: number, pieces: readonly Piece[], to: FrameSink): void {
  const bytes = Buffer.allocUnsafeSlow(L.FRAME);
  let decoded = -1;
  let end = 0;
  for (const piece of pieces) {
    to.write(Buffer.alloc(piece.to - end), Infinity);
    for (let done = 0; done < piece.length; ) {
      const at = piece.from + done;
      const frame = Math.floor(at / L.FRAME);
      const skip = at - frame * L.FRAME;
      if (frame !== decoded) from.read(frame, Math.min(L.FRAME, size - frame * L.FRAME), bytes);
      decoded = frame;
      const count = Math.min(piece.length - done, L.FRAME - skip);
      to.write(bytes.subarray(skip, skip + count), Infinity);
      done += count;
    }
    end = piece.to + piece.length;
  }
}
