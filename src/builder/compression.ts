// How a layer is compressed, told by its first bytes: media types are wrong in real images. One row per form; a form
// that cannot be read yet is known by name, so that its error says what it is.
import type { TransformOptions } from "node:stream";
import { createGunzip, type ZlibOptions } from "node:zlib";

/** Gives the next piece of the input, undefined at its end. A piece may be overwritten by the next call. */
export type NextChunk = () => Uint8Array | undefined;

interface Form {
  readonly name: string;
  readonly magic: readonly number[];
  /** Undefined where the form is not supported yet. */
  readonly open: ((next: NextChunk) => AsyncIterable<Uint8Array>) | undefined;
}

const forms: readonly Form[] = [
  { name: "gzip", magic: [0x1f, 0x8b], open: gunzip },
  { name: "zstd", magic: [0x28, 0xb5, 0x2f, 0xfd], open: undefined },
  { name: "xz", magic: [0xfd, 0x37, 0x7a, 0x58, 0x5a, 0x00], open: undefined },
  { name: "bzip2", magic: [0x42, 0x5a, 0x68], open: undefined },
];

/** Bytes of output per piece. Measured on a 196 MB layer: 64 KiB to 1 MiB cost the same processor time within noise. */
const outputChunk = 256 << 10;

/** A layer's form by its first bytes: how to read it, undefined for a plain tar. Throws for a form not supported. */
export function compressionOf(head: Uint8Array): { readonly name: string; readonly open: Form["open"] } {
  for (const { name, magic, open } of forms) {
    if (!magic.every((byte, i) => head[i] === byte)) continue;
    if (open === undefined) throw new Error(`${name} compression is not supported yet`);
    return { name, open };
  }
  return { name: "none", open: undefined };
}

/**
 * Inflates gzip (RFC 1952), several members one after another included. zlib runs in a helper thread, so the consumer
 * hashes and writes one piece while the next is inflated. Zeros after the last member are padding; all input is taken
 * even so, because its digest covers every byte.
 */
async function* gunzip(next: NextChunk): AsyncGenerator<Uint8Array> {
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
