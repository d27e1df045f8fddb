// Blobs to start from: small, and between them with everything the format has.
import { copyFileSync, readFileSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { type Digest, sha256 } from "../../src/base/digest.js";
import { type Codec, noCodec, parseCodec } from "../../src/imgfs/codec.js";
import { flattenImage } from "../../src/imgfs/flatten.js";
import { blobFile } from "../../src/imgfs/folder.js";
import { Image } from "../../src/imgfs/image.js";
import { mergeLayers } from "../../src/imgfs/merge.js";
import { InodeType } from "../../src/imgfs/tree.js";
import {
  device,
  directory,
  file,
  implied,
  link,
  noise,
  symlink,
  temporary,
  whiteout,
  writeLayer,
  xattr,
} from "../imgfs/support.js";

export interface ImageSeed {
  readonly name: string;
  readonly bytes: Buffer;
  readonly kind: "layer" | "index";
}

export interface ImageSeeds {
  /** Where the blobs of the indexes are, and where a changed file belongs. */
  readonly folder: string;
  readonly list: readonly ImageSeed[];
  /** A sound layer to merge others with. */
  readonly base: string;
}

const many = (count: number): Record<string, ReturnType<typeof file>> =>
  Object.fromEntries(Array.from({ length: count }, (_, i) => [`file-${i}`, file(`content ${i}`)]));

function upperTree() {
  const shared = file("shared content");
  return directory({
    ...many(12),
    big: file(Buffer.alloc(150_000, "some bytes of a content\n")),
    noise: file(noise(6000)),
    sparse: file([8192, "middle", 100, "end"]),
    runs: file([Buffer.alloc(5000, 1), 5000, "x", 20, "y", 300_000, noise(4096)]),
    hole: file([5000]),
    hard: shared,
    sub: directory(
      { link: shared, deep: directory({ x: file("x") }), hides: whiteout },
      { uid: 1000, gid: 1000, opaque: true },
    ),
    sym: symlink("target/of/link"),
    null: device(InodeType.char, 0x103),
    disk: device(InodeType.block, 0x800),
    pipe: device(InodeType.fifo, 0),
    gone: whiteout,
    lower: link("a/b"),
    lower2: link("a/s"),
    way: implied({ y: file("y", { mtimeSec: 2 ** 36 }) }),
    attr: file("z", { xattrs: [xattr("user.one", "1"), xattr("user.two", "")] }),
    attr2: file("zz", { xattrs: [xattr("security.capability", noise(20))], mtimeSec: -5, mtimeNsec: 7 }),
    empty: file(""),
  });
}

function lowerTree() {
  const b = file("below");
  return directory({
    a: directory({ b, s: symlink("b"), again: b }, { xattrs: [xattr("user.one", "1")] }),
    gone: file("hidden above"),
    way: directory({ z: file([10_000, "z"]) }, { mode: 0o700, uid: 5 }),
    sub: directory({ hides: file("never seen"), lost: file("lost") }),
    big: file(Buffer.alloc(150_000, "some bytes of a content\n")),
    other: file(noise(9000, 2)),
  });
}

/** Metadata of several pages. */
function wideTree() {
  return directory({
    ...Object.fromEntries(
      Array.from({ length: 9 }, (_, i) => [
        `directory-${i}`,
        directory(
          Object.fromEntries(
            Array.from({ length: 90 }, (_, j) => [`a-name-of-some-length-${i}-${j}`, file(`${i % 3} ${j}`)]),
          ),
        ),
      ]),
    ),
  });
}

function put(folder: string, tree: ReturnType<typeof directory>, text: string, codec: Codec): string {
  const source: Digest = sha256(Buffer.from(text));
  const path = join(folder, blobFile(source, codec));
  writeLayer(tree, path, source, codec);
  return path;
}

export async function imageSeeds(folder: string): Promise<ImageSeeds> {
  const zstd = parseCodec("zstd:1");
  const seeds: ImageSeed[] = [];
  const add = (name: string, kind: ImageSeed["kind"], path: string): void =>
    void seeds.push({ name, kind, bytes: readFileSync(path) });
  const merged = (name: string, paths: readonly string[]): void => {
    const images = paths.map((path) => Image.open(path));
    const path = join(folder, `${name}.imgfs`);
    writeFileSync(path, mergeLayers(images));
    for (const image of images) image.close();
    add(name, "index", path);
  };
  const lower = put(folder, lowerTree(), "lower", noCodec);
  const upper = put(folder, upperTree(), "upper", noCodec);
  const lowerZstd = put(folder, lowerTree(), "lower", zstd);
  const upperZstd = put(folder, upperTree(), "upper", zstd);
  const wide = put(folder, wideTree(), "wide", noCodec);
  add("layer", "layer", upper);
  add("layer-zstd", "layer", upperZstd);
  add("plain", "layer", lower);
  add("plain-zstd", "layer", lowerZstd);
  add("wide", "layer", wide);
  merged("index", [lower, upper]);
  merged("index-zstd", [lowerZstd, upper, upperZstd]);
  const index = Image.open(join(folder, "index-zstd.imgfs"));
  for (const codec of [noCodec, zstd]) {
    const name = codec === noCodec ? "flat" : "flat-zstd";
    const path = join(folder, `${name}.imgfs`);
    await flattenImage(index, path, { codec, config: Buffer.from('{"os":"linux"}') });
    add(name, "index", path);
  }
  index.close();
  const base = temporary();
  copyFileSync(lower, base);
  return { folder, list: seeds, base };
}
