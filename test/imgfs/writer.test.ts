import { createHash } from "node:crypto";
import { existsSync, readFileSync, rmSync, statSync } from "node:fs";
import { describe, expect, it } from "vitest";
import { type Name, nameFromText, nameOf } from "../../src/base/bytes.js";
import { sha256 } from "../../src/base/digest.js";
import { checkImage } from "../../src/imgfs/check.js";
import { Image } from "../../src/imgfs/image.js";
import * as L from "../../src/imgfs/layout.js";
import { nameHash } from "../../src/imgfs/names.js";
import { LayerWriter } from "../../src/imgfs/writer.js";
import {
  directory,
  file,
  find,
  link,
  list,
  readAll,
  symlink,
  temporary,
  writeContents,
  writeLayer,
  xattr,
} from "./support.js";

const source = sha256(Buffer.from("layer"));

describe("record layouts", () => {
  it("have the sizes of FORMAT.md", () => {
    const sizes = Object.fromEntries(
      Object.entries(L).flatMap(([name, value]) =>
        typeof value === "object" && "byteLength" in value && !(value instanceof Uint8Array)
          ? [[name, value.byteLength]]
          : [],
      ),
    );
    expect(sizes).toEqual({
      Header: 4096,
      SectionEntry: 32,
      DirectoryRecord: 16,
      EntryRecord: 16,
      InodeRecord: 32,
      OverflowRecord: 32,
      OwnerRecord: 8,
      LinkRecord: 8,
      ContentRecord: 16,
      RunRecord: 16,
    });
    expect([
      L.Header.treeEnd,
      L.Header.pageRoot,
      L.Header.sections,
      L.Header.propertiesLength,
      L.Header.crc,
    ]).toEqual([0x60, 0xa0, 0x100, 0x900, 0xffc]);
  });

  it("hash names as FORMAT.md's examples", () => {
    const hash = (text: string) => nameHash(Buffer.from(text), 0, text.length).toString(16).padStart(8, "0");
    expect([hash("a"), hash("etc"), hash("libc.so.6")]).toEqual(["1a80b1b3", "0951c37d", "6ba641af"]);
  });
});

