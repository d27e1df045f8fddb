// The digest of a content that is stored already, from its bytes piece by piece.
import { createHash } from "node:crypto";
import { contentDigest, type Run } from "./contents.js";

const CHUNK = 1 << 20;
let buffer: Buffer | undefined;

/** A run with its length; `rawOffset` is whatever the reader of it understands. */
export interface HashedRun extends Run {
  readonly length: number;
}

/** The content's digest as FORMAT.md defines it. `read` fills `into`, or throws. */
export function hashContent<R extends HashedRun>(
  size: number,
  runs: readonly R[],
  read: (run: R, rawOffset: number, into: Uint8Array) => void,
): Uint8Array {
  const hash = createHash("sha256");
  for (const run of runs) {
    if (run.rawOffset === undefined) continue;
    for (let at = 0; at < run.length; at += CHUNK) {
      const length = Math.min(CHUNK, run.length - at);
      if (buffer === undefined || buffer.length < length) {
        buffer = Buffer.allocUnsafeSlow(length <= CHUNK / 4 ? CHUNK / 4 : CHUNK);
      }
      const piece = buffer.subarray(0, length);
      read(run, run.rawOffset + at, piece);
      hash.update(piece);
    }
  }
  return contentDigest(size, runs, hash.digest());
}
