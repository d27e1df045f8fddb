// Layers in every compressed form, built through the compiled program. Whatever the form, the blob is the same.
import { existsSync, mkdtempSync, readdirSync, readFileSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join, resolve } from "node:path";
import { gzipSync } from "node:zlib";
import { afterAll, beforeAll, beforeEach, describe, expect, it } from "vitest";
import { compressionOf, gunzip } from "../../src/builder/compression.js";
import { decode } from "../../src/builder/decode.js";
import { gzipDecoder } from "../../src/builder/gzip.js";
import type { buildImage as BuildImage } from "../../src/builder/image.js";
import { oddLayers } from "../e2e/make-image.js";
import { type ImageOptions, layout } from "../fixtures/oci.js";
import { file, sha256Hex, tar } from "../fixtures/tar.js";
import { noise, skippable, text, zstdPipe, zstdTool } from "../zstd/support.js";

const dist = process.env["IMGFS_DIST"] ?? resolve(import.meta.dirname, "../../dist");
const root = mkdtempSync(join(tmpdir(), "imgfs-compressed-"));
afterAll(() => rmSync(root, { recursive: true, force: true }));

let buildImage: typeof BuildImage;
beforeAll(async () => {
  const path = join(dist, "builder/image.js");
  if (!existsSync(path)) throw new Error(`${path} is not there: npm run build, or set IMGFS_DIST`);
  ({ buildImage } = (await import(path)) as { buildImage: typeof BuildImage });
});

let folder = "";
let dest = "";
let serial = 0;
beforeEach(() => {
  folder = join(root, `source-${serial}`);
  dest = join(root, `dest-${serial++}`);
});

/** Digests of what is in a folder of blobs, without the config. */
function blobsOf(place: string): Record<string, string> {
  const names = readdirSync(place).filter((name) => name !== "config.json");
  return Object.fromEntries(names.sort().map((name) => [name, sha256Hex(readFileSync(join(place, name)))]));
}

async function refuses(source: string, message: RegExp): Promise<void> {
  await expect(buildImage(source, dest)).rejects.toThrow(message);
  expect(existsSync(dest)).toBe(false);
}

const zstd = (layer: Buffer): Buffer => zstdPipe(layer);

/** As zstd:chunked lays it out: frames that can be read alone, and the index and footer in skippable frames. */
function chunked(layer: Buffer): Buffer {
  const frames: Buffer[] = [];
  const sizes = [512, 3000, 100, 40_000, 700_000];
  for (let at = 0, i = 0; at < layer.length; i++) {
    const end = Math.min(layer.length, at + (sizes[i % sizes.length] as number));
    frames.push(zstdPipe(layer.subarray(at, end)));
    at = end;
  }
  const manifest = zstdTool(Buffer.from('{"version":1,"entries":[]}'));
  return Buffer.concat([...frames, skippable(manifest), skippable(Buffer.alloc(64, 1))]);
}

const forms: Readonly<Record<string, ImageOptions & { readonly shown: string }>> = {
  plain: { shown: "none" },
  gzip: { compress: (layer) => gzipSync(layer), shown: "gzip" },
  zstd: { compress: zstd, mediaType: "application/vnd.oci.image.layer.v1.tar+zstd", shown: "zstd" },
  "zstd of another level": { compress: (layer) => zstdTool(layer, "-12"), shown: "zstd" },
  "zstd labelled gzip": {
    compress: zstd,
    mediaType: "application/vnd.oci.image.layer.v1.tar+gzip",
    shown: "zstd",
  },
  "gzip labelled zstd": {
    compress: (layer) => gzipSync(layer),
    mediaType: "application/vnd.oci.image.layer.v1.tar+zstd",
    shown: "gzip",
  },
  "zstd:chunked": {
    compress: chunked,
    mediaType: "application/vnd.oci.image.layer.v1.tar+zstd",
    shown: "zstd",
  },
  "zstd after a skippable frame": {
    compress: (layer) => Buffer.concat([skippable(text(100)), zstd(layer)]),
    shown: "zstd",
  },
};

