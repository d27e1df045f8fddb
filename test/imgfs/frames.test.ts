// Compressed layers: the same tree as without a codec, frames read right whatever is asked, damage found and named.
import { closeSync, existsSync, openSync, readFileSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { describe, expect, it } from "vitest";
import { digestHex, sha256 } from "../../src/base/digest.js";
import { checkImage } from "../../src/imgfs/check.js";
import { codecText, noCodec, parseCodec } from "../../src/imgfs/codec.js";
import { Corrupt } from "../../src/imgfs/errors.js";
import { blobFile } from "../../src/imgfs/folder.js";
import { Image } from "../../src/imgfs/image.js";
import * as L from "../../src/imgfs/layout.js";
import { mergeLayers } from "../../src/imgfs/merge.js";
import { type Elsewhere, runTask, type Work } from "../../src/imgfs/work.js";
import { LayerWriter } from "../../src/imgfs/writer.js";
import { allocatePages } from "../../src/sys/memory.js";
import { reseal, sectionOf } from "./reseal.js";
import { directory, file, find, list, noise, readAll, scratch, temporary, writeLayer } from "./support.js";

const zstd = parseCodec("zstd");
const golden = JSON.parse(readFileSync(join(import.meta.dirname, "../golden/frames.json"), "utf8")) as Record<
  string,
  unknown
>;

const text = Buffer.alloc(700_001, "some text that compresses well, ");
/** Text, zeros and noise by turns, so that frames of every kind occur. */
const mixed = Buffer.concat([
  text.subarray(0, 300_000),
  Buffer.alloc(400_000),
  noise(300_000),
  text.subarray(0, 100_000),
  Buffer.alloc(1),
]);

function tree() {
  return directory({
    text: file(text),
    mixed: file(mixed),
    small: directory(
      Object.fromEntries(Array.from({ length: 50 }, (_, i) => [`f${i}`, file(`content ${i}`)])),
    ),
    sparse: file([8192, noise(200_000, 1), 300_000, text.subarray(0, 5000), 7]),
    hole: file([500_000]),
    empty: file(""),
  });
}

/** Helper threads that begin work as the test says, seen by a thread that others wait for. */
function busy(begin: (work: Work) => boolean): Elsewhere {
  return { begin, idle: () => false };
}

function use<T>(path: string, run: (image: Image) => T, options = {}): T {
  const image = Image.open(path, options);
  try {
    return run(image);
  } finally {
    image.close();
  }
}

const region = allocatePages(1 << 20);
function readPart(image: Image, row: number, offset: number, length: number): Buffer {
  const target = { address: region.address, bytes: region.bytes, start: 0 };
  return Buffer.from(region.bytes.subarray(0, image.read(row, offset, target, length)));
}

describe("a compressed layer", () => {
  const plain = writeLayer(tree());
  const packed = writeLayer(tree(), undefined, undefined, zstd);

  it("is the same tree with the same contents in less room", () => {
    expect(packed.summary).toMatchObject({
      treeRoot: plain.summary.treeRoot,
      uniqueBytes: plain.summary.uniqueBytes,
      rawSize: plain.summary.rawSize,
    });
    expect(packed.summary.dataSize).toBeLessThan(plain.summary.dataSize * 0.5);
    expect(use(packed.path, list)).toEqual(use(plain.path, list));
    const { findings, dataBytes } = checkImage(packed.path, { data: true });
    expect(findings).toEqual([]);
    expect(dataBytes).toBe(packed.summary.uniqueBytes);
  });

  it("stores zeros as nothing and noise as it is", () => {
    const bytes = readFileSync(packed.path);
    const { offset, length } = sectionOf(bytes, "frame");
    const starts = Array.from({ length: length / 8 }, (_, i) =>
      Number(bytes.readBigUInt64LE(offset + i * 8)),
    );
    const sizes = starts.slice(1).map((start, i) => start - (starts[i] as number));
    expect(sizes.filter((size) => size === 0).length).toBeGreaterThanOrEqual(2);
    expect(sizes.filter((size) => size === L.FRAME).length).toBeGreaterThanOrEqual(2);
    expect(sizes.filter((size) => size > 0 && size < L.FRAME / 10).length).toBeGreaterThanOrEqual(4);
  });

  it("reads any part of any file", () => {
    use(packed.path, (image) => {
      for (const [name, data] of [["text", text] as const, ["mixed", mixed] as const]) {
        const row = find(image, name);
        for (let i = 0; i < 400; i++) {
          const offset = noise(4, i).readUInt32LE() % data.length;
          const length = noise(4, i + 1000).readUInt32LE() % 300_000;
          expect(readPart(image, row, offset, length).equals(data.subarray(offset, offset + length))).toBe(
            true,
          );
        }
      }
    });
  });

  it("lies beside the plain one, and an index says which it means", () => {
    const source = sha256(Buffer.from("a layer"));
    const index = (codec: typeof zstd, other: typeof zstd): string => {
      const paths = [codec, other].map((c, i) => {
        const id = i === 0 ? source : sha256(Buffer.from("another"));
        const path = join(scratch, blobFile(id, c));
        const root = i === 0 ? tree() : directory({ more: file(text) });
        return existsSync(path) ? path : writeLayer(root, path, id, c).path;
      });
      const images = paths.map((path) => Image.open(path));
      const merged = temporary("index");
      writeFileSync(merged, mergeLayers(images));
      for (const image of images) image.close();
      return merged;
    };
    expect(blobFile(source, parseCodec("zstd:19"))).toBe(`${digestHex(source)}.zstd-19.imgfs`);
    const [none, some, all] = [
      index(noCodec, noCodec),
      index(parseCodec("zstd:1"), noCodec),
      index(parseCodec("zstd:2"), parseCodec("zstd:4")),
    ].map((path) =>
      use(path, (image) => {
        image.openBlobs();
        expect(checkImage(path, { data: true }).findings).toEqual([]);
        return {
          tree: image.treeRoot,
          list: list(image),
          codecs: image.blobs.map((b) => codecText(b.codec)),
        };
      }),
    );
    expect(some).toMatchObject({ tree: none?.tree, list: none?.list, codecs: ["zstd:1", "none"] });
    const forged = readFileSync(index(parseCodec("zstd:5"), noCodec));
    forged.writeUInt8(0, L.Header.incompatible);
    const silent = temporary("index");
    writeFileSync(silent, reseal(forged));
    expect(() => Image.open(silent)).toThrow("blob 1 has a codec, of which the header says nothing");
    expect(all).toMatchObject({ tree: none?.tree, list: none?.list, codecs: ["zstd:2", "zstd:4"] });
  });

  it("has pinned bytes where no compressor has a say", () => {
    const whole = directory({
      noise: file(noise(2 * L.FRAME)),
      zeros: file(Buffer.alloc(2 * L.FRAME)),
      end: file(noise(777, 2)),
    });
    const layer = writeLayer(whole, undefined, sha256(Buffer.from("frames")), zstd);
    expect({ file: sha256(readFileSync(layer.path)), ...layer.summary }).toEqual(golden);
  });
});

describe("the writer of compressed layers", () => {
  it("leaves no trace of a repeated content, nor of one the tree does not have", () => {
    const write = (extra: boolean) => {
      const path = temporary();
      const writer = LayerWriter.create(path, zstd);
      const put = (...pieces: Buffer[]) => {
        writer.beginContent();
        for (const piece of pieces) writer.append(piece);
        return writer.endContent();
      };
      const root = directory({ a: file(""), b: file(""), c: file(""), d: file("") });
      const set = (name: string, content: ReturnType<typeof put>) =>
        Object.assign([...root.entries].find(([key]) => key === name)?.[1] as object, { content });
      if (extra) put(Buffer.from("replaced later"));
      set("a", put(noise(1000), text));
      // Longer than a frame and than the buffer before it, from the middle of a frame.
      if (extra) put(noise(1000), text);
      set("b", put(mixed));
      if (extra) for (let i = 0; i < 3; i++) put(mixed);
      if (extra) put(noise(3 << 20, 9));
      set("c", put(text, text, text));
      if (extra) put(mixed.subarray(1));
      if (extra) put(text, text, text);
      set("d", put(Buffer.alloc(L.FRAME * 3)));
      if (extra) put(Buffer.alloc(L.FRAME * 3));
      writer.finish(root, sha256(Buffer.from("x")));
      expect(checkImage(path, { data: true }).findings).toEqual([]);
      return readFileSync(path);
    };
    expect(write(true).equals(write(false))).toBe(true);
  });

  it("rewinds to the start of a frame, and across many", () => {
    const path = temporary();
    const writer = LayerWriter.create(path, zstd);
    const put = (bytes: Buffer) => {
      writer.beginContent();
      for (let at = 0; at < bytes.length; at += 50_000) writer.append(bytes.subarray(at, at + 50_000));
      return writer.endContent();
    };
    const root = directory({ a: file(""), b: file("") });
    const long = Buffer.concat([noise(L.FRAME), text, text, text, text]);
    const first = put(noise(2 * L.FRAME, 5));
    const second = put(long);
    for (let i = 0; i < 3; i++) {
      put(noise(2 * L.FRAME, 5));
      expect(put(long)).toEqual(second);
    }
    const [a, b] = [...root.entries.values()];
    Object.assign(a as object, { content: first });
    Object.assign(b as object, { content: second });
    writer.finish(root, sha256(Buffer.from("x")));
    expect(checkImage(path, { data: true }).findings).toEqual([]);
    use(path, (image) => expect(readAll(image, find(image, "b")).equals(long)).toBe(true));
  });

  it("takes levels 1 to 19 and names what it does not take", () => {
    expect([parseCodec("none"), parseCodec("zstd"), parseCodec("zstd:19")].map(codecText)).toEqual([
      "none",
      "zstd:3",
      "zstd:19",
    ]);
    for (const bad of ["", "lz4", "zstd:", "zstd:0", "zstd:20", "zstd:03", "none:1", "zstd:3 "]) {
      expect(() => parseCodec(bad)).toThrow(`not a codec: ${JSON.stringify(bad)}`);
    }
    const [fast, small] = [1, 19].map(
      (level) => writeLayer(tree(), undefined, undefined, { name: "zstd", level }).summary,
    );
    expect(small?.treeRoot).toBe(fast?.treeRoot);
    expect(small?.dataSize).toBeLessThan(fast?.dataSize as number);
  });

  it("writes an empty layer, and one of zeros alone, which has no data", () => {
    const empty = writeLayer(directory({}), undefined, undefined, zstd);
    const zeros = writeLayer(directory({ z: file(Buffer.alloc(500_000)) }), undefined, undefined, zstd);
    expect([empty.summary, zeros.summary]).toMatchObject([
      { rawSize: 0, dataSize: 0 },
      { rawSize: 500_000, dataSize: 0 },
    ]);
    for (const { path } of [empty, zeros]) expect(checkImage(path, { data: true }).findings).toEqual([]);
    use(zeros.path, (image) =>
      expect(readAll(image, find(image, "z")).equals(Buffer.alloc(500_000))).toBe(true),
    );
  });
});

describe("damage of compressed layers", () => {
  const { path } = writeLayer(tree(), undefined, undefined, zstd);
  const sound = readFileSync(path);
  const frames = sectionOf(sound, "frame");
  const changed = (change: (bytes: Buffer) => void): string => {
    const bytes = Buffer.from(sound);
    change(bytes);
    const target = temporary();
    writeFileSync(target, bytes);
    return target;
  };
  const flip = (at: number) =>
    changed((bytes) => {
      bytes[at] = (bytes[at] as number) ^ 1;
    });

  it("is found at every byte, and named by frame in the data", () => {
    const dataOffset = Number(sound.readBigUInt64LE(L.Header.dataOffset));
    for (let at = 0; at < sound.length; at += 4099) {
      const { findings } = checkImage(flip(at), { data: true });
      if (findings.length === 0) throw new Error(`byte ${at} of ${sound.length}`);
      if (at >= dataOffset) {
        expect(findings).toMatchObject(
          [{ section: "data", problem: "stored bytes differ from their digest", record: /^frame \d+$/ }].map(
            ({ record, ...rest }) => ({ ...rest, record: expect.stringMatching(record) }),
          ),
        );
      }
    }
  });

  it("in the tables is refused where it is touched", () => {
    for (const name of ["frame", "frameDigest"] as const) {
      const { offset, length } = sectionOf(sound, name);
      for (const at of [offset, offset + (length >> 1), offset + length - 1]) {
        const target = flip(at);
        use(target, (image) => expect(() => list(image)).toThrow(L.Section[name].name));
        expect(
          checkImage(target, { data: false })
            .findings.map(({ section }) => section)
            .join(),
        ).toContain(L.Section[name].name);
      }
    }
  });

  const start = (bytes: Buffer, frame: number) => bytes.readBigUInt64LE(frames.offset + frame * 8);
  const move = (bytes: Buffer, frame: number, to: bigint) =>
    bytes.writeBigUInt64LE(to, frames.offset + frame * 8);
  const last = frames.length / 8 - 1;
  const forged: ReadonlyArray<[string, (bytes: Buffer) => void]> = [
    ["a frame that ends before it begins", (b) => move(b, 1, start(b, 2) + 1n)],
    ["a frame outside the data", (b) => move(b, last - 1, 1n << 40n)],
    ["a frame beyond 2^53", (b) => move(b, 1, 1n << 63n)],
    ["a frame that is larger than what it holds", (b) => move(b, 1, start(b, last))],
    ["a frame with a byte of the next one", (b) => move(b, 1, start(b, 1) + 1n)],
    ["a frame that says it is zeros", (b) => move(b, 1, 0n)],
    [
      "a digest of another frame",
      (b) => {
        const { offset, length } = sectionOf(b, "frameDigest");
        b.copy(b, offset, offset + length - 32, offset + length);
      },
    ],
  ];
  it.each(forged)(
    "%s, with right digests above it, is Corrupt in use and found by the checker",
    (_name, change) => {
      const target = changed((bytes) => {
        change(bytes);
        reseal(bytes);
      });
      expect(() => use(target, list)).toThrow(Corrupt);
      expect(checkImage(target, { data: true }).findings.length).toBeGreaterThan(0);
    },
  );

  const headers: ReadonlyArray<[string, (bytes: Buffer) => void, RegExp]> = [
    ["no level", (b) => b.writeUInt8(0, L.Header.codecLevel), /codec_level: 0 with codec zstd/],
    ["level 20", (b) => b.writeUInt8(20, L.Header.codecLevel), /codec_level: 20 with codec zstd/],
    ["codec none", (b) => b.writeUInt8(0, L.Header.codec), /codec_level: 3 with codec none/],
    [
      "one frame more",
      (b) => b.writeBigUInt64LE(b.readBigUInt64LE(L.Header.rawSize) + BigInt(L.FRAME), L.Header.rawSize),
      /section FRAME: \d+ records for \d+ frames/,
    ],
    [
      "less raw than stored bytes",
      (b) => b.writeBigUInt64LE(5n, L.Header.rawSize),
      /raw_size: 5, but data_size/,
    ],
  ];
  it.each(headers)("a header with %s is refused", (_name, change, message) => {
    const target = changed((bytes) => {
      change(bytes);
      reseal(bytes);
    });
    expect(() => Image.open(target)).toThrow(message);
    expect(checkImage(target, { data: false }).findings.length).toBeGreaterThan(0);
  });

  it("is for good, and leaves the rest readable", () => {
    const dataOffset = Number(sound.readBigUInt64LE(L.Header.dataOffset));
    use(flip(dataOffset + 5), (image) => {
      const thrown = (): unknown => {
        try {
          readPart(image, find(image, "text"), 100, 10);
          return undefined;
        } catch (cause) {
          return cause;
        }
      };
      const first = thrown();
      expect(String(first)).toContain("data: frame 0: stored bytes differ from their digest");
      expect(thrown()).toBe(first);
      expect(readPart(image, find(image, "mixed"), 500_000, 10)).toEqual(mixed.subarray(500_000, 500_010));
    });
  });
});

describe("frames decoded elsewhere", () => {
  const { path } = writeLayer(tree(), undefined, undefined, zstd);

  function prepared(
    image: Image,
    name: string,
    offset: number,
    length: number,
  ): { key: number; work: Work[] } {
    const work: Work[] = [];
    const key = image.prepare(
      find(image, name),
      offset,
      length,
      busy((item) => work.push(item) > 0),
    );
    return { key, work };
  }

  it("are asked for once, those that follow included, and then at hand", () => {
    use(path, (image) => {
      const { key, work } = prepared(image, "text", 0, text.length);
      const frames = work.map(({ task }) => (task.kind === "frames" ? task.frames.length : 0));
      expect(frames.reduce((sum, count) => sum + count, 0)).toBe(Math.ceil(text.length / L.FRAME));
      expect(work.map((item) => item.key)).toContain(key);
      expect(new Set(work.map((item) => item.key)).size).toBe(work.length);
      // Under way: nothing is asked for again, but there is still something to wait for.
      const again = prepared(image, "text", 0, text.length);
      expect([again.key, again.work]).toEqual([key, []]);
      // A read that does not wait decodes for itself.
      expect(readPart(image, find(image, "text"), 5, 1000)).toEqual(text.subarray(5, 1005));
      for (const { task, done } of work) done(runTask(structuredClone(task)));
      expect(prepared(image, "text", 0, 4096)).toEqual({ key: 0, work: [] });
      expect(readAll(image, find(image, "text")).equals(text)).toBe(true);
    });
  });

  it("are a few that follow when reads go on in order, and none that nobody waits for", () => {
    use(path, (image) => {
      const steps = (name: string, offsets: readonly number[]): number[] =>
        offsets.map((offset) => {
          const begun: Work[] = [];
          const elsewhere = { begin: (item: Work) => begun.push(item) > 0, idle: () => true };
          expect(image.prepare(find(image, name), offset, 4096, elsewhere)).toBe(0);
          for (const { task, done } of begun) done(runTask(task));
          readPart(image, find(image, name), offset, 4096);
          return begun.length;
        });
      // Ahead of frame 1 are 2, 3 and 4, two at a time; ahead of 2 everything is at hand, ahead of 3 no longer.
      const at = [0, 5000, 1, 2, 3, 10_000, 2].map((x) => (x < 10 ? x * L.FRAME : x));
      expect(steps("text", at)).toEqual([0, 0, 2, 0, 1, 0, 0]);
      // A read of two frames is done here, one of more elsewhere.
      const large = (length: number) => {
        const begun: Work[] = [];
        image.prepare(find(image, "mixed"), 0, length, {
          begin: (item) => begun.push(item) > 0,
          idle: () => true,
        });
        return begun.length;
      };
      expect(large(L.FRAME)).toBe(0);
      expect(large(mixed.length)).toBeGreaterThan(2);
    });
  });

  it("are decoded by the reader when nobody takes the work", () => {
    use(path, (image) => {
      expect(
        image.prepare(
          find(image, "text"),
          0,
          text.length,
          busy(() => false),
        ),
      ).toBe(0);
      expect(readAll(image, find(image, "text")).equals(text)).toBe(true);
    });
  });

  it("tell of damage by the same Corrupt as the reader's own", () => {
    const bytes = readFileSync(path);
    const at = Number(bytes.readBigUInt64LE(L.Header.dataOffset)) + 5;
    bytes[at] = (bytes[at] as number) ^ 1;
    const target = temporary();
    writeFileSync(target, bytes);
    use(target, (image) => {
      for (const { task, done } of prepared(image, "text", 0, 1).work) done(runTask(task));
      expect(() => readPart(image, find(image, "text"), 0, 1)).toThrow(/frame 0: stored bytes differ/);
      expect(prepared(image, "text", 0, 1)).toEqual({ key: 0, work: [] });
    });
  });

  it("give way to others when there are more than the cache holds", () => {
    const parts = Array.from({ length: 400 }, (_, i) => Buffer.alloc(L.FRAME, `frame ${i} `));
    const large = Buffer.concat(parts);
    const layer = writeLayer(directory({ large: file(large) }), undefined, undefined, zstd);
    use(layer.path, (image) => {
      const row = find(image, "large");
      // More work than is ever under way at once; the rest is for the reader.
      const { work } = prepared(image, "large", 0, large.length);
      expect(work.length).toBeLessThan(100);
      for (let i = 0; i < 1000; i++) {
        const offset = noise(4, i).readUInt32LE() % (large.length - 5000);
        expect(readPart(image, row, offset, 5000).equals(large.subarray(offset, offset + 5000))).toBe(true);
      }
      for (const { task, done } of work) done(runTask(task));
      for (let i = 0; i < 1000; i++) {
        const offset = noise(4, i + 5000).readUInt32LE() % (large.length - 5000);
        const { work: more } = prepared(image, "large", offset, 5000);
        for (const { task, done } of more) done(runTask(task));
        expect(readPart(image, row, offset, 5000).equals(large.subarray(offset, offset + 5000))).toBe(true);
      }
    });
  });

  it("become a whole file in a copy", () => {
    use(path, (image) => {
      for (const name of ["text", "mixed", "sparse"]) {
        const row = find(image, name);
        const target = temporary("copy");
        const size = image.size(row) - 3;
        writeFileSync(target, Buffer.alloc(size));
        const to = openSync(target, "r+");
        const task = image.copyTask(row, size, to, true);
        expect(runTask(task as NonNullable<typeof task>)).toEqual({ status: 0 });
        closeSync(to);
        expect(readFileSync(target).equals(readAll(image, row).subarray(0, size))).toBe(true);
      }
      expect(image.copyTask(find(image, "hole"), 500_000, 0, false)).toBeUndefined();
      expect(image.dataRanges(find(image, "text"), () => expect.unreachable())).toBe(false);
    });
  });
});

describe("an image that verifies", () => {
  const { path } = writeLayer(tree());
  const sound = readFileSync(path);
  const damagedAt = (marker: Buffer, distance: number): string => {
    const bytes = Buffer.from(sound);
    const at = bytes.indexOf(marker) + distance;
    bytes[at] = (bytes[at] as number) ^ 1;
    const target = temporary();
    writeFileSync(target, bytes);
    return target;
  };

  it("gives out nothing of a damaged content, and everything of the others", () => {
    const target = damagedAt(text.subarray(0, 5000), 600_000);
    const first = (image: Image) => readPart(image, find(image, "text"), 0, 10);
    expect(use(target, first)).toEqual(text.subarray(0, 10));
    use(
      target,
      (image) => {
        expect(() => first(image)).toThrow(
          /data: content \d+, from byte \d+: 700001 bytes differ from their digest/,
        );
        expect(() => image.dataRanges(find(image, "text"), () => {})).toThrow(Corrupt);
        expect(readAll(image, find(image, "mixed")).equals(mixed)).toBe(true);
        expect(readAll(image, find(image, "small/f7")).toString()).toBe("content 7");
      },
      { verify: true },
    );
    expect(use(path, list, { verify: true })).toEqual(use(path, list));
  });

  it("has large contents checked elsewhere, once", () => {
    for (const [target, sane] of [
      [path, true],
      [damagedAt(noise(4096, 1), 100_000), false],
    ] as const) {
      use(
        target,
        (image) => {
          const row = find(image, "sparse");
          const work: Work[] = [];
          const start = busy((item) => work.push(item) > 0);
          const key = image.prepare(row, 0, 10, start);
          expect([key === 0, image.prepare(row, 0, 10, start) === key, work.length]).toEqual([
            false,
            true,
            1,
          ]);
          for (const { task, done } of work.splice(0)) done(runTask(structuredClone(task)));
          expect([image.prepare(row, 0, 10, start), work]).toEqual([0, []]);
          if (sane) expect(readAll(image, row).length).toBe(image.size(row));
          else expect(() => readPart(image, row, 0, 10)).toThrow(/content \d+, from byte \d+/);
        },
        { verify: true },
      );
    }
  });

  it("has nothing to do for compressed data", () => {
    const packed = writeLayer(tree(), undefined, undefined, zstd);
    expect(use(packed.path, list, { verify: true })).toEqual(use(path, list));
  });
});
