// Small zstd frames, whole and at once: the stored form of compressed blobs.
// Invariants: nothing is written outside `into`, whatever the frame says; a frame is read by every provider to the same
// bytes or refused; the compressed bytes depend on the level and on the version of the zstd library, nothing else is
// promised of them.

import type { Libzstd } from "../sys/libzstd.js";
import { singleFrameSize, ZstdError } from "./frame.js";
import { chooseProvider, type Fzstd, type NapiZstd, type NodeZstd, type Provider } from "./provider.js";

/** Bytes of content of a frame at most. */
export const MAX_FRAME_CONTENT = 128 << 10;

/** RFC 8878 recommends that every decoder supports this much; a frame of our size needs no more than its content. */
const MAX_FRAME_WINDOW = 8 << 20;

/** Reads and makes frames. One object per thread; calls are synchronous and keep no reference to what they are given. */
export interface FrameCodec {
  /** Of the provider: node, libzstd, zstd-napi, fzstd. */
  readonly name: Provider["name"];
  /** Of the zstd library that compresses: equal versions and levels give equal frames. */
  readonly version: string;
  /**
   * Decodes `frame`, one whole frame that tells its content's size and needs no dictionary, into the start of `into`.
   * Returns the number of bytes, exactly the size that the frame tells. Throws ZstdError for anything else, and for
   * content of more than `into.length` bytes; `into` may hold part of the content then.
   */
  decompress(frame: Uint8Array, into: Uint8Array): number;
  /**
   * The frame of `raw`, of at most MAX_FRAME_CONTENT bytes; level 1 to 19. A view that the next call may overwrite.
   * Undefined where the provider only reads. Throws ZstdError.
   */
  readonly compress: ((raw: Uint8Array, level: number) => Uint8Array) | undefined;
}

interface Backend {
  readonly decompress: (frame: Uint8Array, into: Uint8Array, size: number) => number;
  readonly compress: ((raw: Uint8Array, level: number) => Uint8Array) | undefined;
}

let chosen: FrameCodec | undefined;

/**
 * The codec of this thread: of the provider that is preferred here (see provider.ts), always the same one. Throws
 * ZstdError only where IMGFS_ZSTD names a provider that is not available.
 */
export function zstdCodec(): FrameCodec {
  chosen ??= codecOf(chooseProvider());
  return chosen;
}

/** The codec of one provider. For tests and benches; others want {@link zstdCodec}. */
export function codecOf(provider: Provider): FrameCodec {
  const { name, version } = provider;
  const backend = backendOf(provider);
  const { compress } = backend;
  return {
    name,
    version,
    decompress(frame, into) {
      const size = singleFrameSize(frame, MAX_FRAME_WINDOW);
      if (size > into.length) {
        throw new ZstdError(`the frame has ${size} bytes of content, there is room for ${into.length}`);
      }
      const length = plainly(() => backend.decompress(frame, into, size));
      if (length !== size) throw new ZstdError(`the frame has ${length} bytes of content and tells ${size}`);
      return size;
    },
    compress:
      compress &&
      ((raw, level) => {
        if (raw.length > MAX_FRAME_CONTENT) throw new ZstdError(`${raw.length} bytes for one frame`);
        if (!Number.isInteger(level) || level < 1 || level > 19) throw new ZstdError(`no level ${level}`);
        return plainly(() => compress(raw, level));
      }),
  };
}

/** Makes whatever a library throws a ZstdError. */
export function plainly<T>(run: () => T): T {
  try {
    return run();
  } catch (cause) {
    if (cause instanceof ZstdError) throw cause;
    // A library in JavaScript runs into these where data is damaged; their words are the engine's.
    if (cause instanceof RangeError || cause instanceof TypeError)
      throw new ZstdError("data corruption detected");
    throw new ZstdError((cause as Error).message.split("\n", 1)[0]?.toLowerCase() ?? "");
  }
}

function backendOf(provider: Provider): Backend {
  switch (provider.form) {
    case "c":
      return cBackend(provider.library);
    case "zlib":
      return zlibBackend(provider.library);
    case "napi":
      return napiBackend(provider.library);
    case "js":
      return fzstdBackend(provider.library);
  }
}

function zlibBackend(library: NodeZstd): Backend {
  const level = library.constants.ZSTD_c_compressionLevel;
  return {
    decompress(frame, into, size) {
      // A content longer than told is an error of Node's, a shorter one of ours.
      const content = library.zstdDecompressSync(frame, { maxOutputLength: Math.max(size, 1) });
      if (content.length <= into.length) into.set(content);
      return content.length;
    },
    compress: (raw, value) => library.zstdCompressSync(raw, { params: { [level]: value } }),
  };
}

function cBackend(library: Libzstd): Backend {
  return {
    decompress: (frame, into, size) =>
      library.decompress(frame, size === into.length ? into : into.subarray(0, size)),
    compress: (raw, level) => library.compress(raw, level),
  };
}

function napiBackend(library: NapiZstd): Backend {
  const compressor = new library.CCtx();
  const decompressor = new library.DCtx();
  const scratch = Buffer.allocUnsafeSlow(library.compressBound(MAX_FRAME_CONTENT));
  return {
    decompress: (frame, into, size) => decompressor.decompress(into.subarray(0, size), frame),
    compress: (raw, level) => scratch.subarray(0, compressor.compress(scratch, raw, level)),
  };
}

/** fzstd checks no checksum. Its blocks are taken one by one, because it does not tell how much of a buffer it filled. */
function fzstdBackend(library: Fzstd): Backend {
  return {
    decompress(frame, into, size) {
      let length = 0;
      const decoder = new library.Decompress((block) => {
        if (length + block.length > size)
          throw new ZstdError(`the frame has more than the ${size} bytes it tells`);
        into.set(block, length);
        length += block.length;
      });
      decoder.push(frame, true);
      return length;
    },
    compress: undefined,
  };
}
