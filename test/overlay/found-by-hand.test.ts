// What people found by using a mount, each as the few calls it comes down to.
import { execFileSync } from "node:child_process";
import { mkdirSync } from "node:fs";
import { join } from "node:path";
import { describe, expect, it } from "vitest";
import { FATTR_MTIME } from "../../src/fuse/operations.js";
import { directory, file, symlink } from "../imgfs/support.js";
import { code, fresh, imageOf, type Mounted, mount, remount } from "./harness.js";

const shared = file("old");
const links = imageOf(directory({ a: shared, b: shared, c: shared }));
const O_WRONLY_APPEND = 0o2001;

describe("found by hand", () => {
  it("counts a covered name of the image once, whatever comes in its place", () => {
    // A new file over the whiteout counted again: the other names said 0 links, and what was written to them was lost.
    const upper = fresh();
    let fs = mount(links, upper);
    for (const [gone, left] of [
      ["a", 2],
      ["b", 1],
    ] as const) {
      fs.unlink(gone);
      fs.write(gone, "new");
      fs.unlink(gone);
      fs.write("other", "x");
      fs.link("other", gone);
      expect([gone, fs.stat("c").nlink]).toEqual([gone, left]);
      fs.unlink(gone);
    }
    fs.write("c", "DATA", O_WRONLY_APPEND, 3);
    expect(fs.read("c")).toBe("oldDATA");
    fs = remount(fs, links, upper);
    expect([fs.read("c"), fs.stat("c").nlink]).toEqual(["oldDATA", 1]);
  });

  it("refuses another image over an upper where only a symlink was copied up", () => {
    // The rows of one image were taken for those of another: names showed other objects.
    const upper = fresh();
    const fs = mount(imageOf(directory({ a: file("AAA"), l: symlink("a") })), upper);
    fs.setattr("l", { valid: FATTR_MTIME, mtimeSec: 1 });
    fs.close();
    expect(() => mount(imageOf(directory({ a: file("b"), important: file("precious") })), upper)).toThrow(
      "another image",
    );
  });

  it("deletes at once where whiteouts are xattrs", () => {
    // On kernel overlayfs device 0:0 cannot be made. The mark of the directory was only seen by the next mount.
    const folder = fresh("on-overlayfs");
    for (const name of ["lower", "upper", "work", "merged"])
      mkdirSync(join(folder, name), { recursive: true });
    const merged = join(folder, "merged");
    const options = `lowerdir=${folder}/lower,upperdir=${folder}/upper,workdir=${folder}/work`;
    execFileSync("mount", ["-t", "overlay", "overlay", "-o", options, merged]);
    let fs: Mounted | undefined;
    try {
      const image = imageOf(
        directory({ etc: directory({ one: file("1"), two: file("2"), deep: directory({}) }) }),
      );
      fs = mount(image, join(merged, "u"));
      fs.unlink("etc/one");
      expect(fs.exists("etc/one")).toBe(false);
      expect(fs.names("etc")).toEqual(["deep", "two"]);
      fs.write("etc/one", "again");
      fs.unlink("etc/one");
      fs.unlink("etc/two");
      fs.rmdir("etc/deep");
      fs.rmdir("etc");
      expect(code(() => fs?.nodeid("etc"))).toBe("ENOENT");
      fs.mkdir("etc");
      expect(fs.names("etc")).toEqual([]);
      fs = remount(fs, image, join(merged, "u"));
      expect(fs.names("")).toEqual(["etc"]);
      expect(fs.names("etc")).toEqual([]);
    } finally {
      fs?.close();
      execFileSync("umount", [merged]);
    }
  });
});
