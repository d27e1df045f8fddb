// The comparer is tested first, without imgfs: a real tree, packed by GNU tar, read back by the
// oracle's own parser, must be the tree again; and a difference of any kind must be found.
import { readFileSync, writeFileSync } from "node:fs";
import { describe, expect, it } from "vitest";
import {
  compareTrees,
  expectedTree,
  hasCommand,
  scratch,
  scratchDirectory,
  shownTree,
  succeed,
  titleOf,
} from "./mounted.js";
import { fillOddTree } from "./odd-tree.js";
import { layerTar } from "./tar-writer.js";

const reason =
  (process.getuid?.() === 0 ? undefined : "not root") ??
  (hasCommand("python3") ? undefined : "python3 is missing") ??
  (hasCommand("tar") ? undefined : "tar is missing");

describe.skipIf(reason)(titleOf("the oracle", reason), () => {
  it.each([
    ["pax", "1600000000123456789"],
    ["gnu", "1600000000000000000"],
  ])("reads back the tree that GNU tar packed in %s form", async (format, ns) => {
    const tree = scratchDirectory("tree");
    await fillOddTree(tree, ns);
    const tar = scratch("tree.tar");
    const xattrs = format === "pax" ? ["--xattrs", "--xattrs-include=*"] : [];
    await succeed("tar", [
      `--format=${format}`,
      "--sparse",
      "--numeric-owner",
      ...xattrs,
      "-C",
      tree,
      "-cf",
      tar,
      ".",
    ]);
    const columns = format === "pax" ? ["--holes"] : [];
    const expected = await expectedTree(tar, ...columns);
    const shown = await shownTree(tree, ...columns);
    if (format === "gnu")
      writeFileSync(shown, readFileSync(shown, "utf8").replace(/"xattrs":\{[^}]*\}/g, '"xattrs":{}'));
    expect(await compareTrees(expected, shown)).toBeGreaterThan(25);
  });

  it("finds every kind of difference", async () => {
    const dump = async (name: string, time: string, data: string): Promise<string> => {
      const tar = scratch("one.tar");
      writeFileSync(tar, layerTar([{ name, time, data: Buffer.from(data) }]));
      return expectedTree(tar);
    };
    const base = await dump("a", "1.000000001", "x");
    await expect(compareTrees(base, await dump("a", "1.000000002", "x"))).rejects.toThrow(
      "mtime differs (1)",
    );
    await expect(compareTrees(base, await dump("a", "1.000000001", "y"))).rejects.toThrow(
      "sha256 differs (1)",
    );
    await expect(compareTrees(base, await dump("b", "1.000000001", "x"))).rejects.toThrow("only in A (1)");
    expect(await compareTrees(base, await dump("a", "1.000000001", "x"))).toBe(2);
  });
});
