// The bytes of a layer as they lie in its source, in pieces, hashed as they are read.
import { createHash, type Hash } from "node:crypto";
import { closeSync, openSync, readSync } from "node:fs";
import { digestAlgorithm, type SourceDigest } from "../base/digest.js";
import type { FileBytes, LayerSource } from "../oci/source.js";
import { feedPieces } from "./feed.js";
import { Stopped } from "./shared.js";
import { treeTar } from "./tree/stream.js";

const inputChunk = 512 << 10;

/** How a conversion is watched from its input. */
export interface InputWatch {
  /** Gets the number of source bytes read so far, for each piece. */
  readonly onProgress: (done: number) => void;
  /** Asked before each piece; true makes the conversion throw. */
  readonly isStopped: () => boolean;
  /** Gets a line for what the image will lack. */
  readonly onWarning: (message: string) => void;
}

export class Input {
  /** sha256, unless the source names its bytes by another one. */
  readonly algorithm: ReturnType<typeof digestAlgorithm>;
  private readonly hash: Hash;
  private readonly pieces: Iterator<Uint8Array, void>;
  private readonly watch: InputWatch;
  private done = 0;
  private digest: SourceDigest | undefined;

  /** `feed` has the bytes of a remote layer. */
  constructor({ bytes, digest }: LayerSource, watch: InputWatch, feed?: SharedArrayBuffer) {
    this.algorithm = digest === undefined ? "sha256" : digestAlgorithm(digest);
    this.hash = createHash(this.algorithm);
    this.watch = watch;
    if (bytes.kind === "file") this.pieces = filePieces(bytes);
    else if (bytes.kind === "tree") this.pieces = treeTar(bytes.path, watch.onWarning);
    else if (bytes.kind === "embedded") this.pieces = [bytes.bytes].values();
    else if (feed !== undefined) this.pieces = feedPieces(feed);
    else throw new Error("a remote layer has to be fetched");
  }

  /** The next piece, which stays what it is until the next call. Throws when the source ends before its size. */
  next(): Uint8Array | undefined {
    if (this.watch.isStopped()) throw new Stopped();
    const { value: piece } = this.pieces.next();
    if (piece === undefined) return undefined;
    this.hash.update(piece);
    this.done += piece.length;
    this.watch.onProgress(this.done);
    return piece;
  }

  /** The digest of all bytes; what was not read yet is read now. */
  finish(): SourceDigest {
    while (this.digest === undefined && this.next() !== undefined);
    this.digest ??= `${this.algorithm}:${this.hash.digest("hex")}` as SourceDigest;
    return this.digest;
  }

  close(): void {
    this.pieces.return?.();
  }
}

/** One buffer for all pieces: garbage of this size would be collected too late to keep memory small. */
function* filePieces({ path, offset, size }: FileBytes): Generator<Uint8Array, void> {
  const fd = openSync(path, "r");
  try {
    const buffer = Buffer.allocUnsafeSlow(inputChunk);
    for (let done = 0; done < size; ) {
      const length = readSync(fd, buffer, 0, Math.min(inputChunk, size - done), offset + done);
      if (length === 0) throw new Error(`size mismatch: ${done} bytes, expected ${size}`);
      done += length;
      yield buffer.subarray(0, length);
    }
  } finally {
    closeSync(fd);
  }
}
