// Frames of blobs through every provider that runs here. What is accepted must not depend on the provider.
import { afterEach, describe, expect, it } from "vitest";
import { codecOf, type FrameCodec, MAX_FRAME_CONTENT, zstdCodec } from "../../src/zstd/codec.js";
import { ZstdError } from "../../src/zstd/frame.js";
import { chooseProvider, findProvider, nodeZlibProvider, providerNames } from "../../src/zstd/provider.js";
import { noise, rawFrame, skippable, text, zstdPipe, zstdTool } from "./support.js";

const contents: Readonly<Record<string, Buffer>> = {
  empty: Buffer.alloc(0),
  "one byte": Buffer.from("x"),
  "300 bytes": text(300),
  text: text(MAX_FRAME_CONTENT),
  noise: noise(MAX_FRAME_CONTENT),
  zeros: Buffer.alloc(MAX_FRAME_CONTENT),
  mixed: Buffer.concat([text(50_000), noise(30_000), Buffer.alloc(20_000), text(50_000).subarray(0, 31_072)]),
};

/** In order of preference; a Node that has zstd in two forms comes twice. */
const available = [...providerNames.map(findProvider), nodeZlibProvider()]
  .filter((provider) => provider !== undefined)
  .map(codecOf);
const writers = available.filter(({ compress }) => compress !== undefined);

/** toEqual takes a second for buffers of this size. */
function same(found: Buffer, expected: Buffer): void {
  expect(found.length).toBe(expected.length);
  expect(found.equals(expected)).toBe(true);
}

/** Decodes into the middle of a larger buffer and sees to it that nothing beside it changes. */
function decode(codec: FrameCodec, frame: Uint8Array, room: number): Buffer {
  const guard = 4096;
  const around = Buffer.alloc(guard + room + guard, 0xa5);
  let length = 0;
  try {
    length = codec.decompress(frame, around.subarray(guard, guard + room));
  } finally {
    expect(around.subarray(0, guard).every((byte) => byte === 0xa5)).toBe(true);
    expect(around.subarray(guard + room).every((byte) => byte === 0xa5)).toBe(true);
  }
  return around.subarray(guard, guard + length);
}

it("has the pure provider everywhere, and the system's library where these tests run", () => {
  expect(available.map(({ name }) => name)).toEqual(expect.arrayContaining(["libzstd", "fzstd"]));
  expect(writers.length).toBeGreaterThan(0);
});

