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
 * Reads a blob of `size` bytes from the byte `start` on; where nobody has said how large it is, as many as the server says,
 * or sends, of what it had in the first place. Throws RegistryErrors without the object's name.
 */
async function* download(
  endpoint: Endpoint,
  open: OpenBody,
  size: number | undefined,
  signal: AbortSignal | undefined,
  start: number,
): AsyncGenerator<Uint8Array> {
  let done = start;
  /** Where the tries were counted from. */
  let mark = start;
  let wanted: Wanted = { size, by: "the manifest" };
  for (let tries = 1; wanted.size === undefined || done < wanted.size; ) {
    const response = await open(done);
    try {
      if (size === undefined) wanted = done === 0 ? firstOf(response) : sameAs(wanted, response);
      for await (const piece of bodyFrom(response, done, wanted)) {
        signal?.throwIfAborted();
        done += piece.length;
        yield piece;
      }
      if (wanted.size === undefined || done === wanted.size) return;
      throw new Cut("the body was cut");
    } catch (cause) {
      signal?.throwIfAborted();
      if (!(cause instanceof Cut) && !isPassing(cause)) throw endpoint.explain(cause);
      if (done - mark >= progress) {
        mark = done;
        tries = 1;
      }
      const { message } = endpoint.explain(cause) as Error;
      const where = `${message} at ${done} of ${wanted.size ?? "?"} bytes`;
      if (tries >= endpoint.limits.tries) throw new RegistryError("unreachable", where);
      await endpoint.waitFor(tries++, new Error(where), undefined, signal);
    } finally {
      response.body.destroy();
    }
  }
}

/** One way to a blob. */
export interface Way {
  readonly endpoint: Endpoint;
  readonly open: OpenBody;
  /** Before what is said of a failure. */
  readonly name?: string;
}

/** Reads a blob by the first of `ways` that has it: the next one is tried where nothing has come and `passes` says so. */
export async function* downloadBy(
  ways: readonly Way[],
  passes: (cause: RegistryError) => boolean,
  size: number | undefined,
  signal: AbortSignal | undefined,
  start: number,
): AsyncGenerator<Uint8Array> {
  for (const [i, { endpoint, open, name }] of ways.entries()) {
    let begun = false;
    try {
      for await (const piece of download(endpoint, open, size, signal, start)) {
        begun = true;
        yield piece;
      }
      return;
    } catch (cause) {
      if (!(cause instanceof RegistryError)) throw cause;
      if (begun || i === ways.length - 1 || !passes(cause)) {
        throw name === undefined ? cause : cause.within(name);
      }
    }
  }
}

class Cut extends Error {}

/** What is to come, and who says so. */
interface Wanted {
  readonly size: number | undefined;
  readonly by: string;
  /** What a server calls the version of a blob that nobody has a digest of. */
  readonly version?: string | undefined;
}

function firstOf({ headers }: HttpResponse): Wanted {
  const told = headers["content-length"];
  return {
    size: told === undefined ? undefined : Number(told),
    by: "its first answer",
    version: versionOf(headers),
  };
}

function versionOf(headers: HttpResponse["headers"]): string | undefined {
  const known = headers["etag"] ?? headers["last-modified"];
  return known === undefined ? undefined : String(known);
}

/** Without a digest nothing else would tell that the rest is of another blob. */
function sameAs(wanted: Wanted, { headers }: HttpResponse): Wanted {
  if (wanted.version !== undefined && wanted.version === versionOf(headers)) return wanted;
  throw damaged("it was cut, and what there is now is another one, or may be");
}

/** The part of a body that begins at byte `from` of the blob. */
async function* bodyFrom(
  { status, headers, body }: HttpResponse,
  from: number,
  { size, by }: Wanted,
): AsyncGenerator<Uint8Array> {
  let skip = from;
  const checkSize = (told: number): void => {
    if (size === undefined || told === size) return;
    throw damaged(`size mismatch: it has ${told} bytes, ${by} says ${size}`);
  };
  if (status === 206) {
    const range = /^bytes (\d+)-\d+\/(\d+|\*)$/.exec(String(headers["content-range"]));
    if (range === null || Number(range[1]) !== from)
      throw damaged("it answers with another range than was asked for");
    if (range[2] !== "*") checkSize(Number(range[2]));
    skip = 0;
  } else if (headers["content-length"] !== undefined) {
    checkSize(Number(headers["content-length"]));
  }
  let left = (size ?? Infinity) - from;
  for await (const chunk of body) {
    const piece = skip === 0 ? chunk : chunk.subarray(Math.min(skip, chunk.length));
    skip -= chunk.length - piece.length;
    if (piece.length === 0) continue;
    left -= piece.length;
    if (left < 0) throw damaged(`it sends more than the ${size} bytes that ${by} says`);
    yield piece;
  }
}

function damaged(message: string): RegistryError {
  return new RegistryError("damaged", message);
}