describe("one image", () => {
  it("gives the same blobs and index in every form", async () => {
    const layers = oddLayers();
    let expected: Record<string, string> | undefined;
    for (const [name, { shown, ...options }] of Object.entries(forms)) {
      const place = join(root, name.replaceAll(/\W/g, "-"));
      layout(`${place}-source`, layers, options);
      const result = await buildImage(`oci:${place}-source`, place);
      expect([...new Set(result.layers.map(({ compression }) => compression))], name).toEqual([shown]);
      const found = blobsOf(place);
      expected ??= found;
      expect(found, name).toEqual(expected);
      rmSync(`${place}-source`, { recursive: true });
    }
    expect(Object.keys(expected ?? {})).toHaveLength(layers.length + 1);
  });

  const large = [
    tar(file("a", text(3_000_000)), file("b", noise(2_000_000))),
    tar(file("c", text(900_000, 3))),
  ];

  it("gives the same blobs with one job, which inflates beside its other work, and with two", async () => {
    const seen = new Set<string>();
    for (const name of ["plain", "gzip", "zstd", "zstd:chunked"]) {
      const { shown: _, ...options } = forms[name] as ImageOptions & { shown: string };
      for (const jobs of [1, 2]) {
        const place = join(root, `large-${name.replace(":", "-")}-${jobs}`);
        layout(`${place}-source`, large, options);
        await buildImage(`oci:${place}-source`, place, { jobs });
        seen.add(JSON.stringify(blobsOf(place)));
      }
    }
    expect(seen.size).toBe(1);
  });

  it("is read with every zstd provider that runs here", async () => {
    layout(folder, large, { compress: chunked });
    const seen = new Set<string>();
    const before = process.env["IMGFS_ZSTD"];
    try {
      for (const name of ["libzstd", "fzstd"]) {
        process.env["IMGFS_ZSTD"] = name;
        await buildImage(`oci:${folder}`, `${dest}-${name}`);
        seen.add(JSON.stringify(blobsOf(`${dest}-${name}`)));
      }
    } finally {
      if (before === undefined) delete process.env["IMGFS_ZSTD"];
      else process.env["IMGFS_ZSTD"] = before;
    }
    expect(seen.size).toBe(1);
  });
});

describe("zstd as it is found", () => {
  const layer = tar(file("a", text(50_000)), file("b", noise(300_000)));
  const inLayer = (message: string): RegExp => new RegExp(`^layer 1 \\(sha256:\\w+\\): ${message}`);

  it("without the zeros after the archive, as early zstd:chunked has it, is read; with other bytes gone it is not", async () => {
    const filled = Buffer.concat([layer, Buffer.alloc(10240 - (layer.length % 10240))]);
    layout(folder, [filled], { compress: () => zstd(layer) });
    const result = await buildImage(`oci:${folder}`, dest);
    expect(result.layers[0]?.diffId).toBe(`sha256:${sha256Hex(filled)}`);
    layout(`${folder}-plain`, [filled]);
    await buildImage(`oci:${folder}-plain`, `${dest}-plain`);
    expect(blobsOf(dest)).toEqual(blobsOf(`${dest}-plain`));
    rmSync(dest, { recursive: true });

    const other = Buffer.concat([filled.subarray(0, -1), Buffer.from("x")]);
    layout(`${folder}-other`, [other], { compress: () => zstd(layer) });
    await refuses(`oci:${folder}-other`, inLayer("diffID mismatch: the uncompressed bytes are sha256:"));
    layout(`${folder}-gzip`, [filled], { compress: () => gzipSync(layer) });
    await refuses(`oci:${folder}-gzip`, inLayer("diffID mismatch: the uncompressed bytes are sha256:"));
  });

  it.each([
    [
      "cut in a frame",
      zstd(layer).subarray(0, 1000),
      "zstd: the data ends inside a frame, after 1000 bytes$",
    ],
    ["cut after its magic", zstd(layer).subarray(0, 4), "zstd: the data ends inside a frame, after 4 bytes$"],
    [
      "with other bytes after it",
      Buffer.concat([zstd(layer), text(9)]),
      "zstd: no frame begins at offset \\d+$",
    ],
    [
      "with a frame missing",
      Buffer.concat([zstd(layer.subarray(512))]),
      "(entry|bad header|diffID mismatch)",
    ],
  ])("%s is refused", async (_, packed, message) => {
    layout(folder, [layer], { compress: () => Buffer.from(packed) });
    await refuses(`oci:${folder}`, inLayer(message));
  });

  it("damaged is refused, wherever the damage is", async () => {
    const packed = zstd(layer);
    for (const at of [5, 8, 200, packed.length >> 1, packed.length - 2]) {
      const damaged = Buffer.from(packed);
      damaged[at] = (damaged[at] as number) ^ 0x5a;
      layout(`${folder}-${at}`, [layer], { compress: () => damaged });
      await refuses(`oci:${folder}-${at}`, inLayer("(zstd: |entry |bad header|diffID mismatch)"));
    }
  });

  it("with a wrong digest is refused although its content is right", async () => {
    const packed = (comment: string): Buffer => Buffer.concat([skippable(Buffer.from(comment)), zstd(layer)]);
    const made = layout(folder, [layer], { compress: () => packed("one") });
    writeFileSync(made.path(`sha256:${sha256Hex(packed("one"))}`), packed("two"));
    await refuses(`oci:${folder}`, inLayer("digest mismatch: the bytes are sha256:"));
  });
});

