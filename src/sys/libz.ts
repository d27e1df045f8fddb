// zlib through koffi: one gzip stream for each object, its output in buffers of the caller. Node's own zlib is taken
// first, which it exports for addons: it inflates faster than the system's.
// Invariant: inflate is told the room in its output and the length of its input, so that no input makes it read or
// write outside them.
import type { DecodeStep } from "../base/decoder.js";
import { addressOf, type CFunction, callAside, openLibrary, textAt } from "./library.js";

interface Functions {
  readonly version: () => string;
  readonly init: (stream: Uint8Array, windowBits: number, version: string, size: number) => number;
  readonly inflate: CFunction<(stream: Uint8Array, flush: number) => number>;
  readonly reset: (stream: Uint8Array) => number;
  readonly end: (stream: Uint8Array) => number;
}

let functions: Functions | undefined | null = null;

function load(): Functions | undefined {
  for (const soname of [null, "libz.so.1"]) {
    const bind = openLibrary(soname);
    if (bind === undefined) continue;
    try {
      return {
        version: bind("zlibVersion", "str", []),
        init: bind("inflateInit2_", "int", ["void *", "int", "str", "int"]),
        inflate: bind("inflate", "int", ["void *", "int"]),
        reset: bind("inflateReset", "int", ["void *"]),
        end: bind("inflateEnd", "int", ["void *"]),
      };
    } catch {
      // It exports none.
    }
  }
  return undefined;
}

/** z_stream of zlib.h where pointers and longs have 64 bits. */
const Z = { nextIn: 0, availIn: 8, nextOut: 24, availOut: 32, message: 48, byteLength: 112 } as const;
const Z_STREAM_END = 1;
const Z_BUF_ERROR = -5;
const NO_FLUSH = 0;
/** A window of 32 KiB, and gzip's header and trailer. */
const GZIP_WINDOW_BITS = 15 + 16;

/** A step, and whether it came to the end of a member. */
export interface InflateStep extends DecodeStep {
  readonly ended: boolean;
}

export class InflateStream {
  private readonly functions: Functions;
  private readonly stream = Buffer.alloc(Z.byteLength);
  private open = true;

  private constructor(functions: Functions) {
    this.functions = functions;
    const result = functions.init(this.stream, GZIP_WINDOW_BITS, functions.version(), Z.byteLength);
    if (result !== 0) throw new Error(`zlib: inflateInit2 failed with ${result}`);
  }

  /** A stream that begins with the header of a gzip member; undefined where there is no zlib to be found. */
  static create(): InflateStream | undefined {
    if (functions === null) functions = load();
    return functions === undefined ? undefined : new InflateStream(functions);
  }

  /** Inflates until a buffer is used up or a member ends. Throws an Error with zlib's reason. */
  run(from: Uint8Array, into: Uint8Array, filled: number): InflateStep {
    this.fill(from, into, filled);
    return this.step(this.functions.inflate(this.stream, NO_FLUSH), from, into);
  }

  /** The same in a thread of the pool. */
  async runAside(from: Uint8Array, into: Uint8Array, filled: number): Promise<InflateStep> {
    this.fill(from, into, filled);
    return this.step(await callAside(this.functions.inflate, this.stream, NO_FLUSH), from, into);
  }

  /** Begins with the header of another member. */
  reset(): void {
    this.functions.reset(this.stream);
  }

  close(): void {
    if (!this.open) return;
    this.open = false;
    this.functions.end(this.stream);
  }

  private fill(from: Uint8Array, into: Uint8Array, filled: number): void {
    if (!this.open) throw new Error("the stream is closed");
    const { stream } = this;
    stream.writeBigUInt64LE(BigInt(addressOf(from)), Z.nextIn);
    stream.writeUInt32LE(from.length, Z.availIn);
    stream.writeBigUInt64LE(BigInt(addressOf(into)) + BigInt(filled), Z.nextOut);
    stream.writeUInt32LE(into.length - filled, Z.availOut);
  }

  private step(result: number, from: Uint8Array, into: Uint8Array): InflateStep {
    const { stream } = this;
    // Z_BUF_ERROR: no progress was possible, which is no fault of the data.
    if (result < 0 && result !== Z_BUF_ERROR) {
      const message = stream.readBigUInt64LE(Z.message);
      throw new Error(message === 0n ? `inflate failed with ${result}` : textAt(message));
    }
    return {
      consumed: from.length - stream.readUInt32LE(Z.availIn),
      filled: into.length - stream.readUInt32LE(Z.availOut),
      ended: result === Z_STREAM_END,
    };
  }
}
