// Reads archives that are compressed as a whole, in whatever form a layer may be.
import { closeSync, openSync, readSync } from "node:fs";
import { availableParallelism } from "node:os";
import type { Unpacking } from "../oci/source.js";
import { compressionOf } from "./compression.js";

const inputChunk = 512 << 10;

/** Nothing else of the build is at work yet. */
const isCoreIdle = (): boolean => availableParallelism() > 1;

/** `temporary` makes paths for files of the build; the signal ends an iteration at its next piece. */
export function createUnpacking(temporary: () => string, signal: AbortSignal | undefined): Unpacking {
  return {
    temporary,
    open(path) {
      const pieces = filePieces(path, signal);
      const head = pieces.next().value ?? new Uint8Array(0);
      const { name, open } = formOf(path, head);
      if (open === undefined) {
        pieces.return();
        return undefined;
      }
      let first: Uint8Array | undefined = head;
      const next = (): Uint8Array | undefined => {
        const piece = first ?? (pieces.next().value || undefined);
        first = undefined;
        return piece;
      };
      return { compression: name, bytes: closing(open(next, isCoreIdle), pieces) };
    },
  };
}

function formOf(path: string, head: Uint8Array): ReturnType<typeof compressionOf> {
  try {
    return compressionOf(head);
  } catch (cause) {
    throw new Error(`${path}: ${(cause as Error).message}`);
  }
}

async function* closing(
  bytes: AsyncIterable<Uint8Array>,
  pieces: Generator<Uint8Array, void>,
): AsyncGenerator<Uint8Array> {
  try {
    yield* bytes;
  } finally {
    pieces.return();
  }
}

function* filePieces(path: string, signal: AbortSignal | undefined): Generator<Uint8Array, void> {
  const fd = openSync(path, "r");
  try {
    const buffer = Buffer.allocUnsafeSlow(inputChunk);
    for (;;) {
      signal?.throwIfAborted();
      const length = readSync(fd, buffer);
      if (length === 0) return;
      yield buffer.subarray(0, length);
    }
  } finally {
    closeSync(fd);
  }
}
