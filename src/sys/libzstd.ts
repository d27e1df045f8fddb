// libzstd through koffi, the system's or the one that Node has linked: whole frames, and streams of any length with one
// context each.
// Invariant: every call is told the room in its output and the length of its input, so that no input makes the library
// read or write outside them; a context is freed by whoever made it.
import type { DecodeStep } from "../base/decoder.js";
import { addressOf, type CFunction, callAside, openLibrary } from "./library.js";

/** Results are size_t in C; the errors are its last 120 values, which are small negative numbers in an int64. */
interface Functions {
  readonly version: () => string;
  readonly errorName: (code: number) => string;
  readonly bound: (size: number) => number;
  readonly createCompressor: () => number;
  readonly compress: (
    context: number,
    into: Uint8Array,
    room: number,
    raw: Uint8Array,
    length: number,
    level: number,
  ) => number;
  readonly createDecompressor: () => number;
  readonly freeDecompressor: (context: number) => number;
  readonly setParameter: (context: number, parameter: number, value: number) => number;
  readonly decompress: (
    context: number,
    into: Uint8Array,
    room: number,
    frame: Uint8Array,
    length: number,
  ) => number;
  readonly decompressStream: CFunction<(context: number, output: Uint8Array, input: Uint8Array) => number>;
}

/** ZSTD_d_windowLogMax of zstd.h. */
const WINDOW_LOG_MAX = 100;

export class Libzstd {
  /** As the library tells it: `1.5.4`. */
  readonly version: string;
  readonly functions: Functions;
  private readonly compressor: number;
  private readonly decompressor: number;
  private scratch: Buffer;

  constructor(functions: Functions) {
    this.functions = functions;
    this.version = functions.version();
    this.compressor = functions.createCompressor();
    this.decompressor = functions.createDecompressor();
    if (this.compressor === 0 || this.decompressor === 0) throw new Error("libzstd: no memory for a context");
    this.scratch = Buffer.allocUnsafeSlow(0);
  }

  /**
   * The frame of `raw`: a view of a buffer that the next call overwrites. Throws an Error with the library's reason.
   */
  compress(raw: Uint8Array, level: number): Uint8Array {
    const room = this.functions.bound(raw.length);
    if (this.scratch.length < room) this.scratch = Buffer.allocUnsafeSlow(room);
    const { scratch } = this;
    const length = this.functions.compress(this.compressor, scratch, room, raw, raw.length, level);
    return scratch.subarray(0, this.checked(length));
  }

  /** Bytes written to `into`. Throws an Error with the library's reason, also for a content that does not fit. */
  decompress(frame: Uint8Array, into: Uint8Array): number {
    return this.checked(this.functions.decompress(this.decompressor, into, into.length, frame, frame.length));
  }

  /** `result` unless it is an error; then that is thrown with the library's words. */
  checked(result: number): number {
    if (result < 0) throw new Error(this.functions.errorName(result));
    return result;
  }
}

const SIZE = 8;
const POSITION = 16;
const RECORD_SIZE = 24;

/** One stream of frames; close() frees its memory, which is about as large as the frames' window. */
export class ZstdStream {
  private readonly library: Libzstd;
  private context: number;
  // ZSTD_inBuffer and ZSTD_outBuffer: address, size, position.
  private readonly input = Buffer.allocUnsafeSlow(RECORD_SIZE);
  private readonly output = Buffer.allocUnsafeSlow(RECORD_SIZE);

  /** Refuses frames with windows of more than 2**windowLog bytes. */
  constructor(library: Libzstd, windowLog: number) {
    this.library = library;
    this.context = library.functions.createDecompressor();
    if (this.context === 0) throw new Error("libzstd: no memory for a context");
    library.checked(library.functions.setParameter(this.context, WINDOW_LOG_MAX, windowLog));
  }

  /** One step; see Decoder. It ends at the end of a frame at the latest. Throws with the library's reason. */
  run(from: Uint8Array, into: Uint8Array, filled: number): DecodeStep {
    this.fill(from, into, filled);
    return this.step(this.library.functions.decompressStream(this.context, this.output, this.input));
  }

  /** The same in a thread of the pool. */
  async runAside(from: Uint8Array, into: Uint8Array, filled: number): Promise<DecodeStep> {
    this.fill(from, into, filled);
    const { decompressStream } = this.library.functions;
    return this.step(await callAside(decompressStream, this.context, this.output, this.input));
  }

  private fill(from: Uint8Array, into: Uint8Array, filled: number): void {
    if (this.context === 0) throw new Error("the stream is closed");
    const { input, output } = this;
    input.writeBigUInt64LE(BigInt(addressOf(from)), 0);
    input.writeBigUInt64LE(BigInt(from.length), SIZE);
    input.writeBigUInt64LE(0n, POSITION);
    output.writeBigUInt64LE(BigInt(addressOf(into)), 0);
    output.writeBigUInt64LE(BigInt(into.length), SIZE);
    output.writeBigUInt64LE(BigInt(filled), POSITION);
  }

  private step(result: number): DecodeStep {
    this.library.checked(result);
    return {
      consumed: Number(this.input.readBigUInt64LE(POSITION)),
      filled: Number(this.output.readBigUInt64LE(POSITION)),
    };
  }

  close(): void {
    if (this.context === 0) return;
    this.library.functions.freeDecompressor(this.context);
    this.context = 0;
  }
}

/** The system's library. */
const SONAME = "libzstd.so.1";

const loaded = new Map<string | null, Libzstd | undefined>();

/** The system's libzstd with contexts of this thread; undefined where there is none. */
export function systemLibzstd(): Libzstd | undefined {
  return libraryOf(SONAME);
}

/** Node's own where it has one and exports it; undefined otherwise. */
export function nodeLibzstd(): Libzstd | undefined {
  return libraryOf(null);
}

function libraryOf(soname: string | null): Libzstd | undefined {
  if (!loaded.has(soname)) loaded.set(soname, load(soname));
  return loaded.get(soname);
}

function load(soname: string | null): Libzstd | undefined {
  const bind = openLibrary(soname);
  if (bind === undefined) return undefined;
  const context = "uintptr_t";
  const buffer = ["void *", "size_t"];
  try {
    return new Libzstd({
      version: bind("ZSTD_versionString", "str", []),
      errorName: bind("ZSTD_getErrorName", "str", ["int64_t"]),
      bound: bind("ZSTD_compressBound", "int64_t", ["size_t"]),
      createCompressor: bind("ZSTD_createCCtx", context, []),
      compress: bind("ZSTD_compressCCtx", "int64_t", [context, ...buffer, ...buffer, "int"]),
      createDecompressor: bind("ZSTD_createDCtx", context, []),
      freeDecompressor: bind("ZSTD_freeDCtx", "int64_t", [context]),
      setParameter: bind("ZSTD_DCtx_setParameter", "int64_t", [context, "int", "int"]),
      decompress: bind("ZSTD_decompressDCtx", "int64_t", [context, ...buffer, ...buffer]),
      decompressStream: bind("ZSTD_decompressStream", "int64_t", [context, "void *", "void *"]),
    });
  } catch {
    // It lacks a function: too old, or a Node without zstd.
    return undefined;
  }
}