describe("the layer writer", () => {
  it("stores equal contents once and gives them one id", () => {
    const writer = LayerWriter.create(temporary());
    const put = (...pieces: (Buffer | number)[]) => {
      writer.beginContent();
      for (const piece of pieces) typeof piece === "number" ? writer.appendHole(piece) : writer.append(piece);
      return writer.endContent();
    };
    const big = Buffer.alloc(3_000_001, "big content ");
    expect(put()).toBeUndefined();
    expect(put(Buffer.alloc(0))).toBeUndefined();
    expect(put(big)).toEqual({ id: 0, size: big.length });
    expect(put(Buffer.from("small"))).toEqual({ id: 1, size: 5 });
    expect(put(big.subarray(0, 5), big.subarray(5, 4096), big.subarray(4096))).toEqual({
      id: 0,
      size: big.length,
    });
    expect(put(Buffer.from("sm"), Buffer.from("all"))).toEqual({ id: 1, size: 5 });
    expect(put(Buffer.from("small"), 3)).toEqual({ id: 2, size: 8 });
    expect(put(Buffer.from("small"), 1, 2)).toEqual({ id: 2, size: 8 });
    expect(put(Buffer.from("small\0\0\0"))).toEqual({ id: 3, size: 8 });
    writer.abort();
  });

  it("leaves no trace of a repeated content, nor of one the tree does not have", () => {
    const small = Buffer.from("small");
    const big = Buffer.alloc(2_500_000, "abc");
    const other = Buffer.alloc(10_000, "other");
    const write = (extra: boolean) => {
      const path = temporary();
      const writer = LayerWriter.create(path);
      const put = (bytes: Buffer) => {
        writer.beginContent();
        writer.append(bytes);
        return writer.endContent();
      };
      const root = directory({ a: file(""), b: file(""), c: file(""), s: file("") });
      const set = (name: string, content: ReturnType<typeof put>) =>
        Object.assign(root.entries.get(nameFromText(name)) as object, { content });
      if (extra) put(Buffer.from("replaced later"));
      set("a", put(small));
      if (extra) put(Buffer.alloc(70_000, "gone"));
      set("s", put(Buffer.from("before what is gone and fits the padding")));
      // Where it lay is padding afterwards, and must not show it.
      if (extra) put(Buffer.from("gone, and small"));
      set("b", put(big));
      if (extra) put(big);
      if (extra) put(small);
      set("c", put(other));
      if (extra) put(Buffer.alloc(5_000_000, "tail"));
      const summary = writer.finish(root, source);
      expect(summary.fileSize).toBe(statSync(path).size);
      return readFileSync(path);
    };
    expect(write(true).equals(write(false))).toBe(true);
  });

  it("gives digests of plain contents that are their sha256", () => {
    const { path } = writeLayer(
      directory({ a: file("hello"), b: file(Buffer.alloc(100_000, 7)), e: file("") }),
    );
    const image = Image.open(path);
    const digest = (name: string) => image.contentDigest(find(image, name));
    expect(Buffer.from(digest("a") as Uint8Array)).toEqual(createHash("sha256").update("hello").digest());
    expect(Buffer.from(digest("b") as Uint8Array)).toEqual(
      createHash("sha256").update(Buffer.alloc(100_000, 7)).digest(),
    );
    expect(digest("e")).toBeUndefined();
    image.close();
  });

  it("holds what does not fit its short fields", () => {
    const owners = Array.from(
      { length: 70_000 },
      (_, i) => [`o${i}`, file("", { uid: i, gid: 2 * i })] as const,
    );
    const linked = file("linked");
    const links = Array.from({ length: 66_000 }, (_, i) => [`l${i}`, linked] as const);
    const huge = file([2 ** 50, "end"]);
    const root = directory({ ...Object.fromEntries([...owners, ...links]), huge });
    const { path } = writeLayer(root);
    const image = Image.open(path);
    expect([image.uid(find(image, "o69999")), image.gid(find(image, "o69999"))]).toEqual([69_999, 139_998]);
    expect(image.nlink(find(image, "l5"))).toBe(66_000);
    expect(image.size(find(image, "huge"))).toBe(2 ** 50 + 3);
    expect(image.seek(find(image, "huge"), 1, 3)).toBe(2 ** 50);
    image.close();
    expect(checkImage(path, { data: true }).findings).toEqual([]);
  });

  it("writes an empty layer, and one with data that fills a page", () => {
    const empty = writeLayer(directory({}));
    const image = Image.open(empty.path);
    expect(list(image)).toHaveLength(1);
    image.close();
    expect(empty.summary).toMatchObject({
      inodes: 1,
      entries: 0,
      contents: 0,
      logicalBytes: 0,
      uniqueBytes: 0,
    });
    const page = writeLayer(directory({ p: file(Buffer.alloc(4096, 1)) }));
    expect(checkImage(page.path, { data: true }).findings).toEqual([]);
  });

  const bad: ReadonlyArray<[string, () => ReturnType<typeof directory>]> = [
    ["a name with a slash", () => directory({ "a/b": file("") })],
    ["the name ..", () => directory({ "..": file("") })],
    ["an empty name", () => directory({ "": file("") })],
    ["a name of 256 bytes", () => directory({ ["n".repeat(256)]: file("") })],
    ["a name with a NUL", () => directory([[nameOf(Buffer.from("a\0")) as Name, file("")]])],
    ["the uid that means none", () => directory({ a: file("", { uid: 0xffff_ffff }) })],
    ["a second of nanoseconds", () => directory({ a: file("", { mtimeNsec: 1e9 }) })],
    ["a mode with type bits", () => directory({ a: file("", { mode: 0o100644 }) })],
    ["an empty symlink", () => directory({ a: symlink("") })],
    ["an xattr twice", () => directory({ a: file("", { xattrs: [xattr("a", "1"), xattr("a", "2")] }) })],
    ["a link target that is no path", () => directory({ a: link("a\0") })],
    [
      "a directory with two names",
      () => {
        const twice = directory({});
        return directory({ a: twice, b: twice });
      },
    ],
    [
      "a directory in itself",
      () => {
        const self = directory({});
        self.entries.set(nameFromText("self"), self);
        return self;
      },
    ],
  ];
  it.each(bad)("refuses %s, and abort leaves nothing behind", (_what, make) => {
    const path = temporary();
    const writer = LayerWriter.create(path);
    expect(() => writer.finish(make(), source)).toThrow();
    writer.abort();
    expect(existsSync(path)).toBe(false);
    writer.abort();
  });

  it("refuses an existing file and calls out of order", () => {
    const path = temporary();
    const writer = LayerWriter.create(path);
    expect(() => LayerWriter.create(path)).toThrow(/EEXIST/);
    expect(() => writer.append(Buffer.alloc(1))).toThrow();
    writer.beginContent();
    expect(() => writer.beginContent()).toThrow();
    writer.append(Buffer.from("left open"));
    expect(() => writer.finish(directory({}), source)).toThrow();
    writer.abort();
    expect(() => writer.beginContent()).toThrow("closed");
  });

  it("copies instead of shifting where the filesystem cannot insert a range", () => {
    // tmpfs has no FALLOC_FL_INSERT_RANGE.
    const root = directory({ a: file(Buffer.alloc(50_000, "a")), b: file("b") });
    const path = `/dev/shm/imgfs-test-${process.pid}`;
    const writer = LayerWriter.create(path);
    try {
      writeContents(writer, root);
      writer.finish(root, source);
      const here = writeLayer(
        directory({ a: file(Buffer.alloc(50_000, "a")), b: file("b") }),
        temporary(),
        source,
      );
      expect(readFileSync(path).equals(readFileSync(here.path))).toBe(true);
      const image = Image.open(path);
      expect(readAll(image, find(image, "a")).equals(Buffer.alloc(50_000, "a"))).toBe(true);
      image.close();
    } finally {
      rmSync(path, { force: true });
    }
  });
});