describe("gzip by Node's streams, where no zlib can be called", () => {
  const content = text(2_000_000);
  const packed = gzipSync(content);
  const inflate = async (data: Uint8Array, direct: boolean, piece: number): Promise<Buffer> => {
    let at = 0;
    const buffer = Buffer.alloc(piece);
    const next = (): Uint8Array | undefined => {
      const bytes = data.subarray(at, at + piece);
      at += bytes.length;
      buffer.set(bytes);
      return bytes.length === 0 ? undefined : buffer.subarray(0, bytes.length);
    };
    const decoder = gzipDecoder();
    if (decoder === undefined) throw new Error("no zlib");
    const pieces: Buffer[] = [];
    for await (const bytes of direct ? decode(decoder, next, () => at % 2 === 0) : gunzip(next)) {
      pieces.push(Buffer.from(bytes));
    }
    return Buffer.concat(pieces);
  };

  it("gives what the direct way gives", async () => {
    const small = Array.from({ length: 200 }, (_, i) => gzipSync(text(i * 10, i)));
    const smallContent = Buffer.concat(Array.from({ length: 200 }, (_, i) => text(i * 10, i)));
    for (const direct of [true, false]) {
      for (const piece of [999, 64 << 10]) {
        expect((await inflate(packed, direct, piece)).equals(content)).toBe(true);
        const members = Buffer.concat([...small, Buffer.alloc(2000)]);
        expect((await inflate(members, direct, piece)).equals(smallContent)).toBe(true);
      }
    }
  });

  it("refuses in the same words", async () => {
    const flipped = Buffer.from(packed);
    flipped[packed.length - 6] = (flipped[packed.length - 6] as number) ^ 1;
    for (const direct of [true, false]) {
      await expect(inflate(packed.subarray(0, -9), direct, 4096)).rejects.toThrow(
        "damaged gzip data: unexpected end of file",
      );
      await expect(inflate(flipped, direct, 4096)).rejects.toThrow("damaged gzip data: incorrect data check");
      await expect(inflate(Buffer.concat([packed, text(50)]), direct, 4096)).rejects.toThrow(
        "damaged gzip data: incorrect header check",
      );
    }
  });
});

it("names the forms that are not read", () => {
  expect(() => compressionOf(Buffer.from("fd377a585a00", "hex"))).toThrow("xz compression is not supported");
  expect(() => compressionOf(Buffer.from("BZh9"))).toThrow("bzip2 compression is not supported");
  expect(compressionOf(new Uint8Array(0)).name).toBe("none");
});

const corpus = process.env["IMGFS_CORPUS"];
const reason = corpus === undefined ? "IMGFS_CORPUS is not set" : undefined;

describe.skipIf(reason)(reason === undefined ? "a real image" : `a real image: skipped, ${reason}`, () => {
  it("gives the same blobs and index from gzip, zstd and plain layers", async () => {
    const seen = new Set<string>();
    for (const form of ["", "-zstd", "-uncompressed"]) {
      await buildImage(`oci:${corpus}/python-node${form}:latest`, dest);
      seen.add(JSON.stringify(blobsOf(dest)));
      rmSync(dest, { recursive: true });
    }
    expect(seen.size).toBe(1);
  }, 120_000);
});
