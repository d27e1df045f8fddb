// The frames of compressed data: where each lies, and the one way from its stored bytes to what it holds. Runs in any
// thread.
// Invariant: stored bytes are compared with their digest before anything else looks at them.
import { hash } from "node:crypto";
import { Errno } from "../base/errno.js";
import { zstdCodec } from "../zstd/codec.js";
import * as L from "./layout.js";
import type { Metadata, Table } from "./metadata.js";

/** One frame. Without stored bytes it holds zeros; with as many as it has bytes it is stored as it is. */
export interface FramePlace {
  /** Where the stored bytes begin in the file, and how many there are. */
  offset: number;
  stored: number;
  /** Bytes of the raw address space that the frame holds. */
  raw: number;
}

/** FRAME and FRAME_DIGEST of one blob. */
export class FrameTable {
  readonly file: string;
  readonly count: number;
  private readonly metadata: Metadata;
  private readonly places: Table;
  private readonly digests: Table;

  constructor(metadata: Metadata) {
    this.file = metadata.file;
    this.metadata = metadata;
    this.places = metadata.table("frame");
    this.digests = metadata.table("frameDigest");
    this.count = this.digests.count;
  }

  /** Throws Corrupt for a frame whose place is impossible. */
  place(frame: number, out: FramePlace): void {
    const { dataOffset, dataSize, rawSize } = this.metadata.header;
    const start = this.word(frame);
    const end = this.word(frame + 1);
    const raw = Math.min(L.FRAME, rawSize - frame * L.FRAME);
    if (!(start <= end && end <= dataSize)) {
      throw this.places.corrupt(frame, `lies at ${start} to ${end} of ${dataSize} bytes of data`);
    }
    if (end - start > raw) throw this.places.corrupt(frame, `${end - start} bytes stored for ${raw}`);
    out.offset = dataOffset + start;
    out.stored = end - start;
    out.raw = raw;
  }

  /** Of the stored bytes: a view of the metadata. */
  digest(frame: number): Uint8Array {
    const at = this.digests.at(frame);
    return this.metadata.bytes.subarray(at, at + L.DIGEST_SIZE);
  }

  /** Where frame `index` begins in the data, as the record says. */
  word(index: number): number {
    const at = this.places.at(index) >> 2;
    const { u32 } = this.metadata;
    return (u32[at] as number) + (u32[at + 1] as number) * 0x1_0000_0000;
  }
}

/** What is wrong with a frame for good, by the status of {@link decodeFrame}. */
const faults: Readonly<Record<number, string>> = {
  [-Errno.EUCLEAN]: "stored bytes differ from their digest",
  [-Errno.EDOM]: "stored bytes do not decode to the frame's size",
  [-Errno.ENODATA]: "the file ends within it",
};

/** The words for a status that is damage; undefined for one that may pass, such as an error of the disk. */
export function faultText(status: number): string | undefined {
  return faults[status];
}

let stored: Buffer | undefined;

/**
 * Reads, checks and decodes a frame into the first `place.raw` bytes of `into`. 0 or the status of a fault; what
 * `read` throws passes.
 */
export function decodeFrame(
  read: (offset: number, into: Uint8Array) => number,
  place: FramePlace,
  digest: Uint8Array,
  into: Uint8Array,
): number {
  stored ??= Buffer.allocUnsafeSlow(L.FRAME);
  const target = into.length === place.raw ? into : into.subarray(0, place.raw);
  const asItIs = place.stored === place.raw;
  const bytes = asItIs ? target : stored.subarray(0, place.stored);
  if (read(place.offset, bytes) < bytes.length) return -Errno.ENODATA;
  if (Buffer.compare(hash("sha256", bytes, "buffer"), digest) !== 0) return -Errno.EUCLEAN;
  if (asItIs) return 0;
  if (place.stored === 0) {
    target.fill(0);
    return 0;
  }
  try {
    return zstdCodec().decompress(bytes, target) === place.raw ? 0 : -Errno.EDOM;
  } catch {
    return -Errno.EDOM;
  }
}
