// The bytes of a blob as they arrive: where a body is cut it goes on by Range, also where the server then sends the whole
// again. Exactly the size that the descriptor says comes out; whoever reads the bytes checks their digest.
import type { Endpoint } from "./endpoint.js";
import { RegistryError } from "./errors.js";
import { isPassing } from "./retry.js";
import type { HttpResponse } from "./transport.js";

/** Bytes that count as progress: after so many, the tries begin anew. */
const progress = 256 << 10;

/** Opens a body from a byte on. */
export type OpenBody = (from: number) => Promise<HttpResponse>;

/**
 * Reads a blob of `size` bytes from the byte `start` on. Throws RegistryErrors without the object's name.
 */
export async function* download(
  endpoint: Endpoint,
  open: OpenBody,
  size: number,
  signal: AbortSignal | undefined,
  start = 0,
): AsyncGenerator<Uint8Array> {
  let done = start;
  /** Where the tries were counted from. */
  let mark = start;
  for (let tries = 1; done < size; ) {
    const response = await open(done);
    try {
      for await (const piece of bodyFrom(response, done, size)) {
        signal?.throwIfAborted();
        done += piece.length;
        yield piece;
      }
      if (done === size) return;
      throw new Cut("the body was cut");
    } catch (cause) {
      signal?.throwIfAborted();
      if (!(cause instanceof Cut) && !isPassing(cause)) throw endpoint.explain(cause);
      if (done - mark >= progress) {
        mark = done;
        tries = 1;
      }
      const { message } = endpoint.explain(cause) as Error;
      const where = `${message} at ${done} of ${size} bytes`;
      if (tries >= endpoint.limits.tries) throw new RegistryError("unreachable", where);
      await endpoint.waitFor(tries++, new Error(where), undefined, signal);
    } finally {
      response.body.destroy();
    }
  }
}

class Cut extends Error {}

/** The part of a body that begins at byte `from` of the blob. */
async function* bodyFrom(
  { status, headers, body }: HttpResponse,
  from: number,
  size: number,
): AsyncGenerator<Uint8Array> {
  let skip = from;
  if (status === 206) {
    const range = /^bytes (\d+)-\d+\/(\d+|\*)$/.exec(String(headers["content-range"]));
    if (range === null || Number(range[1]) !== from)
      throw damaged("it answers with another range than was asked for");
    if (range[2] !== "*") checkSize(Number(range[2]), size);
    skip = 0;
  } else if (headers["content-length"] !== undefined) {
    checkSize(Number(headers["content-length"]), size);
  }
  let left = size - from;
  for await (const chunk of body) {
    const piece = skip === 0 ? chunk : chunk.subarray(Math.min(skip, chunk.length));
    skip -= chunk.length - piece.length;
    if (piece.length === 0) continue;
    left -= piece.length;
    if (left < 0) throw damaged(`it sends more than the ${size} bytes that the manifest says`);
    yield piece;
  }
}

function checkSize(told: number, size: number): void {
  if (told !== size) throw damaged(`size mismatch: it has ${told} bytes, the manifest says ${size}`);
}

function damaged(message: string): RegistryError {
  return new RegistryError("damaged", message);
}
