// How a blob stores its data: the codec and its level. With the diffID they are the blob's key, and so its file name.
import { CODEC_NONE, type CodecName, codecNames, MAX_LEVEL } from "./layout.js";

export interface Codec {
  readonly name: CodecName;
  /** 1 to 19; 0 with `none`. */
  readonly level: number;
}

/** Stored bytes are the file's bytes. */
export const noCodec: Codec = { name: "none", level: 0 };
const DEFAULT_LEVEL = 3;

/** The codec of `none`, `zstd` or `zstd:LEVEL`. Throws an Error naming the text. */
export function parseCodec(text: string): Codec {
  if (text === "none") return noCodec;
  const [, level] = /^zstd(?::([1-9][0-9]?))?$/.exec(text) ?? [undefined, "0"];
  const codec: Codec = { name: "zstd", level: level === undefined ? DEFAULT_LEVEL : Number(level) };
  if (codec.level < 1 || codec.level > MAX_LEVEL) {
    throw new Error(
      `not a codec: ${JSON.stringify(text)} (none, zstd, or zstd:LEVEL with 1 to ${MAX_LEVEL})`,
    );
  }
  return codec;
}

/** `none` or `zstd:LEVEL`. */
export function codecText({ name, level }: Codec): string {
  return name === "none" ? name : `${name}:${level}`;
}

/** The codec that a header names. */
export function codecOf(header: { readonly codec: number; readonly codecLevel: number }): Codec {
  if (header.codec === CODEC_NONE) return noCodec;
  return { name: codecNames[header.codec] as CodecName, level: header.codecLevel };
}
