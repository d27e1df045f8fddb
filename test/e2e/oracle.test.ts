// The comparer is tested first, without imgfs: a real tree, packed by GNU tar, read back by the
// oracle's own parser, must be the tree again; and a difference of any kind must be found.
import { readFileSync, writeFileSync } from "node:fs";
import { describe, expect, it } from "vitest";
import {
  compareTrees,
  expectedTree,
  hasCommand,
  python,
  scratch,
  scratchDirectory,
  shownTree,
  succeed,
  titleOf,
} from "./mounted.js";
import { layerTar } from "./tar-writer.js";

const reason =
  (process.getuid?.() === 0 ? undefined : "not root") ??
  (hasCommand("python3") ? undefined : "python3 is missing") ??
  (hasCommand("tar") ? undefined : "tar is missing");

/** Fills a folder with one of each kind; user xattrs only where the filesystem keeps them. */
const fill = `
import os, stat, sys
os.chdir(sys.argv[1])
def put(name, data=b'x', mode=0o644):
    with open(name, 'wb') as f: f.write(data)
    os.chmod(name, mode)
put('plain', b'text' * 1000); put('empty', b''); put('suid', b's', 0o4755); put('closed', b'c', 0)
put(b'caf\\xe9'); put(b'new\\nline'); put('n' * 255); put('back\\\\slash')
os.mkdir('dir', 0o750); os.makedirs('/'.join(['deep-' * 20] * 9)); put('/'.join(['deep-' * 20] * 9) + '/file')
os.link('plain', 'dir/linked'); os.symlink('x' * 1000, 'long'); os.symlink('dir', 'short')
os.mkfifo('fifo'); os.mknod('null', 0o666 | stat.S_IFCHR, os.makedev(1, 3)); os.mknod('blk', 0o600 | stat.S_IFBLK, os.makedev(7, 300))
put('owned'); os.chown('owned', 4294967294, 3000000)
put('attrs')
try:
    os.setxattr('attrs', 'user.bin', b'\\0\\xff=\\n'); os.setxattr('attrs', 'user.text', b'v' * 900)
except OSError: pass
for name, size in (('sparse', 1 << 22), ('all-hole', 1 << 20)):
    with open(name, 'wb') as f:
        f.truncate(size)
        if name == 'sparse':
            for block in (0, 7, 9, 100, 200, 300, 400, 1023): f.seek(block * 4096); f.write(bytes([block % 251 + 1]) * 4096)
ns = int(sys.argv[2])
for folder, dirs, files in os.walk(b'.', topdown=False):
    for name in files + dirs: os.utime(os.path.join(folder, name), ns=(0, ns), follow_symlinks=False)
for name, seconds in (('empty', -315446215), ('suid', 4294967296), ('closed', 0)): os.utime(name, ns=(0, seconds * 10**9))
os.utime('.', ns=(0, ns))
`;

describe.skipIf(reason)(titleOf("the oracle", reason), () => {
  it.each([
    ["pax", "1600000000123456789"],
    ["gnu", "1600000000000000000"],
  ])("reads back the tree that GNU tar packed in %s form", async (format, ns) => {
    const tree = scratchDirectory("tree");
    await python(fill, tree, ns);
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
