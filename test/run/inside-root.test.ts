// No symlink of an image may lead a path out of its root.
import { mkdirSync, mkdtempSync, realpathSync, rmSync, symlinkSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { afterAll, expect, it } from "vitest";
import { insideRoot } from "../../src/run/inside-root.js";

const root = realpathSync(mkdtempSync(join(tmpdir(), "imgfs-test-")));
afterAll(() => rmSync(root, { recursive: true }));
mkdirSync(join(root, "a/b"), { recursive: true });
writeFileSync(join(root, "a/file"), "");
for (const [name, target] of [
  ["absolute", "/etc"],
  ["up", "../../../../etc"],
  ["a/b/back", "../../a/file"],
  ["chain", "absolute/x"],
  ["dangling", "no/such"],
  ["loop", "loop"],
  ["slash", "/"],
] as const) {
  symlinkSync(target, join(root, name));
}

it.each([
  ["/", ""],
  ["/a/./b/../file", "/a/file"],
  ["/../../etc/passwd", "/etc/passwd"],
  ["/absolute/passwd", "/etc/passwd"],
  ["/up/passwd", "/etc/passwd"],
  ["/a/b/back", "/a/file"],
  ["/chain/../y", "/etc/y"],
  ["/dangling/deep", "/no/such/deep"],
  ["/slash/absolute/slash/a", "/etc/slash/a"],
  ["/missing/../a", "/a"],
])("%s is %s inside", (path, inside) => {
  expect(insideRoot(root, path)).toBe(join(root, inside).replace(/\/$/, ""));
});

it("ends where symlinks go round", () => {
  expect(() => insideRoot(root, "/loop/x")).toThrow("/loop/x: too many symlinks in the image");
});
