// gzip (RFC 1952) as it is found: members one after another, zeros after the last.
import type { Decoder, DecodeStep } from "../base/decoder.js";
import { type InflateStep, InflateStream } from "../sys/libz.js";

function damaged(cause: unknown): Error {
  return new Error(`damaged gzip data: ${(cause as Error).message}`);
}

/** A decoder for one stream that begins with a member; undefined where there is no zlib for it. */
export function gzipDecoder(): Decoder | undefined {
  const stream = InflateStream.create();
  return stream && new GzipDecoder(stream);
}

class GzipDecoder implements Decoder {
  private readonly stream: InflateStream;
  /** Between members, or in the padding after the last. */
  private between = false;
  private padding = false;

  constructor(stream: InflateStream) {
    this.stream = stream;
  }

  run(from: Uint8Array, into: Uint8Array, filled: number): DecodeStep {
    try {
      return this.between && this.skips(from)
        ? { consumed: from.length, filled }
        : this.took(this.stream.run(from, into, filled));
    } catch (cause) {
      throw damaged(cause);
    }
  }

  async runAside(from: Uint8Array, into: Uint8Array, filled: number): Promise<DecodeStep> {
    try {
      return this.between && this.skips(from)
        ? { consumed: from.length, filled }
        : this.took(await this.stream.runAside(from, into, filled));
    } catch (cause) {
      throw damaged(cause);
    }
  }

  finish(): void {
    if (!this.between) throw damaged(new Error("unexpected end of file"));
  }

  close(): void {
    this.stream.close();
  }

  /** After a member: whether there is nothing to inflate. Another member follows, or zeros to the end. */
  private skips(from: Uint8Array): boolean {
    if (from.length === 0) return true;
    if (this.padding || from[0] === 0) {
      this.padding = true;
      if (!from.every((byte) => byte === 0)) throw new Error("incorrect header check after the padding");
      return true;
    }
    this.stream.reset();
    this.between = false;
    return false;
  }

  private took(step: InflateStep): DecodeStep {
    this.between = step.ended;
    return step;
  }
}
