// Extraction by itself: images that no builder makes, and what is left of an extraction that fails.
import {
  existsSync,
  lstatSync,
  mkdirSync,
  mkdtempSync,
  readdirSync,
  readFileSync,
  rmdirSync,
  rmSync,
  statSync,
  utimesSync,
  writeFileSync,
} from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { afterAll, beforeEach, describe, expect, it } from "vitest";
import { nameOf } from "../../src/base/bytes.js";
import { extractTo } from "../../src/extract/directory.js";
import { writeTar } from "../../src/extract/tar.js";
import { type Start, startAt } from "../../src/extract/walk.js";
import { Image } from "../../src/imgfs/image.js";
import type { DirectoryInode } from "../../src/imgfs/tree.js";
import { AT_FDCWD, closeFd, O_DIRECTORY, O_RDONLY, openAt, readDirectory } from "../../src/sys/files.js";
import { emptyDirectory } from "../../src/sys/remove.js";
import { reseal, sectionOf } from "../imgfs/reseal.js";
import { directory, file, symlink, temporary, writeLayer, xattr } from "../imgfs/support.js";

const folder = mkdtempSync(join(tmpdir(), "imgfs-extract-"));
afterAll(() => rmSync(folder, { recursive: true, force: true }));
const options = { owner: process.geteuid?.() === 0, xattrs: true };
const root: Start = { row: 0, name: Buffer.alloc(0) };
let dest: string;
let number = 0;

beforeEach(() => {
  number++;
  dest = join(folder, String(number));
});

function imageOf(tree: DirectoryInode): Image {
  return Image.stack([writeLayer(tree).path]);
}

/** A layer blob whose NAMES are changed: equal lengths, digests made to fit. Opened as it is, not merged. */
function forged(tree: DirectoryInode, from: string, to: string): Image {
  const bytes = readFileSync(writeLayer(tree).path);
  const { offset, length } = sectionOf(bytes, "names");
  const at = bytes.indexOf(from, offset);
  if (at < 0 || at >= offset + length) throw new Error("no such name");
  bytes.write(to, at, "latin1");
  const path = temporary();
  writeFileSync(path, reseal(bytes));
  return Image.open(path);
}

