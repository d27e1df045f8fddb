// zstd data of any length: frames one after another, skippable ones between them (zstd:chunked has them), zeros after the
// last. Memory is a window, whatever the data says: 128 MiB at most, which is what `zstd --ultra` stays within; a frame
// that needs more is refused.
// The providers have the order of provider.ts, but for a Node whose zstd is reached through zlib alone: its streams end
// with the first frame.
import type { Decoder, DecodeStep } from "../base/decoder.js";
import { type Libzstd, ZstdStream } from "../sys/libzstd.js";
import { plainly } from "./codec.js";
import { FrameWalk } from "./frame.js";
import { chooseProvider, type Fzstd, type NapiZstd, type Provider } from "./provider.js";

const WINDOW_LOG_MAX = 27;

/** A decoder for one stream. Its errors are ZstdErrors. Throws ZstdError where no provider reads streams. */
export function zstdDecoder(provider: Provider = chooseProvider(({ form }) => form !== "zlib")): Decoder {
  switch (provider.form) {
    case "c":
      return new WalkedDecoder(cEngine(provider.library));
    case "napi":
      return new WalkedDecoder(napiEngine(provider.library));
    default:
      return new WalkedDecoder(fzstdEngine((provider as Extract<Provider, { form: "js" }>).library));
  }
}

/** What decodes frames that have been found acceptable. */
interface Engine {
  run(from: Uint8Array, into: Uint8Array, filled: number): DecodeStep;
  readonly runAside:
    | ((from: Uint8Array, into: Uint8Array, filled: number) => Promise<DecodeStep>)
    | undefined;
  close(): void;
}

/** Follows the frames ahead of the engine, so that it is the same data for all of them. */
class WalkedDecoder implements Decoder {
  private readonly engine: Engine;
  private readonly walk = new FrameWalk(2 ** WINDOW_LOG_MAX);
  /** Bytes at the start of the next input that have been followed already, and how many of them are frames. */
  private walked = 0;
  private frames = 0;

  constructor(engine: Engine) {
    this.engine = engine;
  }

  run(from: Uint8Array, into: Uint8Array, filled: number): DecodeStep {
    return plainly(() => this.took(from, this.engine.run(this.framesOf(from), into, filled)));
  }

  async runAside(from: Uint8Array, into: Uint8Array, filled: number): Promise<DecodeStep> {
    if (this.engine.runAside === undefined) return this.run(from, into, filled);
    const frames = plainly(() => this.framesOf(from));
    try {
      return this.took(from, await this.engine.runAside(frames, into, filled));
    } catch (cause) {
      return plainly(() => {
        throw cause;
      });
    }
  }

  finish(): void {
    this.walk.finish();
  }

  close(): void {
    this.engine.close();
  }

  /** The part of `from` that belongs to frames: all of it, unless padding has begun. */
  private framesOf(from: Uint8Array): Uint8Array {
    while (this.walked < from.length) {
      const end = this.walk.next(from, this.walked);
      if (end > this.walked) this.frames = end;
      this.walked = end > this.walked ? end : from.length;
    }
    return this.frames === from.length ? from : from.subarray(0, this.frames);
  }

  /** Padding is consumed with the last byte of the frames before it. */
  private took(from: Uint8Array, { consumed, filled }: DecodeStep): DecodeStep {
    const all = consumed === this.frames ? from.length : consumed;
    this.walked -= all;
    this.frames -= consumed;
    return { consumed: all, filled };
  }
}

function cEngine(library: Libzstd): Engine {
  const stream = new ZstdStream(library, WINDOW_LOG_MAX);
  return {
    run: (from, into, filled) => stream.run(from, into, filled),
    runAside: (from, into, filled) => stream.runAside(from, into, filled),
    close: () => stream.close(),
  };
}

function napiEngine(library: NapiZstd): Engine {
  const context = new library.DCtx();
  context.setParameter(library.DParameter.windowLogMax, WINDOW_LOG_MAX);
  return {
    run(from, into, filled) {
      const [, written, consumed] = context.decompressStream(into.subarray(filled), from);
      return { consumed, filled: filled + written };
    },
    runAside: undefined,
    close() {},
  };
}

/**
 * fzstd gives whole blocks, as many as it has input for: so it gets no more than one block at a time. A last frame of a
 * few bytes it holds back until it is told that it is the last.
 */
function fzstdEngine(library: Fzstd): Engine {
  const walk = new FrameWalk(2 ** WINDOW_LOG_MAX);
  const blocks: Uint8Array[] = [];
  let isDrained = false;
  const decoder = new library.Decompress((block) => void blocks.push(block));
  return {
    run(from, into, filled) {
      let consumed = 0;
      if (from.length === 0 && !isDrained) {
        walk.finish();
        decoder.push(new Uint8Array(0), true);
        isDrained = true;
      }
      for (;;) {
        for (let block = blocks[0]; block !== undefined && filled < into.length; block = blocks[0]) {
          const taken = Math.min(block.length, into.length - filled);
          into.set(block.subarray(0, taken), filled);
          filled += taken;
          if (taken === block.length) blocks.shift();
          else blocks[0] = block.subarray(taken);
        }
        if (filled === into.length || consumed === from.length) return { consumed, filled };
        const end = walk.next(from, consumed);
        // A copy: what it is given it keeps until it has a whole block.
        decoder.push(new Uint8Array(from.subarray(consumed, end)), false);
        consumed = end;
      }
    },
    runAside: undefined,
    close() {},
  };
}
