// Runs a decoder over a layer's bytes, in one of two ways, decided anew for each step: in this thread, which costs the
// least, or in a thread of the pool while the piece before is hashed and stored, where a core would be idle otherwise.
// Invariants: memory is two pieces, whatever the data; a step has ended before its buffers are touched or freed.
import type { Decoder, DecodeStep } from "../base/decoder.js";

/** Gives the next piece of the input, undefined at its end. A piece is overwritten by the next call. */
export type NextChunk = () => Uint8Array | undefined;

/** Bytes of a piece of output. Within a core's cache, so that who takes it finds it there. */
const pieceSize = 256 << 10;

/** A step that gives less is not worth a change of threads: small frames and members, as chunked layers have them. */
const minAside = 64 << 10;

const nothing = new Uint8Array(0);

/**
 * The plain bytes, in pieces that stay what they are until the next one is asked for. Closes the decoder. `isCoreIdle`
 * says whether a step should run in another thread. Throws what the decoder or `next` throws.
 */
export async function* decode(
  decoder: Decoder,
  next: NextChunk,
  isCoreIdle: () => boolean,
): AsyncGenerator<Uint8Array> {
  let current = Buffer.allocUnsafeSlow(pieceSize);
  let spare = Buffer.allocUnsafeSlow(pieceSize);
  let filled = 0;
  let from: Uint8Array = nothing;
  let isDrained = false;
  let gain = 0;
  /** The piece before, while the one after it is in the making. */
  let ready: Uint8Array | undefined;
  let running: Promise<DecodeStep> | undefined;
  try {
    for (;;) {
      if (from.length === 0 && !isDrained) {
        from = next() ?? nothing;
        isDrained = from.length === 0;
      }
      let step: DecodeStep;
      if (gain >= minAside && isCoreIdle()) {
        running = decoder.runAside(from, current, filled);
        // It is awaited below, or in the end when the consumer throws.
        running.catch(() => {});
        if (ready !== undefined) yield ready;
        ready = undefined;
        step = await running;
        running = undefined;
      } else {
        if (ready !== undefined) yield ready;
        ready = undefined;
        step = decoder.run(from, current, filled);
      }
      gain = step.filled - filled;
      from = step.consumed === from.length ? nothing : from.subarray(step.consumed);
      filled = step.filled;
      const isLast = isDrained && filled < current.length;
      if (filled < current.length && !isLast) continue;
      if (filled > 0) ready = current.subarray(0, filled);
      [current, spare] = [spare, current];
      filled = 0;
      if (isLast) break;
    }
    if (ready !== undefined) yield ready;
    decoder.finish();
  } finally {
    await running?.catch(() => {});
    decoder.close();
  }
}
