// What turns compressed bytes into plain ones, whatever the compression and the library behind it.

/** How far one step of a decoder has come. */
export interface DecodeStep {
  /** Bytes of the input that are used up. */
  readonly consumed: number;
  /** Bytes of the output that are filled. */
  readonly filled: number;
}

/**
 * One stream. Input is given in any pieces, an empty one when there is no more; what was not consumed is given again,
 * with what follows it, at the next step. An output that is not full after the input was consumed says that
 * everything so far is out. Errors are plain Errors that name the compression and the problem.
 */
export interface Decoder {
  /** Decodes from `from` into `into`, from its byte `filled` on; it may stop early where a part of the stream ends. */
  run(from: Uint8Array, into: Uint8Array, filled: number): DecodeStep;
  /** The same in another thread, where the library can: both buffers are its own until the promise settles. */
  runAside(from: Uint8Array, into: Uint8Array, filled: number): Promise<DecodeStep>;
  /** Says that all input was given and all output taken. Throws when the stream is not complete. */
  finish(): void;
  /** Frees its memory; never while a step is running. */
  close(): void;
}
