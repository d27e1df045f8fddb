import { describe, expect, it } from "vitest";
import { LinkError } from "../../src/imgfs/errors.js";
import { Image } from "../../src/imgfs/image.js";
import { mergeLayers } from "../../src/imgfs/merge.js";
import type { DirectoryInode } from "../../src/imgfs/tree.js";
import {
  directory,
  file,
  find,
  implied,
  type Listed,
  link,
  list,
  symlink,
  whiteout,
  writeLayer,
  xattr,
} from "./support.js";

/** The merged tree of layers, bottom first. */
function merged(...roots: DirectoryInode[]): Listed[] {
  const image = Image.stack(roots.map((root) => writeLayer(root).path));
  try {
    return list(image);
  } finally {
    image.close();
  }
}

function paths(...roots: DirectoryInode[]): string[] {
  return merged(...roots).map(({ path, data }) => (data === undefined ? path : `${path}=${data}`));
}

describe("merging layers", () => {
  it("lets the topmost layer win a name and unites directories", () => {
    expect(
      paths(
        directory({ etc: directory({ a: file("1"), b: file("1") }), x: file("1") }),
        directory({ etc: implied({ b: file("2"), c: file("2") }), y: symlink("x") }),
      ),
    ).toEqual(["", "etc", "etc/a=1", "etc/b=2", "etc/c=2", "x=1", "y"]);
  });

  it("hides below whiteouts and opaque directories what is lower, and only that", () => {
    expect(
      paths(
        directory({
          a: file("1"),
          d: directory({ x: file("1"), y: file("1") }),
          e: directory({ z: file("1") }),
        }),
        directory({
          a: whiteout,
          d: directory({ y: file("2") }, { opaque: true }),
          e: whiteout,
          f: whiteout,
        }),
        directory({ e: directory({ new: file("3") }), d: implied({ z: file("3") }) }),
      ),
    ).toEqual(["", "d", "d/y=2", "d/z=3", "e", "e/new=3"]);
    expect(paths(directory({ a: file("1") }), directory({ b: file("2") }, { opaque: true }))).toEqual([
      "",
      "b=2",
    ]);
  });

  it("does not unite a directory with what lies below something else", () => {
    expect(
      paths(
        directory({ d: directory({ old: file("1") }) }),
        directory({ d: file("2") }),
        directory({ d: directory({ new: file("3") }) }),
      ),
    ).toEqual(["", "d", "d/new=3"]);
    expect(paths(directory({ d: directory({ old: file("1") }) }), directory({ d: symlink("e") }))).toEqual([
      "",
      "d",
    ]);
  });

  it("takes a directory's metadata from the topmost layer that describes it", () => {
    const bottom = directory({
      d: directory({ a: file("1") }, { mode: 0o700, uid: 5, xattrs: [xattr("user.k", "v")] }),
    });
    const [, d] = merged(bottom, directory({ d: implied({ b: file("2") }) }), implied({}));
    expect(d).toMatchObject({ mode: "40700", owner: "5:0", xattrs: { "user.k": "v" } });
    const [root, e] = merged(implied({ e: implied({ a: file("1") }) }));
    expect(e).toMatchObject({ mode: "40755", owner: "0:0", mtime: "0.0" });
    expect(root).toMatchObject({ mode: "40755", mtime: "0.0" });
  });

  it("counts links anew: names that survive, subdirectories that are there", () => {
    const twice = file("t");
    const items = merged(
      directory({ a: twice, b: twice, c: directory({ d: directory({}), e: twice }) }),
      directory({ b: whiteout, c: implied({ f: directory({}) }) }),
    );
    const nlink = (path: string) => items.find((item) => item.path === path)?.nlink;
    expect([nlink("a"), nlink("c/e"), nlink("c"), nlink("")]).toEqual([2, 2, 4, 3]);
  });

  it("is the same whatever the order of entries in a layer", () => {
    const names = ["l", "a", ".x", "d"];
    const entries = () => ({ l: link("a"), a: file("2"), ".x": whiteout, d: directory({ k: link("d/k") }) });
    const base = () => directory({ a: file("1"), ".x": file("1"), d: directory({ k: file("k") }) });
    const results = [names, [...names].reverse()].map((order) => {
      const all: Record<string, ReturnType<typeof link>> = entries();
      return paths(base(), directory(Object.fromEntries(order.map((name) => [name, all[name] as never]))));
    });
    expect(results[0]).toEqual(results[1]);
  });
});