describe.each(available)("$name $version", (codec) => {
  it.each(Object.keys(contents))("reads frames of the zstd tool: %s", (name) => {
    const content = contents[name] as Buffer;
    for (const args of [["-1"], ["-3"], ["-19"], ["-3", "--no-check"]]) {
      same(decode(codec, zstdTool(content, ...args), content.length), content);
    }
    same(decode(codec, zstdTool(content), MAX_FRAME_CONTENT), content);
  });

  it.each(Object.keys(contents))("reads what every other provider writes: %s", (name) => {
    const content = contents[name] as Buffer;
    for (const { compress } of writers) {
      const frame = Buffer.from((compress as NonNullable<typeof compress>)(content, 3));
      same(decode(codec, frame, content.length), content);
    }
  });

  it("refuses content that does not fit", () => {
    const frame = zstdTool(contents["text"] as Buffer);
    expect(() => decode(codec, frame, MAX_FRAME_CONTENT - 1)).toThrow(
      "zstd: the frame has 131072 bytes of content, there is room for 131071",
    );
  });

  it("refuses a frame that ends early, at every length", () => {
    const frame = zstdTool(text(300));
    for (let length = 0; length < frame.length; length++) {
      expect(() => decode(codec, frame.subarray(0, length), 300), `${length} bytes`).toThrow(ZstdError);
    }
  });

  it("refuses what is not one frame alone", () => {
    const frame = zstdTool(text(300));
    for (const [wrong, message] of [
      [Buffer.concat([frame, frame]), "not one frame alone"],
      [Buffer.concat([frame, Buffer.from([0])]), "not one frame alone"],
      [Buffer.concat([skippable(text(10)), frame]), "not one frame alone"],
      [skippable(text(10)), "not one frame alone"],
      [Buffer.alloc(0), "not one frame alone"],
      [Buffer.from("no zstd at all"), "no frame begins at offset 0"],
    ] as const) {
      expect(() => decode(codec, wrong, 600)).toThrow(new ZstdError(message));
    }
  });

  it("refuses a frame that lies about the size of its content", () => {
    const content = text(200);
    // Single segment, one byte of content size.
    same(decode(codec, rawFrame([0x20, 200], content), 256), content);
    for (const told of [199, 201, 255]) {
      expect(() => decode(codec, rawFrame([0x20, told], content), 256), `${told}`).toThrow(ZstdError);
      // The same with a window, so that the block itself is not too large.
      expect(() => decode(codec, rawFrame([0x40, 0x00, told & 0xff, 0], content), 1024)).toThrow(ZstdError);
    }
    // Eight bytes: more than any buffer, more than a number holds.
    const huge = [0xe0, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff];
    expect(() => decode(codec, rawFrame(huge, content), 256)).toThrow(ZstdError);
  });

  it("refuses frames without a size, with a huge window, with a dictionary, with a reserved bit", () => {
    const content = text(200);
    for (const [head, message] of [
      [[0x00, 0x00], "the frame does not tell the size of its content"],
      [[0x80, 0xff, 200, 0, 0, 0], /window of \d+ bytes, at most 8388608 are accepted/],
      [[0x21, 7, 200], "the frame needs dictionary 7"],
      [[0x28, 200], "the frame header has a reserved bit"],
    ] as const) {
      expect(() => decode(codec, rawFrame(head, content), 256)).toThrow(message);
    }
    expect(() => decode(codec, zstdPipe(text(300)), 300)).toThrow("does not tell the size");
  });

  it("gives right bytes or an error for frames with any byte changed", () => {
    const content = text(1200);
    const frame = zstdTool(content, "--no-check");
    let refused = 0;
    for (let at = 0; at < frame.length; at++) {
      for (const flip of [0x01, 0x10, 0xff]) {
        const damaged = Buffer.from(frame);
        damaged[at] = (damaged[at] as number) ^ flip;
        try {
          expect(decode(codec, damaged, content.length).length).toBeLessThanOrEqual(content.length);
        } catch (cause) {
          expect(cause).toBeInstanceOf(ZstdError);
          refused++;
        }
      }
    }
    expect(refused).toBeGreaterThan(frame.length / 2);
    // It works again after all of that.
    same(decode(codec, frame, content.length), content);
  });
});

describe.each(writers)("$name writes", (codec) => {
  const compress = codec.compress as NonNullable<FrameCodec["compress"]>;

  it("frames that the zstd tool reads, the same each time", () => {
    for (const content of Object.values(contents)) {
      const first = Buffer.from(compress(content, 3));
      const other = Buffer.from(compress(text(5000, 9), 19));
      same(zstdPipe(first, "-d"), content);
      same(zstdPipe(other, "-d"), text(5000, 9));
      same(Buffer.from(compress(content, 3)), first);
    }
  });

  it("at the level asked for, and refuses levels and sizes that are out of range", () => {
    const content = contents["text"] as Buffer;
    expect(compress(content, 19).length).not.toBe(compress(content, 1).length);
    for (const level of [0, 20, 1.5, Number.NaN])
      expect(() => compress(content, level)).toThrow(`no level ${level}`);
    expect(() => compress(Buffer.alloc(MAX_FRAME_CONTENT + 1), 3)).toThrow("131073 bytes for one frame");
  });
});

describe("the choice of a provider", () => {
  const before = process.env["IMGFS_ZSTD"];
  afterEach(() => {
    if (before === undefined) delete process.env["IMGFS_ZSTD"];
    else process.env["IMGFS_ZSTD"] = before;
  });

  it("is the first one that is available", () => {
    delete process.env["IMGFS_ZSTD"];
    expect(chooseProvider().name).toBe(available[0]?.name);
    expect(chooseProvider(({ form }) => form === "js").name).toBe("fzstd");
    expect(zstdCodec()).toBe(zstdCodec());
  });

  it("is the environment's where it names one", () => {
    for (const name of providerNames) {
      process.env["IMGFS_ZSTD"] = name;
      if (findProvider(name) !== undefined) expect(chooseProvider().name).toBe(name);
      else expect(() => chooseProvider()).toThrow(`zstd: IMGFS_ZSTD is ${name}, which is not available here`);
    }
    process.env["IMGFS_ZSTD"] = "gzip";
    expect(() => chooseProvider()).toThrow(
      "zstd: IMGFS_ZSTD is gzip, not one of node, libzstd, zstd-napi, fzstd",
    );
  });
});
