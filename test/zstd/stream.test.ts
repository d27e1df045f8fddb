// zstd data of any length through every provider that runs here: what layers are made of, and what they may be damaged to.
import { createHash } from "node:crypto";
import { describe, expect, it } from "vitest";
import { decode } from "../../src/builder/decode.js";
import { ZstdError } from "../../src/zstd/frame.js";
import { findProvider, type Provider, providerNames } from "../../src/zstd/provider.js";
import { zstdDecoder } from "../../src/zstd/stream.js";
import { noise, rawFrame, skippable, text, zstdPipe, zstdTool } from "./support.js";

const providers = providerNames
  .map(findProvider)
  .filter((provider) => provider !== undefined)
  .filter(({ form }) => form !== "zlib");

/** Decodes `data` handed out in pieces that are overwritten afterwards, as a file is read. */
async function decoded(
  provider: Provider,
  data: Uint8Array,
  piece = 64 << 10,
  aside = false,
): Promise<Buffer> {
  const buffer = Buffer.alloc(piece);
  let at = 0;
  const next = (): Uint8Array | undefined => {
    buffer.fill(0xee);
    const bytes = data.subarray(at, at + piece);
    at += bytes.length;
    buffer.set(bytes);
    return bytes.length === 0 ? undefined : buffer.subarray(0, bytes.length);
  };
  const pieces: Buffer[] = [];
  for await (const bytes of decode(zstdDecoder(provider), next, () => aside)) pieces.push(Buffer.from(bytes));
  return Buffer.concat(pieces);
}

const sha256 = (bytes: Uint8Array): string => createHash("sha256").update(bytes).digest("hex");

const short = text(1000);
const long = Buffer.concat([text(700_000), noise(400_000), Buffer.alloc(300_000), text(500_000, 5)]);

describe.each(providers)("$name as a stream", (provider) => {
  it("reads what the zstd tool writes, from a file and from a pipe", async () => {
    for (const content of [Buffer.alloc(0), Buffer.from("x"), short, long]) {
      for (const packed of [
        zstdTool(content, "-1"),
        zstdTool(content, "-19", "--no-check"),
        zstdPipe(content),
      ]) {
        for (const aside of [false, true]) {
          expect(sha256(await decoded(provider, packed, 64 << 10, aside))).toBe(sha256(content));
        }
      }
    }
  });

  it("reads frames one after another, with skippable and empty ones between, and zeros at the end", async () => {
    const frames = [short, long, Buffer.alloc(0), short].map((content) => zstdTool(content));
    const [one, two, empty, three] = frames as [Buffer, Buffer, Buffer, Buffer];
    const content = Buffer.concat([short, long, short]);
    for (const packed of [
      Buffer.concat([one, two, three]),
      Buffer.concat([empty, one, empty, two, empty, three, empty]),
      Buffer.concat([
        skippable(noise(70_000)),
        one,
        skippable(short, 7),
        two,
        three,
        skippable(Buffer.alloc(0), 15),
      ]),
      Buffer.concat([one, two, three, Buffer.alloc(100_000)]),
    ]) {
      for (const aside of [false, true]) {
        expect(sha256(await decoded(provider, packed, 64 << 10, aside))).toBe(sha256(content));
      }
    }
    expect((await decoded(provider, skippable(short))).length).toBe(0);
  });

  it("reads many small frames in pieces of any size", async () => {
    const contents = Array.from({ length: 150 }, (_, i) => text(i % 50, i));
    const packed = Buffer.concat(contents.flatMap((content) => [zstdTool(content), skippable(content)]));
    for (const piece of [1, 2, 3, 17, 1000]) {
      expect(sha256(await decoded(provider, packed, piece))).toBe(sha256(Buffer.concat(contents)));
    }
  });

  it("reads matches as far back as a window of 128 MiB goes, and refuses a larger window", async () => {
    const far = Buffer.concat([noise(9 << 20), text(1000), noise(9 << 20)]);
    // fzstd moves its whole window for every block.
    const packed = zstdPipe(far, provider.form === "js" ? "--long=24" : "--long=27");
    expect(packed.length).toBeLessThan(10 << 20);
    expect(sha256(await decoded(provider, packed, 1 << 20))).toBe(sha256(far));
    const window = (log: number): number => (log - 10) << 3;
    expect(await decoded(provider, rawFrame([0x00, window(27)], short))).toEqual(short);
    await expect(decoded(provider, rawFrame([0x00, window(28)], short))).rejects.toThrow(
      "zstd: the frame needs a window of 268435456 bytes, at most 134217728 are accepted",
    );
  });

  it("refuses data that ends inside a frame, at every length", async () => {
    const frame = zstdTool(text(300));
    const packed = Buffer.concat([skippable(text(20)), frame, frame]);
    const whole = new Set([0, 28, 28 + frame.length]);
    for (let length = 1; length < packed.length; length++) {
      if (whole.has(length)) continue;
      await expect(decoded(provider, packed.subarray(0, length)), `${length}`).rejects.toThrow(
        `zstd: the data ends inside a frame, after ${length} bytes`,
      );
    }
  });

  it("refuses other bytes after a frame, also after zeros, and dictionaries", async () => {
    const frame = zstdTool(short);
    for (const [packed, message] of [
      [Buffer.concat([frame, Buffer.from("garbage")]), `no frame begins at offset ${frame.length}`],
      [
        Buffer.concat([frame, Buffer.alloc(10), Buffer.from("x")]),
        `no frame begins at offset ${frame.length + 10}`,
      ],
      [
        Buffer.concat([frame, rawFrame([0x21, 7, 200], short.subarray(0, 200))]),
        "the frame needs dictionary 7",
      ],
    ] as const) {
      await expect(decoded(provider, packed)).rejects.toThrow(message);
      // Byte by byte, the library may see what is wrong first, and has its own words for it.
      await expect(decoded(provider, packed, 1)).rejects.toThrow(ZstdError);
    }
  });

  it("gives some bytes or a ZstdError for data with any byte changed", async () => {
    const packed = zstdTool(text(900), "--no-check");
    for (let at = 0; at < packed.length; at++) {
      const damaged = Buffer.from(packed);
      damaged[at] = (damaged[at] as number) ^ 0x11;
      const error = await decoded(provider, damaged).then(
        () => undefined,
        (cause: unknown) => cause,
      );
      if (error !== undefined) expect(error).toBeInstanceOf(ZstdError);
    }
  });

  it("takes no more memory for a content that is a thousand times larger", async () => {
    const packed = zstdPipe(Buffer.alloc(64 << 20));
    expect(packed.length).toBeLessThan(64 << 10);
    let length = 0;
    let largest = 0;
    const pieces = [packed];
    for await (const bytes of decode(
      zstdDecoder(provider),
      () => pieces.shift(),
      () => false,
    )) {
      length += bytes.length;
      largest = Math.max(largest, bytes.length);
    }
    expect(length).toBe(64 << 20);
    expect(largest).toBeLessThanOrEqual(256 << 10);
  });
});
