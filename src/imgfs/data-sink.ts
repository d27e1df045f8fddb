// Where the data of a layer that is being written goes: bytes in order, the last of which may be taken back.
// Invariants: what lies before the `stable` of a write is never taken back; a frame is compressed alone, once nothing
// is missing in it, so the stored bytes depend on the raw bytes, the level and the version of the zstd library only.
import { hash } from "node:crypto";
import { readSync, writeSync } from "node:fs";
import { startWriteback } from "../sys/files.js";
import { type FrameCodec, zstdCodec } from "../zstd/codec.js";
import { decodeFrame, faultText } from "./frames.js";
import { Heap } from "./growable.js";
import { DIGEST_SIZE, FRAME } from "./layout.js";

export interface DataSink {
  /** Appends bytes, which may be reused afterwards. A later rewind goes back to `stable` at most. */
  write(bytes: Uint8Array, stable: number): void;
  /** Takes back all bytes from `position` of the raw address space on. */
  rewind(position: number): void;
}

/** Bytes that are sent on their way to the device at a time, so that the end of a layer has not to wait for all. */
const WRITEBACK = 8 << 20;

/** Codec none: the bytes as they are, from offset 0 of the file. Throws the system error of a failed write. */
export class FileSink implements DataSink {
  private readonly fd: number;
  private position = 0;
  private sent = 0;

  constructor(fd: number) {
    this.fd = fd;
  }

  write(bytes: Uint8Array): void {
    writeAll(this.fd, bytes, this.position);
    this.position += bytes.length;
    if (this.position - this.sent < WRITEBACK) return;
    // A hint: where it fails, fsync finds out why.
    startWriteback(this.fd, this.sent, this.position - this.sent);
    this.sent = this.position;
  }

  rewind(position: number): void {
    this.position = position;
    this.sent = Math.min(this.sent, position);
  }
}

export interface StoredFrames {
  /** Bytes in the file. */
  readonly size: number;
  /** Contents of FRAME and FRAME_DIGEST. */
  readonly places: Uint8Array;
  readonly digests: Uint8Array;
}

const zeros = Buffer.alloc(FRAME);

/** Codec zstd: frame after frame, from offset `base` of the file. Throws the system error of a failed write. */
export class FrameSink implements DataSink {
  private readonly fd: number;
  private readonly base: number;
  private readonly level: number;
  private readonly compress: NonNullable<FrameCodec["compress"]>;
  /** The frame that is being filled. */
  private raw = Buffer.allocUnsafeSlow(FRAME);
  private filled = 0;
  /** Where each finished frame begins, counted from `base`. */
  private readonly starts: number[] = [];
  private readonly digests = new Heap(DIGEST_SIZE * 64);
  private size = 0;
  /** A finished frame that a rewind may lead into, and its bytes. */
  private keptFrame = -1;
  private kept = Buffer.allocUnsafeSlow(FRAME);

  /** Throws an Error where nothing that compresses is available. */
  constructor(fd: number, level: number, base = 0) {
    const { name, compress } = zstdCodec();
    if (compress === undefined) {
      throw new Error(
        `codec zstd: ${name} only decodes; libzstd, zstd-napi or a newer Node is needed to compress`,
      );
    }
    this.fd = fd;
    this.base = base;
    this.level = level;
    this.compress = compress;
  }

  write(bytes: Uint8Array, stable: number): void {
    for (let at = 0; at < bytes.length; ) {
      const count = Math.min(bytes.length - at, FRAME - this.filled);
      this.raw.set(bytes.subarray(at, at + count), this.filled);
      this.filled += count;
      at += count;
      if (this.filled === FRAME) this.complete(stable);
    }
  }

  rewind(position: number): void {
    const frame = Math.floor(position / FRAME);
    if (frame < this.starts.length) {
      this.filled = FRAME;
      this.size = this.starts[frame] as number;
      this.starts.length = frame;
      this.digests.length = frame * DIGEST_SIZE;
      if (frame === this.keptFrame) this.swap();
      else if (position % FRAME !== 0) throw new Error(`rewind to ${position}, which is not kept`);
    }
    this.filled = position % FRAME;
  }

  /** Completes the last frame. Nothing may be written any more. */
  finish(): StoredFrames {
    if (this.filled > 0) this.complete(Infinity);
    const places = Buffer.alloc((this.starts.length + 1) * 8);
    for (const [i, start] of [...this.starts, this.size].entries()) {
      places.writeBigUInt64LE(BigInt(start), i * 8);
    }
    return { size: this.size, places, digests: this.digests.bytes };
  }

  /** After finish(): the bytes of a frame, `raw` of them, into the start of `into`. Throws an Error. */
  read(frame: number, raw: number, into: Uint8Array): void {
    const offset = this.starts[frame] as number;
    const stored = (this.starts[frame + 1] ?? this.size) - offset;
    const digest = this.digests.bytes.subarray(frame * DIGEST_SIZE, (frame + 1) * DIGEST_SIZE);
    const read = (from: number, bytes: Uint8Array): number =>
      readSync(this.fd, bytes, 0, bytes.length, this.base + from);
    const status = decodeFrame(read, { offset, stored, raw }, digest, into);
    if (status < 0) throw new Error(`frame ${frame} as it was written: ${faultText(status)}`);
  }

  private complete(stable: number): void {
    const frame = this.starts.length;
    const raw = this.raw.subarray(0, this.filled);
    const bytes = this.encode(raw);
    writeAll(this.fd, bytes, this.base + this.size);
    this.starts.push(this.size);
    this.digests.append(hash("sha256", bytes, "buffer"));
    this.size += bytes.length;
    if (Math.floor(stable / FRAME) === frame) {
      this.swap();
      this.keptFrame = frame;
    }
    this.filled = 0;
  }

  /** Nothing for zeros; the bytes as they are when they do not shrink. */
  private encode(raw: Uint8Array): Uint8Array {
    if (zeros.compare(raw, 0, raw.length, 0, raw.length) === 0) return raw.subarray(0, 0);
    const bytes = this.compress(raw, this.level);
    return bytes.length < raw.length ? bytes : raw;
  }

  private swap(): void {
    [this.raw, this.kept] = [this.kept, this.raw];
    this.keptFrame = -1;
  }
}

export function writeAll(fd: number, bytes: Uint8Array, position: number): void {
  for (let done = 0; done < bytes.length; ) {
    done += writeSync(fd, bytes, done, bytes.length - done, position + done);
  }
}
