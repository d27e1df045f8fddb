// Damage of every kind: accidental (digests no longer fit) and deliberate (digests made to fit again).
import { copyFileSync, readFileSync, truncateSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { describe, expect, it } from "vitest";
import { digestHex } from "../../src/base/digest.js";
import { checkImage } from "../../src/imgfs/check.js";
import { Corrupt, Unsupported } from "../../src/imgfs/errors.js";
import { Image } from "../../src/imgfs/image.js";
import * as L from "../../src/imgfs/layout.js";
import { mergeLayers } from "../../src/imgfs/merge.js";
import { pack } from "../../src/imgfs/pack.js";
import { InodeType } from "../../src/imgfs/tree.js";
import { reseal, sectionOf } from "./reseal.js";
import {
  device,
  directory,
  file,
  implied,
  link,
  list,
  scratch,
  symlink,
  temporary,
  whiteout,
  writeLayer,
  xattr,
} from "./support.js";

const big = Buffer.alloc(200_000, "some bytes of a content\n");

function sampleTree() {
  const shared = file("shared content");
  const many = Array.from({ length: 40 }, (_, i) => [`file-${i}`, file(`content ${i}`)] as const);
  return directory({
    ...Object.fromEntries(many),
    big: file(big),
    sparse: file([8192, "middle", 100, "end"]),
    hole: file([5000]),
    hard: shared,
    sub: directory({ link: shared, deep: directory({ x: file("x") }) }, { uid: 1000, gid: 1000 }),
    sym: symlink("target/of/link"),
    null: device(InodeType.char, 0x103),
    gone: whiteout,
    lower: link("a/b"),
    way: implied({ y: file("y", { mtimeSec: 2 ** 36 }) }),
    attr: file("z", { xattrs: [xattr("user.one", "1"), xattr("user.two", "")] }),
  });
}

const sample = writeLayer(sampleTree());
const sampleBytes = readFileSync(sample.path);

function withBytes(change: (bytes: Buffer) => unknown): string {
  const bytes = Buffer.from(sampleBytes);
  const path = temporary();
  const changed = change(bytes);
  writeFileSync(path, Buffer.isBuffer(changed) ? changed : bytes);
  return path;
}

const base = Image.open(writeLayer(directory({ a: directory({ b: file("below") }) })).path);

/** What using every part of an image throws; undefined when nothing does. */
function use(path: string): unknown {
  try {
    const image = Image.open(path);
    try {
      list(image);
      image.parent(0);
      for (let row = 0; row < image.directoryCount; row++) image.path(row);
      mergeLayers([base, image]);
    } finally {
      image.close();
    }
    return undefined;
  } catch (cause) {
    return cause;
  }
}

describe("damage by accident", () => {
  it("a sound layer has no findings", () => {
    const { findings, ...rest } = checkImage(sample.path, { data: true });
    expect(findings).toEqual([]);
    expect(use(sample.path)).toBeUndefined();
    expect(rest.contents).toBe(sample.summary.contents);
    expect(rest.dataBytes).toBe(sample.summary.uniqueBytes);
  });

  const fields = Object.entries(L.Header).filter(([name]) => name !== "byteLength");
  it.each(fields)("in header field %s is refused by the reader and found by the checker", (_name, offset) => {
    const path = withBytes((bytes) => {
      bytes[offset] = (bytes[offset] as number) ^ 0x40;
    });
    expect(() => Image.open(path)).toThrow(/^.*imgfs: /);
    const { findings } = checkImage(path, { data: false });
    expect(findings.length).toBeGreaterThan(0);
    expect(findings[0]).toMatchObject({ file: path, section: offset === 0 ? "header" : expect.any(String) });
  });

  // Those that may be missing are damaged where they are: flatten.test.ts.
  const sections = L.sectionOrder(L.CODEC_NONE).filter((name) => !L.isOptional(name));
  it.each(sections)("in section %s is refused where it is touched and found by the checker", (name) => {
    const { offset, length } = sectionOf(sampleBytes, name);
    if (name === "blobs") return expect(length).toBe(0);
    for (const at of [offset, offset + (length >> 1), offset + length - 1]) {
      const path = withBytes((bytes) => {
        bytes[at] = (bytes[at] as number) ^ 1;
      });
      const thrown = use(path);
      expect(thrown).toBeInstanceOf(Corrupt);
      expect((thrown as Corrupt).message).toContain(L.Section[name].name);
      const { findings } = checkImage(path, { data: false });
      expect(findings.some(({ section }) => section.includes(L.Section[name].name))).toBe(true);
    }
  });

  it("finds every flipped byte of the file", () => {
    const step = 97;
    for (let at = 0; at < sampleBytes.length; at += step) {
      const path = withBytes((bytes) => {
        bytes[at] = (bytes[at] as number) ^ 0x10;
      });
      const { findings } = checkImage(path, { data: true });
      if (findings.length === 0) throw new Error(`byte ${at} of ${sampleBytes.length}`);
    }
  });

  it("refuses and finds a file cut anywhere, and one with bytes behind its end", () => {
    for (let size = 0; size < sampleBytes.length; size += 5003) {
      const path = withBytes((bytes) => bytes.subarray(0, size));
      expect(() => Image.open(path)).toThrow(Corrupt);
      expect(checkImage(path, { data: true }).findings.length).toBeGreaterThan(0);
    }
    const longer = withBytes((bytes) => Buffer.concat([bytes, Buffer.alloc(1)]));
    expect(() => Image.open(longer)).toThrow(/file_size/);
    expect(checkImage(longer, { data: true }).findings).toHaveLength(1);
  });

  it("tells of several damages at once", () => {
    const data = sampleBytes.indexOf(big);
    const path = withBytes((bytes) => {
      bytes[0xffc] = (bytes[0xffc] as number) ^ 1;
      bytes[sectionOf(bytes, "names").offset] = 0x2f;
      bytes[data + 7] = 0;
    });
    const sectionsFound = checkImage(path, { data: true }).findings.map(({ section }) => section);
    expect(sectionsFound).toContain("header");
    expect(sectionsFound.some((section) => section.includes("NAMES"))).toBe(true);
    expect(checkImage(path, { data: false }).findings.map(({ section }) => section)).not.toContain("data");
  });

  it("an I/O on data that a truncation took is an error, never a signal", () => {
    const path = temporary();
    copyFileSync(sample.path, path);
    const image = Image.open(path);
    truncateSync(path, 5000);
    expect(() => list(image)).toThrow(Corrupt);
    image.close();
  });
});

describe("a file with right digests and wrong content", () => {
  const cases: ReadonlyArray<[string, (bytes: Buffer) => void]> = [
    [
      "a directory that is its own parent",
      (b) => b.writeUInt32LE(1, sectionOf(b, "directory").offset + 16 + 4),
    ],
    ["a root with a parent", (b) => b.writeUInt32LE(1, sectionOf(b, "directory").offset + 4)],
    [
      "a directory named by another entry",
      (b) => b.writeUInt32LE(0, sectionOf(b, "directory").offset + 16 + 8),
    ],
    [
      "a directory whose entries are out of range",
      (b) => b.writeUInt32LE(0xffff_fff0, sectionOf(b, "directory").offset + 16),
    ],
    ["an entry that leads back to the root", (b) => entryOf(b, 4, (at) => b.writeUInt32LE(0, at + 4))],
    ["an entry with a row there is not", (b) => entryOf(b, 8, (at) => b.writeUInt32LE(9999, at + 4))],
    ["an entry of an unknown type", (b) => entryOf(b, 8, (at) => b.writeUInt8(13, at + 13))],
    ["an entry of another type than its inode", (b) => entryOf(b, 8, (at) => b.writeUInt8(1, at + 13))],
    ["a name outside the heap", (b) => entryOf(b, 8, (at) => b.writeUInt32LE(0xffff_ff00, at + 8))],
    ["an empty name", (b) => entryOf(b, 8, (at) => b.writeUInt8(0, at + 12))],
    ["a name with a slash", (b) => b.writeUInt8(0x2f, sectionOf(b, "names").offset + 1)],
    ["a name with a NUL", (b) => b.writeUInt8(0, sectionOf(b, "names").offset + 1)],
    ["entries out of order", (b) => b.writeUInt32LE(0xffff_ffff, sectionOf(b, "entry").offset)],
    ["an inode of no type", (b) => inodeOf(b, 0o100000, (at) => b.writeUInt16LE(0o644, at))],
    ["a file that says it is a directory", (b) => inodeOf(b, 0o100000, (at) => b.writeUInt16LE(0o40644, at))],
    ["an owner there is not", (b) => inodeOf(b, 0o100000, (at) => b.writeUInt16LE(500, at + 4))],
    ["an xattr set there is not", (b) => inodeOf(b, 0o100000, (at) => b.writeUInt16LE(500, at + 6))],
    ["a size beyond the data", (b) => inodeOf(b, 0o100000, (at) => b.writeUInt16LE(0xffff, at + 12))],
    [
      "nanoseconds beyond a second",
      (b) => inodeOf(b, 0o100000, (at) => b.writeUInt32LE(0x3fff_ffff, at + 20)),
    ],
    ["a content there is not", (b) => inodeOf(b, 0o100000, (at) => b.writeUInt32LE(500, at + 24))],
    ["an overflow flag without a record", (b) => inodeOf(b, 0o100000, (at) => b.writeUInt16LE(1, at + 14))],
    [
      "a symlink target outside the heap",
      (b) => inodeOf(b, 0o120000, (at) => b.writeUInt32LE(0x7fff_ffff, at + 24)),
    ],
    ["a link target outside the heap", (b) => b.writeUInt32LE(0xffff_ffff, sectionOf(b, "link").offset)],
    ["an xattr set that is none", (b) => b.writeUInt8(0xc1, sectionOf(b, "xattrs").offset)],
    [
      "an xattr set of four thousand million",
      (b) => Buffer.from("ddffffffff", "hex").copy(b, sectionOf(b, "xattrs").offset),
    ],
    ["a content outside the data", (b) => contentOf(b, 1, (at) => b.writeUInt16LE(0x7f, at + 4))],
    ["a content in a blob there is not", (b) => contentOf(b, 1, (at) => b.writeUInt16LE(3, at + 6))],
    ["runs there are not", (b) => contentOf(b, 3, (at) => b.writeUInt32LE(0xffff_ffff, at + 12))],
    ["runs out of order", (b) => b.writeUInt32LE(99_999_999, sectionOf(b, "run").offset + 16 + 8)],
  ];

  it.each(cases)("%s is Corrupt in use and found by the checker", (_name, change) => {
    const path = withBytes((bytes) => {
      change(bytes);
      return reseal(bytes);
    });
    expect(use(path)).toBeInstanceOf(Corrupt);
    expect(checkImage(path, { data: false }).findings.length).toBeGreaterThan(0);
  });

  const quiet: ReadonlyArray<[string, (bytes: Buffer) => void]> = [
    ["a wrong link count", (b) => inodeOf(b, 0o100000, (at) => b.writeUInt16LE(7, at + 2))],
    ["unknown directory flags", (b) => b.writeUInt32LE(128, sectionOf(b, "directory").offset + 12)],
    [
      "a size that is not the content's",
      (b) => inodeOf(b, 0o100000, (at) => b.writeUInt8((b[at + 8] as number) ^ 1, at + 8)),
    ],
    ["contents in one place", (b) => contentOf(b, 1, (at) => b.copy(b, at + 16, at, at + 6))],
    ["a wrong sum in the header", (b) => b.writeUInt32LE(1, L.Header.logicalBytes)],
  ];
  it.each(quiet)("%s is found by the checker and does no harm", (_name, change) => {
    const path = withBytes((bytes) => {
      change(bytes);
      return reseal(bytes);
    });
    const thrown = use(path);
    if (thrown !== undefined) expect(thrown).toBeInstanceOf(Corrupt);
    expect(checkImage(path, { data: false }).findings.length).toBeGreaterThan(0);
  });

  it("an unknown codec, version, section and feature are refused by name", () => {
    const refuse = (change: (bytes: Buffer) => void): string => {
      const path = withBytes((bytes) => {
        change(bytes);
        return reseal(bytes);
      });
      expect(() => Image.open(path)).toThrow(Unsupported);
      return checkImage(path, { data: false }).findings[0]?.problem as string;
    };
    expect(refuse((b) => b.writeUInt8(2, L.Header.codec))).toContain("codec 2 is not supported");
    expect(refuse((b) => b.writeUInt8(77, L.Header.codec))).toContain("codec 77 is not supported");
    expect(refuse((b) => b.writeUInt16LE(2, L.Header.major))).toContain("format version 2");
    expect(refuse((b) => b.writeUInt8(4, L.Header.incompatible))).toContain("feature bit 2");
    const named = refuse((b) => {
      b.writeUInt8(4, L.Header.incompatible);
      const properties = pack({ features: { 2: "encrypted data" } });
      b.writeUInt16LE(properties.length, L.Header.propertiesLength);
      properties.copy(b, L.Header.properties);
    });
    expect(named).toContain('feature "encrypted data"');
  });

  it("an unknown compatible feature and a later minor version are read all the same", () => {
    const path = withBytes((bytes) => {
      bytes.writeUInt8(0xff, L.Header.compatible);
      bytes.writeUInt16LE(9, L.Header.minor);
      return reseal(bytes);
    });
    const image = Image.open(path);
    expect(list(image).length).toBeGreaterThan(40);
    image.close();
  });
});

describe("an index and its blobs", () => {
  function stored() {
    const source = sample.summary.rootDigest;
    const layer = writeLayer(
      directory({ a: file("1"), big: file(big), s: file([9, "x", 9]) }),
      join(scratch, `${digestHex(source)}.imgfs`),
      source,
    );
    const index = temporary("index");
    const image = Image.open(layer.path);
    writeFileSync(index, mergeLayers([image]));
    image.close();
    return { layer, index };
  }
  const { layer, index } = stored();

  it("is sound when its blobs are, and reads their data", () => {
    expect(checkImage(index, { data: true })).toMatchObject({ findings: [], files: [index, layer.path] });
    const image = Image.open(index);
    image.openBlobs();
    expect(list(image).find(({ path }) => path === "a")?.data).toBe("1");
    image.close();
  });

  it("refuses every flipped byte of its list of blobs, and the checker finds it", () => {
    const original = readFileSync(index);
    const { offset, length } = sectionOf(original, "blobs");
    expect(length).toBeGreaterThan(64);
    for (let at = offset; at < offset + length; at++) {
      const bytes = Buffer.from(original);
      bytes[at] = (bytes[at] as number) ^ 1;
      const path = join(scratch, "blobs-damaged");
      writeFileSync(path, bytes);
      expect(() => Image.open(path)).toThrow(/BLOBS/);
      expect(
        checkImage(path, { data: false }).findings.some(({ section }) => section.includes("BLOBS")),
      ).toBe(true);
    }
  });

  it("names the blob that is damaged, missing or another", () => {
    const original = readFileSync(layer.path);
    const bytes = Buffer.from(original);
    bytes[bytes.indexOf(big)] = 0;
    writeFileSync(layer.path, bytes);
    expect(checkImage(index, { data: true }).findings).toMatchObject([{ file: layer.path, section: "data" }]);
    expect(checkImage(index, { data: false }).findings).toEqual([]);
    writeLayer(directory({ other: file("1") }), temporary());
    writeFileSync(layer.path, sampleBytes);
    const image = Image.open(index);
    expect(() => image.openBlobs()).toThrow(/root digest/);
    image.close();
    expect(checkImage(index, { data: false }).findings[0]?.problem).toContain("root digest");
    writeFileSync(layer.path, original);
    const elsewhere = checkImage(index, { data: false, blobDirectory: "/nonexistent" });
    expect(elsewhere.findings[0]?.problem).toContain("ENOENT");
  });
});

function entryOf(bytes: Buffer, type: number, change: (at: number) => void): void {
  change(recordOf(bytes, "entry", 16, (at) => bytes[at + 13] === type));
}

function inodeOf(bytes: Buffer, type: number, change: (at: number) => void): void {
  change(recordOf(bytes, "inode", 32, (at) => (bytes.readUInt16LE(at) & 0o170000) === type));
}

/** The first content with one run, or with `runs` runs or more. */
function contentOf(bytes: Buffer, runs: number, change: (at: number) => void): void {
  const matches = (count: number): boolean => (runs === 1 ? count === 1 : count >= runs);
  change(recordOf(bytes, "content", 16, (at) => matches(bytes.readUInt32LE(at + 12))));
}

function recordOf(
  bytes: Buffer,
  section: L.SectionName,
  size: number,
  matches: (at: number) => boolean,
): number {
  const { offset, length } = sectionOf(bytes, section);
  for (let at = offset; at < offset + length; at += size) if (matches(at)) return at;
  throw new Error(`no such record in ${section}`);
}
