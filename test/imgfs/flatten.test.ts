// Flattened images: the tree of the index with the data it refers to, the same bytes however the layers are stored.
import { existsSync, readFileSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import fc from "fast-check";
import { describe, expect, it } from "vitest";
import { sha256 } from "../../src/base/digest.js";
import { checkImage } from "../../src/imgfs/check.js";
import { parseCodec } from "../../src/imgfs/codec.js";
import { flattenImage } from "../../src/imgfs/flatten.js";
import { Image } from "../../src/imgfs/image.js";
import * as L from "../../src/imgfs/layout.js";
import type { DirectoryInode } from "../../src/imgfs/tree.js";
import { LayerWriter } from "../../src/imgfs/writer.js";
import { reseal, sectionOf } from "./reseal.js";
import { directory, file, list, scratch, temporary, whiteout, writeContents } from "./support.js";

const zstd = parseCodec("zstd:3");
const config = Buffer.from('{"architecture":"amd64","os":"linux"}');
const shared = Buffer.alloc(300_000, "in both layers ");

function layer(name: string, tree: DirectoryInode, codec = parseCodec("none")): string {
  const path = temporary();
  const writer = LayerWriter.create(path, codec);
  writeContents(writer, tree);
  writer.finish(tree, sha256(Buffer.from(name)));
  return path;
}

const lower = (): DirectoryInode =>
  directory({
    small: file("small"),
    hidden: file(Buffer.alloc(50_000, "hidden ")),
    big: file(shared),
    gone: file("fits between"),
    sparse: file([8192, "data", 4096, Buffer.alloc(5000, "x")]),
    empty: file(""),
    hole: file([1 << 20]),
  });
const upper = (): DirectoryInode =>
  directory({
    hidden: whiteout,
    gone: whiteout,
    again: file(shared),
    more: file(Buffer.alloc(10_000, "more ")),
    "small-too": file("small"),
  });

async function flat(
  paths: readonly string[],
  options: Parameters<typeof flattenImage>[2] = { config },
): Promise<string> {
  const image = Image.stack(paths);
  const path = temporary();
  const { treeRoot, fileSize } = await flattenImage(image, path, options);
  expect(treeRoot).toBe(image.treeRoot);
  expect(readFileSync(path).length).toBe(fileSize);
  image.close();
  return path;
}

describe("a flattened image", () => {
  it("shows what the index shows, is sound, and holds each content once and nothing hidden", async () => {
    const paths = [layer("lower", lower()), layer("upper", upper())];
    const path = await flat(paths);
    const stacked = Image.stack(paths);
    const image = Image.open(path);
    expect(list(image)).toEqual(list(stacked));
    expect(image).toMatchObject({ kind: "index", isFlat: true, blobs: [], uniqueBytes: stacked.uniqueBytes });
    expect(image.config?.equals(config)).toBe(true);
    expect(stacked.isFlat).toBe(false);
    expect(checkImage(path, { data: true }).findings).toEqual([]);
    const bytes = readFileSync(path);
    for (const text of ["hidden hidden", "fits between"]) expect(bytes.includes(text)).toBe(false);
    expect(bytes.indexOf("in both layers in")).toBeGreaterThan(0);
    expect(bytes.indexOf("in both layers in", bytes.indexOf("in both layers in") + shared.length)).toBe(-1);
    image.close();
    stacked.close();
  });

  it("has the same bytes whatever the codec of its layers, also when made of a flattened image", async () => {
    const plain = [layer("lower", lower()), layer("upper", upper())];
    const packed = [layer("lower", lower(), zstd), layer("upper", upper(), zstd)];
    const expected = readFileSync(await flat(plain));
    expect(readFileSync(await flat(packed)).equals(expected)).toBe(true);
    const compressed = await flat([plain[0] as string, packed[1] as string], { config, codec: zstd });
    expect(readFileSync(await flat(packed, { config, codec: zstd })).equals(readFileSync(compressed))).toBe(
      true,
    );
    expect(checkImage(compressed, { data: true }).findings).toEqual([]);
    const image = Image.open(compressed);
    const stacked = Image.stack(plain);
    expect(list(image)).toEqual(list(stacked));
    stacked.close();
    const back = temporary();
    await flattenImage(image, back, { config: image.config });
    expect(readFileSync(back).equals(expected)).toBe(true);
    image.close();
  });

  it("of any layers shows what their stack shows, and is sound", async () => {
    const content = fc.oneof(
      fc.constantFrom("", "a", "common"),
      fc.uint8Array({ minLength: 1, maxLength: 200 }).map((bytes) => Buffer.from(bytes)),
      fc.nat(200_000).map((size) => Buffer.alloc(size + 1, "long")),
      fc
        .tuple(fc.integer({ min: 1, max: 9000 }), fc.integer({ min: 1, max: 9000 }))
        .map(([hole, size]) => [hole, Buffer.alloc(size, 1), hole]),
    );
    const entry = fc.oneof(
      { weight: 4, arbitrary: content },
      { weight: 1, arbitrary: fc.constant(undefined) },
    );
    const tree = fc.dictionary(fc.constantFrom("a", "b", "c", "d", "e", "f"), entry, { maxKeys: 6 });
    await fc.assert(
      fc.asyncProperty(
        fc.array(tree, { minLength: 1, maxLength: 4 }),
        fc.boolean(),
        async (trees, compress) => {
          const codec = compress ? zstd : parseCodec("none");
          const paths = trees.map((given, i) =>
            layer(
              `layer ${i}`,
              directory(
                Object.fromEntries(
                  Object.entries(given).map(([name, pieces]) => [
                    name,
                    pieces === undefined ? whiteout : file(pieces),
                  ]),
                ),
              ),
              i % 2 === 0 ? codec : parseCodec("none"),
            ),
          );
          const path = await flat(paths, { codec });
          const image = Image.open(path);
          const stacked = Image.stack(paths);
          expect(list(image)).toEqual(list(stacked));
          expect(checkImage(path, { data: true }).findings).toEqual([]);
          image.close();
          stacked.close();
        },
      ),
      { numRuns: 40 },
    );
  });

  it("may be empty, and without a config", async () => {
    const path = await flat([layer("empty", directory({}))], {});
    const image = Image.open(path);
    expect(image.isFlat).toBe(true);
    expect(image.config).toBeUndefined();
    expect(image.fileSize).toBe(image.metadata.header.metaEnd);
    expect(checkImage(path, { data: true }).findings).toEqual([]);
    image.close();
  });

  it("is found damaged in its config, and in its data", async () => {
    const path = await flat([layer("lower", lower()), layer("upper", upper())]);
    const bytes = readFileSync(path);
    const section = sectionOf(bytes, "config");
    for (const [at, where] of [
      [section.offset + 3, /PAGES|CONFIG/],
      [bytes.length - 1, /data/],
    ] as const) {
      const damaged = Buffer.from(bytes);
      damaged.writeUInt8(damaged.readUInt8(at) ^ 1, at);
      writeFileSync(path, damaged);
      const { findings } = checkImage(path, { data: true });
      expect(findings.map(({ section: name }) => name).join()).toMatch(where);
    }
  });

  it("is not made of an index whose contents overlap: no file is left", async () => {
    const paths = [layer("lower", lower())];
    const image = Image.stack(paths);
    const path = join(scratch, "never.imgfs");
    const bytes = Buffer.from(image.metadata.bytes);
    const { offset } = sectionOf(bytes, "content");
    const lasts = Array.from(
      { length: image.contentCount },
      (_, i) => offset + i * L.ContentRecord.byteLength,
    ).filter((at) => bytes.readUInt32LE(at + L.ContentRecord.runCount) === 1);
    const [first, second] = lasts as [number, number];
    for (const at of [first, second]) bytes.writeUInt32LE(0, at);
    image.close();
    const index = join(scratch, "index.imgfs");
    writeFileSync(index, reseal(bytes));
    writeFileSync(
      join(scratch, `${sha256(Buffer.from("lower")).slice(7)}.imgfs`),
      readFileSync(paths[0] as string),
    );
    const forged = Image.open(index);
    await expect(flattenImage(forged, path)).rejects.toThrow(
      /CONTENT: record \d+: lies in what content \d+ has/,
    );
    expect(existsSync(path)).toBe(false);
    forged.close();
  });

  it("is not made of a layer, nor over a file", async () => {
    const path = layer("lower", lower());
    const blob = Image.open(path);
    await expect(flattenImage(blob, temporary())).rejects.toThrow("not an index");
    blob.close();
    const image = Image.stack([path]);
    await expect(flattenImage(image, path)).rejects.toThrow("EEXIST");
    expect(existsSync(path)).toBe(true);
    image.close();
  });
});
