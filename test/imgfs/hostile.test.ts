// What the fuzzers, and reading with their eyes, have found: files whose digests fit and whose records do not.
import { mkdirSync, readFileSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { describe, expect, it } from "vitest";
import { sha256 } from "../../src/base/digest.js";
import { checkImage } from "../../src/imgfs/check.js";
import { noCodec } from "../../src/imgfs/codec.js";
import { blobFile } from "../../src/imgfs/folder.js";
import { FrameCache } from "../../src/imgfs/frame-cache.js";
import { Image } from "../../src/imgfs/image.js";
import * as L from "../../src/imgfs/layout.js";
import { mergeLayers } from "../../src/imgfs/merge.js";
import { pack } from "../../src/imgfs/pack.js";
import { type Parts, putTogether, takeApart } from "../fuzz/image-parts.js";
import {
  directory,
  file,
  find,
  link,
  list,
  scratch,
  symlink,
  temporary,
  writeLayer,
  xattr,
} from "./support.js";

const bytesOf = (parts: Parts, section: L.SectionName): Buffer =>
  (parts.sections.find(({ id }) => id === L.Section[section].id) as Parts["sections"][number]).bytes;

/** The layer of a tree after a change to its parts, digests made to fit. */
function forged(root: ReturnType<typeof directory>, change: (parts: Parts) => void): string {
  const parts = takeApart(readFileSync(writeLayer(root).path));
  change(parts);
  const path = temporary();
  writeFileSync(path, putTogether(parts));
  return path;
}

const findingsOf = (path: string, data = false): string[] =>
  checkImage(path, { data }).findings.map(
    ({ section, record, problem }) => `${section}: ${record}: ${problem}`,
  );

describe("a hostile file", () => {
  it("with a number beyond 2^53 in its section table is refused in words", () => {
    const { path } = writeLayer(directory({}));
    const bytes = readFileSync(path);
    bytes.writeUInt32LE(0x8000_0000, 0x100 + 12);
    // A checksum is the last thing that is told.
    const { findings } = ((): ReturnType<typeof checkImage> => {
      writeFileSync(path, bytes);
      return checkImage(path, { data: false });
    })();
    expect(findings.at(-1)?.problem).toBe("offset beyond 2^53 instead of 4096");
  });

  it("with flags of a section that nobody knows is refused: two files of one tree would have two tree roots", () => {
    const path = forged(directory({}), (parts) => {
      (parts.sections[0] as Parts["sections"][number]).flags = 0x10;
    });
    expect(() => Image.open(path)).toThrow("header: section DIRECTORY: flags 16 instead of 0");
  });

  it("with a NUL in a symlink's target is refused: the kernel would take it for the end", () => {
    const path = forged(directory({ s: symlink("a/b") }), (parts) => {
      bytesOf(parts, "targets")[1] = 0;
    });
    const image = Image.open(path);
    expect(() => image.symlinkTarget(find(image, "s"))).toThrow("INODE: record 1: symlink target with a NUL");
    expect(() => mergeLayers([image])).toThrow("symlink target with a NUL");
    image.close();
  });

  it("with a symlink that has permissions makes no index, which would vouch for them", () => {
    const path = forged(directory({ s: symlink("a") }), (parts) => {
      bytesOf(parts, "inode").writeUInt16LE(0o120_644, 32);
    });
    const image = Image.open(path);
    expect(() => mergeLayers([image])).toThrow("INODE: record 1: mode of a symlink is not 0777");
    image.close();
  });

  it("with a link target beyond PATH_MAX is refused before it is walked: many links may share one", () => {
    const path = forged(
      directory({ l: link("x"), s: symlink("t".repeat(4000)), s2: symlink("u".repeat(4000)) }),
      (parts) => {
        bytesOf(parts, "link").writeUInt32LE(0, 0);
        bytesOf(parts, "link").writeUInt32LE(4096, 4);
      },
    );
    const image = Image.open(path);
    expect(() => mergeLayers([image])).toThrow("LINK: record 0: target of 4096 bytes");
    image.close();
  });

  it("with two sizes of one content makes no index", () => {
    const path = forged(directory({ a: file("same"), b: file("same") }), (parts) => {
      bytesOf(parts, "inode").writeUInt32LE(3, 2 * 32 + 8);
    });
    const image = Image.open(path);
    expect(() => mergeLayers([image])).toThrow(
      /CONTENT: record 0: \d bytes, but \d where its digest was met/,
    );
    image.close();
  });

  it("with sets of attributes that overlap is not decoded over and over", () => {
    const names = ["a", "b", "c", "d"];
    const tree = directory(
      Object.fromEntries(names.map((name) => [name, file(name, { xattrs: [xattr(`user.${name}`, name)] })])),
    );
    const path = forged(tree, (parts) => {
      const offsets = bytesOf(parts, "xattrOffset");
      const end = offsets.readUInt32LE(16);
      [0, end, 0, end, 0].forEach((offset, i) => void offsets.writeUInt32LE(offset, i * 4));
    });
    expect(findingsOf(path).some((text) => text.includes("the set overlaps others"))).toBe(true);
  });

  it("with contents that overlap is not hashed over and over", () => {
    const size = 50_000;
    const tree = directory(
      Object.fromEntries(["a", "b", "c", "d"].map((name) => [name, file(Buffer.alloc(size, name))])),
    );
    const path = forged(tree, (parts) => {
      for (let i = 0; i < 4; i++) bytesOf(parts, "content").writeUInt32LE(0, i * 16);
    });
    const { findings, dataBytes } = checkImage(path, { data: true });
    expect(findings.filter(({ problem }) => problem.startsWith("lies at 0, in what ends at"))).toHaveLength(
      3,
    );
    expect(dataBytes).toBe(size);
  });

  it("that is an index in the place of a blob, and names another that names it, is not followed", () => {
    const folder = join(scratch, "loop");
    mkdirSync(folder);
    const { path } = writeLayer(directory({ a: file("a") }), join(folder, "layer.imgfs"));
    const layer = Image.open(path);
    const parts = takeApart(Buffer.from(mergeLayers([layer])));
    layer.close();
    const names = ["one", "two"].map((name) => sha256(Buffer.from(name)));
    const files = names.map((name) => join(folder, blobFile(name, noCodec)));
    files.forEach((target, i) => {
      const other = Buffer.from(names[1 - i]?.slice("sha256:".length) as string, "hex");
      const blob = { source: other, root: Buffer.alloc(32), size: 0, raw: 0, unique: 0 };
      for (const part of parts.sections) {
        if (part.id === L.Section.blobs.id) part.bytes = pack([blob, blob]);
      }
      writeFileSync(target, putTogether(parts));
    });
    const report = checkImage(files[0] as string, { data: false });
    expect(report.files).toEqual(files);
    const problems = report.findings.map(({ problem }) => problem);
    expect(problems.some((problem) => problem.endsWith("is no layer"))).toBe(true);
    // Each stops at its first blob, with all it has found.
    expect(problems.some((problem) => /EMFILE|call stack/.test(problem))).toBe(false);
  });
});

describe("contents that are verified before they are read", () => {
  it("give the same answer whoever looks: of a hole alone nothing is stored that could be verified", () => {
    const path = forged(directory({ hole: file([300_000]) }), (parts) => {
      bytesOf(parts, "contentDigest").fill(1);
    });
    const image = Image.open(path, { verify: true });
    const hole = find(image, "hole");
    const begun: unknown[] = [];
    expect(image.prepare(hole, 0, 4096, { begin: (work) => begun.push(work) > 0, idle: () => false })).toBe(
      0,
    );
    expect(begun).toEqual([]);
    expect(list(image).find(({ path }) => path === "hole")?.size).toBe(300_000);
    image.close();
  });
});

describe("the memory of a closed image", () => {
  it("is the next one's", () => {
    const evicted: number[] = [];
    const owner = { evicted: (frame: number) => void evicted.push(frame) };
    const first = new FrameCache();
    const slot = first.reserve(owner, 7);
    const address = first.address(slot);
    first.release();
    expect(new FrameCache().address(0)).not.toBe(address);
    first.publish(slot);
    first.release();
    expect(evicted).toEqual([7]);
    expect(new FrameCache().address(0)).toBe(address);
  });
});