describe("extracting", () => {
  it("a name that is there twice is an error, and a symlink of that name is not followed", async () => {
    const outside = join(folder, "outside");
    mkdirSync(outside);
    // Entries are made in the order of their names; the directory comes second, and would lead out.
    for (const first of ["x1", "x2"]) {
      const second = first === "x1" ? "x2" : "x1";
      const tree = directory({
        [first]: symlink(outside),
        [second]: directory({ owned: file("escaped") }),
      });
      const image = forged(tree, second, first);
      await expect(extractTo(image, root, dest, options)).rejects.toThrow(/^x[12]: already there$/);
      expect(readdirSync(outside)).toEqual([]);
      expect(existsSync(dest)).toBe(false);
    }
    rmdirSync(outside);
  });

  it.each([
    ["..", "ab"],
    ["a/b", "abc"],
    [".", "q"],
  ])("a name %j of a forged image is damage", async (to, from) => {
    const image = forged(directory({ [from]: file("data"), other: file("o") }), from, to);
    await expect(extractTo(image, root, dest, options)).rejects.toThrow(/ENTRY: record \d+: name/);
    expect(existsSync(dest)).toBe(false);
    expect(() => writeTar(image, root, () => {})).toThrow(/ENTRY: record \d+: name/);
  });

  it("goes deeper than any path, and removes that too", async () => {
    const depth = 300;
    let tree = directory(
      { bottom: file("deep down", { mode: 0o640, mtimeSec: 5 }) },
      { mode: 0o500, mtimeSec: 6 },
    );
    for (let i = 1; i < depth; i++)
      tree = directory({ ["d".repeat(100)]: tree }, { mode: 0o500, mtimeSec: 7 });
    const image = imageOf(tree);
    expect(await extractTo(image, root, dest, options)).toMatchObject({ entries: depth, losses: [] });
    let fd = openAt(AT_FDCWD, Buffer.from(dest), O_RDONLY | O_DIRECTORY);
    let found = "";
    for (let i = 1; i < depth; i++) {
      const next = openAt(fd, Buffer.from("d".repeat(100)), O_RDONLY | O_DIRECTORY);
      expect(next).toBeGreaterThan(0);
      closeFd(fd);
      fd = next;
    }
    readDirectory(fd, (bytes, start, end) => {
      found = nameOf(bytes, start, end);
    });
    closeFd(fd);
    expect(found).toBe("bottom");
    const top = openAt(AT_FDCWD, Buffer.from(dest), O_RDONLY | O_DIRECTORY);
    expect(emptyDirectory(top)).toBe(0);
    closeFd(top);
    expect(readdirSync(dest)).toEqual([]);
    expect(() => writeTar(image, root, () => {})).toThrow(/a path of 4\d\d\d bytes$/);
  });

  it("hard links share one inode, and nothing is left of how they were made", async () => {
    const shared = file("shared", { mtimeSec: 11, mtimeNsec: 12 });
    const link = symlink("a");
    const image = imageOf(
      directory(
        { a: shared, d: directory({ b: shared, e: directory({ c: shared, s: link }) }), t: link },
        { mtimeSec: 9 },
      ),
    );
    await extractTo(image, root, dest, options);
    expect(readdirSync(dest).sort()).toEqual(["a", "d", "t"]);
    const inode = lstatSync(join(dest, "a"));
    expect(inode).toMatchObject({ nlink: 3, mtimeMs: 11000.000012 });
    expect(lstatSync(join(dest, "d/b")).ino).toBe(inode.ino);
    expect(lstatSync(join(dest, "d/e/c")).ino).toBe(inode.ino);
    expect(lstatSync(join(dest, "t"))).toMatchObject({ nlink: 2, ino: lstatSync(join(dest, "d/e/s")).ino });
    expect(statSync(dest).mtimeMs).toBe(9000);
  });

  it("a destination that was there is as it was after a failure", async () => {
    mkdirSync(dest, { mode: 0o751 });
    utimesSync(dest, 100, 200);
    const tree = directory({ a: file("a"), m: directory({ z: file("z") }), x1: file("1"), x2: file("2") });
    await expect(extractTo(forged(tree, "x2", "x1"), root, dest, options)).rejects.toThrow(
      "x1: already there",
    );
    expect(readdirSync(dest)).toEqual([]);
    expect(statSync(dest)).toMatchObject({ mode: 0o40751, mtimeMs: 200_000 });
  });

  it("directories made for a destination go away with it", async () => {
    const tree = directory({ x1: file("1"), x2: file("2") });
    const far = join(dest, "and/further");
    await expect(extractTo(forged(tree, "x2", "x1"), root, far, options)).rejects.toThrow(
      "x1: already there",
    );
    expect(existsSync(dest)).toBe(false);
  });

  it("a destination that is not empty, or no directory, is left alone", async () => {
    const image = imageOf(directory({ a: file("a") }));
    mkdirSync(dest);
    writeFileSync(join(dest, "mine"), "mine");
    await expect(extractTo(image, root, dest, options)).rejects.toThrow(`${dest}: not empty`);
    expect(readdirSync(dest)).toEqual(["mine"]);
    await expect(extractTo(image, root, join(dest, "mine"), options)).rejects.toThrow(/mine/);
    expect(readFileSync(join(dest, "mine"), "utf8")).toBe("mine");
  });

  it("a signal ends it, and nothing is left", async () => {
    const many = Object.fromEntries(Array.from({ length: 20_000 }, (_, i) => [`f${i}`, file("x")]));
    const abort = new AbortController();
    const done = extractTo(imageOf(directory(many)), root, dest, { ...options, signal: abort.signal });
    setImmediate(() => abort.abort(new Error("enough")));
    await expect(done).rejects.toThrow("enough");
    expect(existsSync(dest)).toBe(false);
  });

  it("an attribute that no filesystem takes is an error that names it", async () => {
    const image = imageOf(
      directory({ f: file("f", { xattrs: [xattr("user.large", Buffer.alloc(70_000))] }) }),
    );
    await expect(extractTo(image, root, dest, options)).rejects.toThrow(
      /^f: extended attribute user\.large: E2BIG$/,
    );
    expect(existsSync(dest)).toBe(false);
  });

  it("begins where a path leads, through the image's own symlinks, and takes the last one as it is", () => {
    const image = imageOf(
      directory({
        bin: symlink("usr/bin"),
        usr: directory({ bin: directory({ sh: file("sh") }) }),
        up: symlink("../../.."),
      }),
    );
    const usrBin = startAt(image, Buffer.from("/usr/bin"));
    expect(startAt(image, Buffer.from("bin/")).row).toBe(usrBin.row);
    expect(startAt(image, Buffer.from("up/bin/../bin/")).row).toBe(usrBin.row);
    expect(startAt(image, Buffer.from("bin/sh"))).toEqual(startAt(image, Buffer.from("/usr//bin/./sh")));
    expect(startAt(image, Buffer.from("bin")).row).not.toBe(usrBin.row);
    expect(() => startAt(image, Buffer.from("bin/sh/"))).toThrow("ENOTDIR");
    expect(() => startAt(image, Buffer.from("bin/none"))).toThrow("ENOENT");
  });
});
