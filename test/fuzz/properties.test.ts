// What must hold of any layer: how it is compressed, in which order its members come, and how its blob stores data make
// no difference to what the image is.
import { mkdtempSync, readFileSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { gzipSync } from "node:zlib";
import fc from "fast-check";
import { afterAll, expect, it } from "vitest";
import { convertLayer } from "../../src/builder/layer.js";
import { checkImage } from "../../src/imgfs/check.js";
import { type Codec, noCodec, parseCodec } from "../../src/imgfs/codec.js";
import { Image } from "../../src/imgfs/image.js";
import { pack, unpack } from "../../src/imgfs/pack.js";
import { zstdCodec } from "../../src/zstd/codec.js";
import { layerTar, type TarEntry } from "../e2e/tar-writer.js";
import { list } from "../imgfs/support.js";
import { mutateBytes } from "./mutate.js";
import { Random } from "./random.js";

const folder = mkdtempSync(join(tmpdir(), "imgfs-properties-"));
afterAll(() => rmSync(folder, { recursive: true, force: true }));
const runs = process.env["IMGFS_SOAK"] === "1" ? 3000 : 60;
const zstd = parseCodec("zstd:1");

async function convert(
  bytes: Buffer,
  codec: Codec,
): Promise<{ path: string; blob: Buffer; compression: string }> {
  const source = join(folder, "layer");
  const path = join(folder, "blob");
  rmSync(path, { force: true });
  writeFileSync(source, bytes);
  const place = { kind: "file", path: source, offset: 0, size: bytes.length } as const;
  const task = { bytes: place, mediaType: "", digest: undefined, diffId: undefined };
  const { compression } = await convertLayer({ source: task, target: path, codec });
  return { path, blob: readFileSync(path), compression };
}

/** Members whose paths are all different, and of which none replaces another. */
const meta = fc.record({
  mode: fc.integer({ min: 0, max: 0o7777 }),
  uid: fc.constantFrom(0, 1000, 3_000_000),
  time: fc.constantFrom("0", "1700000000", "-1.5", "1577836800.123456789"),
  form: fc.constantFrom("pax" as const, "gnu" as const),
});
const data = fc.oneof(
  fc.uint8Array({ maxLength: 700 }).map((bytes) => Buffer.from(bytes)),
  fc.constantFrom("same", "").map((text) => Buffer.from(text)),
  fc.integer({ min: 3000, max: 300_000 }).map((length) => Buffer.alloc(length, "text of some length; ")),
);
const members = fc
  .array(
    fc.record({
      directory: fc.constantFrom("", "d/", "d/e/", "f/"),
      kind: fc.constantFrom(
        "file" as const,
        "file" as const,
        "symlink" as const,
        "fifo" as const,
        "whiteout" as const,
      ),
      meta,
      data,
      linked: fc.boolean(),
    }),
    { minLength: 1, maxLength: 12 },
  )
  .map((specs): TarEntry[] =>
    specs.flatMap(({ directory, kind, meta: own, data: bytes, linked }, i) => {
      if (kind === "whiteout") return [{ name: `${directory}.wh.gone-${i}` }];
      const name = `${directory}name-${i}`;
      const common = own.form === "gnu" && /[.]/.test(own.time) ? { ...own, form: "pax" as const } : own;
      if (kind === "symlink") return [{ name, type: kind, link: `to-${i}`, ...common }];
      if (kind === "fifo") return [{ name, type: kind, ...common }];
      const link: TarEntry = { name: `linked-${i}`, type: "link", link: name, ...common };
      return [{ name, data: bytes, ...common }, ...(linked ? [link] : [])];
    }),
  );

it("plain, gzip and zstd forms of a layer are one blob for each codec, and codecs make one tree", async () => {
  const compress = zstdCodec().compress;
  if (compress === undefined) throw new Error("nothing here compresses zstd");
  const inPieces = (tar: Buffer, size: number, packed: (piece: Buffer) => Uint8Array): Buffer =>
    Buffer.concat(
      Array.from({ length: Math.ceil(tar.length / size) }, (_, i) =>
        Buffer.from(packed(tar.subarray(i * size, (i + 1) * size))),
      ),
    );
  await fc.assert(
    fc.asyncProperty(members, fc.integer({ min: 2000, max: 100_000 }), async (entries, size) => {
      const tar = layerTar(entries);
      const trees: string[] = [];
      for (const codec of [noCodec, zstd]) {
        const plain = await convert(tar, codec);
        const image = Image.open(plain.path, { verify: true });
        trees.push(`${image.treeRoot} ${JSON.stringify(list(image))}`);
        image.close();
        const gzip = await convert(gzipSync(tar, { level: 1 }), codec);
        const members = await convert(
          inPieces(tar, size, (piece) => gzipSync(piece, { level: 1 })),
          codec,
        );
        const frames = await convert(
          inPieces(tar, size, (piece) => compress(piece, 1)),
          codec,
        );
        expect([gzip, members, frames].map(({ compression }) => compression)).toEqual([
          "gzip",
          "gzip",
          "zstd",
        ]);
        for (const { blob } of [gzip, members, frames]) expect(blob.equals(plain.blob)).toBe(true);
      }
      expect(trees[1]).toBe(trees[0]);
    }),
    { numRuns: runs },
  );
});

it("the order of a layer's members makes another blob and the same tree", async () => {
  await fc.assert(
    fc.asyncProperty(
      members.chain((entries) =>
        fc.tuple(fc.constant(entries), fc.shuffledSubarray(entries, { minLength: entries.length })),
      ),
      async ([entries, shuffled]) => {
        const trees: string[] = [];
        for (const order of [entries, shuffled]) {
          const { path } = await convert(layerTar(order), noCodec);
          expect(checkImage(path, { data: true }).findings).toEqual([]);
          const image = Image.open(path);
          trees.push(`${image.treeRoot} ${JSON.stringify(list(image))}`);
          image.close();
        }
        expect(trees[1]).toBe(trees[0]);
      },
    ),
    { numRuns: runs },
  );
});

it("msgpack bytes are a value or none, never an exception, and what was packed comes back", () => {
  const value: fc.Arbitrary<unknown> = fc.letrec((tie) => ({
    any: fc.oneof(
      { maxDepth: 4 },
      fc.nat(0xffff_ffff),
      fc.string({ maxLength: 40 }),
      fc.uint8Array({ maxLength: 40 }).map((bytes) => Buffer.from(bytes)),
      fc.array(tie("any"), { maxLength: 5 }),
      fc.dictionary(
        fc.string({ maxLength: 9 }).filter((key) => key !== "__proto__"),
        tie("any"),
        {
          maxKeys: 4,
          noNullPrototype: true,
        },
      ),
    ),
  })).any;
  fc.assert(
    fc.property(value, fc.nat(), (given, seed) => {
      const packed = pack(given);
      expect(unpack(packed)).toEqual(given);
      const random = new Random(seed);
      let changed: Buffer = packed;
      for (let i = 0; i < 8; i++) {
        changed = mutateBytes(random, changed, packed);
        unpack(changed);
      }
    }),
    { numRuns: runs * 20 },
  );
});
