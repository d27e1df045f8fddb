import { statSync } from "node:fs";
import { describe, expect, it } from "vitest";
import { type Name, nameOf } from "../../src/base/bytes.js";
import { Errno } from "../../src/base/errno.js";
import { Image } from "../../src/imgfs/image.js";
import { InodeType } from "../../src/imgfs/tree.js";
import { device, directory, file, find, list, readAll, symlink, writeLayer, xattr } from "./support.js";

describe("a layer written and read back", () => {
  it("keeps every kind of inode with all it has", () => {
    const shared = file("same inode");
    const weird = nameOf(Buffer.from([0xff, 0x0a, 0x20, 0xfe])) as Name;
    const root = directory(
      [
        [nameOf(Buffer.from("a")), file("hello", { uid: 0xffff_fffe, gid: 4, mode: 0o4755 })],
        [weird, symlink(Buffer.from([0xc3, 0x28]))],
        [nameOf(Buffer.from("empty")), file("")],
        [nameOf(Buffer.from("null")), device(InodeType.char, 0x103, { mode: 0o666 })],
        [nameOf(Buffer.from("disk")), device(InodeType.block, 0xfff0_0fff)],
        [nameOf(Buffer.from("pipe")), device(InodeType.fifo, 0)],
        [nameOf(Buffer.from("one")), shared],
        [
          nameOf(Buffer.from("sub")),
          directory({ two: shared }, { mtimeSec: -5, mtimeNsec: 999_999_999, xattrs: [xattr("user.x", "")] }),
        ],
        [nameOf(Buffer.from("far")), file("x", { mtimeSec: 2 ** 40, mtimeNsec: 1 })],
        [nameOf(Buffer.from("old")), file("x", { mtimeSec: -(2 ** 40), mtimeNsec: 1 })],
      ],
      { xattrs: [xattr("user.b", Buffer.from([0, 255])), xattr("user.a", "1")] },
    );
    const { path, summary } = writeLayer(root);
    const image = Image.open(path);
    expect(image.rootDigest).toBe(summary.rootDigest);
    expect(image.treeRoot).toBe(summary.treeRoot);
    expect(summary.fileSize).toBe(statSync(path).size);
    const items = list(image);
    const item = (path: string) => items.find((one) => one.path === path);
    expect(items.map(({ path, type }) => `${type} ${path}`)).toEqual([
      "4 ",
      "8 a",
      "6 disk",
      "8 empty",
      "8 far",
      "2 null",
      "8 old",
      "8 one",
      "1 pipe",
      "4 sub",
      "8 sub/two",
      "10 \xff\n \xfe",
    ]);
    expect(item("")).toMatchObject({
      row: 0,
      mode: "40755",
      nlink: 3,
      xattrs: { "user.a": "1", "user.b": "\0\xff" },
    });
    expect(item("a")).toMatchObject({
      mode: "104755",
      owner: "4294967294:4",
      size: 5,
      data: "hello",
      nlink: 1,
    });
    expect(item("disk")).toMatchObject({ mode: "60644", rdev: 0xfff0_0fff });
    expect(item("null")).toMatchObject({ mode: "20666", rdev: 0x103 });
    expect(item("pipe")).toMatchObject({ mode: "10644" });
    expect(item("empty")).toMatchObject({ size: 0, data: "" });
    expect(item("far")).toMatchObject({ mtime: `${2 ** 40}.1`, data: "x" });
    expect(item("old")).toMatchObject({ mtime: `-${2 ** 40}.1` });
    expect(item("sub")).toMatchObject({ mtime: "-5.999999999", nlink: 2, xattrs: { "user.x": "" } });
    expect(item("one")).toMatchObject({ nlink: 2, row: item("sub/two")?.row, data: "same inode" });
    expect(item("\xff\n \xfe")).toMatchObject({ mode: "120777", target: "\xc3(", size: 2 });
    image.close();
  });

  it("reads large and sparse contents where they lie", () => {
    const big = Buffer.alloc(3_000_000, "0123456789abcdef\n");
    const root = directory({
      big: file(big),
      again: file(big),
      sparse: file([5000, "abc", 4096 * 3, big.subarray(0, 5000), 7]),
      hole: file([1 << 20]),
    });
    const { path, summary } = writeLayer(root);
    expect(summary.contents).toBe(3);
    const image = Image.open(path);
    expect(readAll(image, find(image, "big")).equals(big)).toBe(true);
    const sparse = find(image, "sparse");
    const expected = Buffer.concat([
      Buffer.alloc(5000),
      Buffer.from("abc"),
      Buffer.alloc(4096 * 3),
      big.subarray(0, 5000),
      Buffer.alloc(7),
    ]);
    expect(readAll(image, sparse).equals(expected)).toBe(true);
    expect(image.seek(sparse, 0, 3)).toBe(5000);
    expect(image.seek(sparse, 5001, 4)).toBe(5003);
    expect(image.seek(sparse, 5003, 3)).toBe(5003 + 4096 * 3);
    expect(image.seek(sparse, expected.length - 1, 3)).toBe(-Errno.ENXIO);
    expect(image.seek(sparse, expected.length, 4)).toBe(-Errno.ENXIO);
    expect(readAll(image, find(image, "hole")).equals(Buffer.alloc(1 << 20))).toBe(true);
    image.close();
  });
});
