// How a layer is compressed, told by its first bytes: media types are wrong in real images. One row per form; a form
// that is not read is known by name, so that its error says what it is.
import type { TransformOptions } from "node:stream";
import { createGunzip, type ZlibOptions } from "node:zlib";
import { isZstd } from "../zstd/frame.js";
import { zstdDecoder } from "../zstd/stream.js";
import { decode, type NextChunk } from "./decode.js";
import { gzipDecoder } from "./gzip.js";

/** Gives the plain bytes, in pieces that stay what they are until the next one is asked for. */
export type OpenCompressed = (next: NextChunk, isCoreIdle: () => boolean) => AsyncIterable<Uint8Array>;

interface Form {
  readonly name: string;
  readonly matches: (head: Uint8Array) => boolean;
  /** Undefined where the form is not read. */
  readonly open: OpenCompressed | undefined;
}

const begins =
  (...magic: readonly number[]) =>
  (head: Uint8Array): boolean =>
    magic.every((byte, i) => head[i] === byte);

const forms: readonly Form[] = [
  { name: "gzip", matches: begins(0x1f, 0x8b), open: openGzip },
  { name: "zstd", matches: isZstd, open: (next, isCoreIdle) => decode(zstdDecoder(), next, isCoreIdle) },
  { name: "xz", matches: begins(0xfd, 0x37, 0x7a, 0x58, 0x5a, 0x00), open: undefined },
  { name: "bzip2", matches: begins(0x42, 0x5a, 0x68), open: undefined },
];

/** A layer's form by its first bytes: how to read it, undefined for a plain tar. Throws for a form that is not read. */
export function compressionOf(head: Uint8Array): { readonly name: string; readonly open: Form["open"] } {
  const form = forms.find(({ matches }) => matches(head));
  if (form === undefined) return { name: "none", open: undefined };
  if (form.open === undefined) throw new Error(`${form.name} compression is not supported`);
  return { name: form.name, open: form.open };
}

function openGzip(next: NextChunk, isCoreIdle: () => boolean): AsyncIterable<Uint8Array> {
  const decoder = gzipDecoder();
  return decoder === undefined ? gunzip(next) : decode(decoder, next, isCoreIdle);
}

const outputChunk = 256 << 10;

/** Inflates by Node's streams, where no zlib can be called directly; about a fifth slower, otherwise the same. */
export async function* gunzip(next: NextChunk): AsyncGenerator<Uint8Array> {
  const options: ZlibOptions & TransformOptions = {
    chunkSize: outputChunk,
    readableHighWaterMark: 2 * outputChunk,
  };
  const stream = createGunzip(options);
  const feed = async (): Promise<void> => {
    for (let chunk = next(); chunk !== undefined; chunk = next()) {
      const input = chunk;
      if (stream.readableEnded) continue;
      await new Promise<void>((resolve) => stream.write(input, () => resolve()));
      if (stream.errored !== null) return;
    }
    stream.end();
  };
  const feeding = feed().catch((cause: Error) => void stream.destroy(cause));
  try {
    for await (const chunk of stream) yield chunk as Uint8Array;
    await feeding;
  } catch (cause) {
    const error = cause as NodeJS.ErrnoException;
    throw error.code?.startsWith("Z_") ? new Error(`damaged gzip data: ${error.message}`) : error;
  } finally {
    stream.destroy();
  }
}