describe("hard links to lower layers", () => {
  it("share the row below, and keep it when its own name is replaced or hidden above", () => {
    const items = merged(
      directory({ a: file("1"), b: file("b") }),
      directory({ l: link("a"), a: file("2"), m: link("b") }),
      directory({ b: whiteout, n: link("l") }),
    );
    expect(items.map(({ path, data, nlink }) => `${path}=${data}*${nlink}`).slice(1)).toEqual([
      "a=2*1",
      "l=1*2",
      "m=b*1",
      "n=1*2",
    ]);
    const row = (path: string) => items.find((item) => item.path === path)?.row;
    expect(row("l")).toBe(row("n"));
  });

  const base = () =>
    directory({ d: directory({ f: file("1"), s: symlink("f") }), up: symlink("d"), g: file("g") });
  const cases: ReadonlyArray<[string, DirectoryInode, string, string]> = [
    ["a missing target", directory({ l: link("d/none") }), "l", "d/none"],
    ["a directory", directory({ x: directory({ l: link("d") }) }), "x/l", "d"],
    ["what this layer whites out", directory({ l: link("g"), g: whiteout }), "l", "g"],
    ["what is in a whited-out directory", directory({ l: link("d/f"), d: whiteout }), "l", "d/f"],
    [
      "what is in an opaque directory",
      directory({ l: link("d/f"), d: directory({}, { opaque: true }) }),
      "l",
      "d/f",
    ],
    ["a path through a symlink", directory({ l: link("up/f") }), "l", "up/f"],
    ["a path through a file", directory({ l: link("g/f") }), "l", "g/f"],
  ];
  it.each(cases)("to %s are an error that names both", (_what, top, linkPath, target) => {
    try {
      merged(base(), top);
      expect.unreachable();
    } catch (cause) {
      expect(cause).toBeInstanceOf(LinkError);
      expect(cause).toMatchObject({ link: linkPath, target });
      expect((cause as Error).message).toContain(`hard link ${linkPath} to ${target}`);
    }
  });

  it("may name a symlink, and pass through directories this layer changes", () => {
    const items = merged(
      base(),
      directory({ l: link("d/s"), d: directory({ f: file("2"), k: link("d/f") }) }),
    );
    expect(items.find(({ path }) => path === "l")).toMatchObject({ type: 10, target: "f" });
    expect(items.find(({ path }) => path === "d/k")?.data).toBe("1");
    expect(items.find(({ path }) => path === "d/f")?.data).toBe("2");
  });
});

describe("contents and roots of a merged image", () => {
  it("points equal contents of several layers at the lowest copy", () => {
    const big = Buffer.alloc(9000, "x");
    const layers = [
      directory({ other: file("o") }),
      directory({ a: file(big) }),
      directory({ b: file(big) }),
    ].map((root) => writeLayer(root).path);
    const image = Image.stack(layers);
    expect(image.contentCount).toBe(2);
    expect(image.uniqueBytes).toBe(9001);
    const fds = ["a", "b"].map((name) => {
      const seen: number[] = [];
      expect(
        image.dataRanges(find(image, name), (fd, at, to, length) => {
          expect([to, length]).toEqual([0, 9000]);
          expect(at % 4096).toBe(0);
          seen.push(fd);
        }),
      ).toBe(true);
      return seen;
    });
    expect(fds[0]).toEqual(fds[1]);
    expect(image.contentDigest(find(image, "a"))).toEqual(image.contentDigest(find(image, "b")));
    image.close();
  });

  it("gives equal trees equal tree roots, however they are divided and ordered", () => {
    const one = writeLayer(directory({ a: file("1"), d: directory({ b: file("2"), c: file([5000, "x"]) }) }));
    const other = writeLayer(
      directory({ d: directory({ c: file([5000, "x"]), b: file("2") }), a: file("1") }),
    );
    expect(other.summary.treeRoot).toBe(one.summary.treeRoot);
    expect(other.summary.rootDigest).not.toBe(one.summary.rootDigest);
    const parts = [
      directory({ a: file("0"), d: directory({ c: file([5000, "x"]), gone: file("g") }) }),
      directory({ a: file("1"), d: implied({ b: file("2"), gone: whiteout }) }),
    ].map((root) => writeLayer(root).path);
    const image = Image.stack(parts);
    expect(image.treeRoot).toBe(one.summary.treeRoot);
    image.close();
  });

  it("gives the same bytes on every run, and refuses an index as a layer", () => {
    const layers = [directory({ a: file("1") }), directory({ b: file("1") })].map((root) =>
      Image.open(writeLayer(root).path),
    );
    expect(Buffer.from(mergeLayers(layers)).equals(mergeLayers(layers))).toBe(true);
    const stacked = Image.stack(layers.map(({ metadata }) => metadata.file));
    expect(() => mergeLayers([stacked])).toThrow("not a layer blob");
    for (const image of [...layers, stacked]) image.close();
  });
});
