// The data of a layer that is being written: contents streamed into the file in the order they come, each stored once.
// Invariants: bytes between contents are zero; a content equal to an earlier one leaves no trace; two contents are
// equal when their bytes and their holes are (contentDigest).
import { createHash, type Hash, hash } from "node:crypto";
import { alignUp } from "../base/bytes.js";
import type { DataSink } from "./data-sink.js";
import { DigestIndex, digestWords } from "./growable.js";
import { ALIGN, SMALL_ALIGN } from "./layout.js";

/** A stretch of a content; `rawOffset` undefined for a hole. It ends where the next one, or the content, does. */
export interface Run {
  readonly fileOffset: number;
  rawOffset: number | undefined;
}

export interface StoredContent {
  readonly size: number;
  /** Bytes stored, holes left out. */
  readonly stored: number;
  /** At least one; adjoining holes are one run, and so are adjoining data. */
  readonly runs: readonly Run[];
}

const BUFFER_SIZE = 1 << 20;
const zeros = Buffer.alloc(ALIGN);

/** Digest of a content: of its bytes, or for one with holes of the places and bytes of its data (FORMAT.md). */
export function contentDigest(size: number, runs: readonly Run[], dataDigest: Uint8Array): Uint8Array {
  if (runs.every((run) => run.rawOffset !== undefined)) return dataDigest;
  const places = Buffer.alloc(8 + runs.length * 16);
  places.writeBigUInt64LE(BigInt(size), 0);
  runs.forEach((run, i) => {
    places.writeBigUInt64LE(BigInt(run.fileOffset), 8 + i * 16);
    places.writeBigUInt64LE(run.rawOffset === undefined ? 0n : 1n, 16 + i * 16);
  });
  return createHash("sha256").update("imgfs sparse 1\n").update(places).update(dataDigest).digest();
}

export class ContentStream {
  private readonly sink: DataSink;
  private readonly buffer = Buffer.allocUnsafeSlow(BUFFER_SIZE);
  /** Position in the raw address space of buffer[0], and bytes in it. */
  private flushed = 0;
  private buffered = 0;
  private readonly digests = new DigestIndex(1024);
  private readonly stored: StoredContent[] = [];

  private open = false;
  private startPosition = 0;
  private size = 0;
  private data = 0;
  private runs: Run[] = [];
  /** First bytes of a run whose alignment is not known yet. */
  private readonly head = Buffer.allocUnsafeSlow(ALIGN);
  private headLength = 0;
  private placed = false;
  private hash: Hash | undefined;

  constructor(sink: DataSink) {
    this.sink = sink;
  }

  begin(): void {
    if (this.open) throw new Error("beginContent within a content");
    this.open = true;
    this.startPosition = this.position;
    this.size = 0;
    this.data = 0;
    this.runs = [];
    this.headLength = 0;
    this.placed = false;
    this.hash = undefined;
  }

  append(bytes: Uint8Array): void {
    if (!this.open) throw new Error("append outside a content");
    if (bytes.length === 0) return;
    const run = this.runs.at(-1);
    if (run === undefined || this.inHole) {
      this.runs.push({ fileOffset: this.size, rawOffset: 0 });
      this.headLength = 0;
      this.placed = false;
    }
    this.size += bytes.length;
    this.data += bytes.length;
    if (!this.placed) {
      const taken = Math.min(ALIGN - this.headLength, bytes.length);
      this.head.set(taken === bytes.length ? bytes : bytes.subarray(0, taken), this.headLength);
      this.headLength += taken;
      if (this.headLength < ALIGN) return;
      this.place();
      if (taken === bytes.length) return;
      bytes = bytes.subarray(taken);
    }
    (this.hash as Hash).update(bytes);
    this.write(bytes);
  }

  appendHole(length: number): void {
    if (!this.open) throw new Error("appendHole outside a content");
    if (length === 0) return;
    this.endRun();
    if (!this.inHole) this.runs.push({ fileOffset: this.size, rawOffset: undefined });
    this.size += length;
  }

  /** The content's number and size; undefined for an empty one. */
  end(): { id: number; size: number } | undefined {
    if (!this.open) throw new Error("endContent outside a content");
    this.open = false;
    if (this.size === 0) return undefined;
    const single = this.hash === undefined && this.runs.length === 1 && !this.inHole;
    const dataDigest = single ? hash("sha256", this.head.subarray(0, this.headLength), "buffer") : undefined;
    if (dataDigest === undefined) this.endRun();
    const digest = contentDigest(
      this.size,
      this.runs,
      dataDigest ?? (this.hash ?? createHash("sha256")).digest(),
    );
    const count = this.digests.size;
    const id = this.digests.add(digestWords(digest), 0);
    if (id < count) this.rewind(this.startPosition);
    else {
      if (single) this.writeHead();
      // A copy has no spare room: an array that grew by push keeps 17 places for its one run.
      this.stored.push({ size: this.size, stored: this.data, runs: this.runs.slice() });
    }
    return { id, size: this.size };
  }

  /** Writes out what is buffered; contents may still be added. Throws an Error within a content. */
  flush(): void {
    if (this.open) throw new Error("a content has not been ended");
    this.drain();
  }

  private drain(): void {
    this.sink.write(this.buffer.subarray(0, this.buffered), this.startPosition);
    this.flushed += this.buffered;
    this.buffered = 0;
  }

  /** Bytes of data so far, padding included. */
  get position(): number {
    return this.flushed + this.buffered;
  }

  get contents(): readonly StoredContent[] {
    return this.stored;
  }

  /** The digests, 32 bytes for each content. */
  get digestBytes(): Uint8Array {
    return this.digests.bytes;
  }

  private get inHole(): boolean {
    const run = this.runs.at(-1);
    return run !== undefined && run.rawOffset === undefined;
  }

  private endRun(): void {
    if (this.runs.length > 0 && !this.inHole && !this.placed) this.place();
  }

  /** Gives the current run its place: hashes and writes the bytes held back in `head`. */
  private place(): void {
    this.hash ??= createHash("sha256");
    this.hash.update(this.head.subarray(0, this.headLength));
    this.writeHead();
  }

  private writeHead(): void {
    const at = alignUp(this.position, this.headLength < ALIGN ? SMALL_ALIGN : ALIGN);
    if (at > this.position) this.write(zeros.subarray(0, at - this.position));
    (this.runs.at(-1) as Run).rawOffset = at;
    this.write(this.head.subarray(0, this.headLength));
    this.placed = true;
  }

  private write(bytes: Uint8Array): void {
    if (this.buffered + bytes.length > BUFFER_SIZE) this.drain();
    if (bytes.length >= BUFFER_SIZE / 2) {
      this.drain();
      this.sink.write(bytes, this.startPosition);
      this.flushed += bytes.length;
      return;
    }
    this.buffer.set(bytes, this.buffered);
    this.buffered += bytes.length;
  }

  private rewind(position: number): void {
    if (position >= this.flushed) {
      this.buffered = position - this.flushed;
      return;
    }
    this.sink.rewind(position);
    this.flushed = position;
    this.buffered = 0;
  }
}
