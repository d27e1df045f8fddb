import { execFileSync } from "node:child_process";
import { lstatSync, readdirSync, readFileSync, statSync } from "node:fs";
import { join } from "node:path";
import { describe, expect, it } from "vitest";
import { FATTR_GID, FATTR_MODE, FATTR_MTIME, FATTR_SIZE, FATTR_UID } from "../../src/fuse/operations.js";
import { code, fresh, mount, remount } from "./harness.js";
import { plainImage } from "./trees.js";

const image = plainImage();
const O_RDWR = 2;

describe("copy-up", () => {
  it("keeps nodeid, st_ino and everything else when a file is opened for writing", () => {
    const upper = fresh();
    const fs = mount(image, upper);
    const before = fs.stat("etc/motd");
    const nodeid = fs.nodeid("etc/motd");
    const fh = fs.openId(nodeid, O_RDWR);
    const { ctimeSec: _a, ctimeNsec: _b, blocks: _c, ...rest } = before;
    expect(fs.stat("etc/motd")).toMatchObject(rest);
    expect(fs.nodeid("etc/motd")).toBe(nodeid);
    fs.writeId(nodeid, fh, "h");
    fs.releaseId(nodeid, fh);
    expect(readFileSync(join(upper, "etc/motd"), "latin1")).toBe("hello\n");
    const etc = statSync(join(upper, "etc"), { bigint: true });
    expect([etc.uid, etc.gid, etc.mode & 0o7777n, etc.mtimeNs]).toEqual([
      1n,
      2n,
      0o750n,
      1_100_000_000_000_000_007n,
    ]);
  });

  it("keeps identity across a remount", () => {
    const upper = fresh();
    const first = mount(image, upper);
    const inos = ["etc/motd", "link", "pipe", "etc/deep/er/file", "etc/deep", "bin/a"].map((path) => {
      if (path !== "etc/deep") first.setattr(path, { valid: FATTR_UID, uid: 9 });
      return [path, first.stat(path).ino] as const;
    });
    first.close();
    const second = mount(image, upper);
    for (const [path, ino] of inos) {
      expect([path, second.stat(path).ino, second.nodeid(path)]).toEqual([path, ino, ino]);
      if (path !== "etc/deep") expect(second.stat(path).uid).toBe(9);
    }
    const listed = second.list(1).find(({ name }) => name === "link");
    expect(listed?.ino).toBe(second.stat("link").ino);
  });

  it("keeps identity through rename, and across a remount after it", () => {
    const upper = fresh();
    const first = mount(image, upper);
    const { ino } = first.stat("etc/motd");
    first.mkdir("new");
    first.rename("etc/motd", "new/name");
    expect(first.stat("new/name").ino).toBe(ino);
    first.close();
    const second = mount(image, upper);
    expect(second.stat("new/name").ino).toBe(ino);
    expect(second.list(second.nodeid("new")).find(({ name }) => name === "name")?.ino).toBe(ino);
    expect(second.exists("etc/motd")).toBe(false);
  });

  it("lets a descriptor from before see what is written after", () => {
    const fs = mount(image, fresh());
    const nodeid = fs.nodeid("etc/passwd");
    const early = fs.openId(nodeid, 0);
    const writer = fs.openId(nodeid, O_RDWR);
    fs.writeId(nodeid, writer, "ROOT");
    expect(fs.readId(nodeid, early).toString()).toBe("ROOT\n");
    fs.releaseId(nodeid, writer);
    fs.writeId(nodeid, fs.openId(nodeid, 1), "more", 4);
    expect(fs.readId(nodeid, early).toString()).toBe("ROOTmore");
    fs.releaseId(nodeid, early);
  });

  it("carries modes, owners, times, xattrs and capabilities", () => {
    const upper = fresh();
    const fs = mount(image, upper);
    fs.setattr("bin/su", { valid: FATTR_MTIME, mtimeSec: -1, mtimeNsec: 5 });
    expect(fs.stat("bin/su")).toMatchObject({ mode: 0o104755, mtimeSec: -1, mtimeNsec: 5 });
    expect(fs.listxattr("bin/su")).toEqual(["security.capability", "user.note"]);
    expect(fs.getxattr("bin/su", "user.note")).toBe("kept");
    expect(fs.getxattr("bin/su", "security.capability").length).toBe(20);
  });

  it("copies a file without its holes", () => {
    const upper = fresh();
    const fs = mount(image, upper, { metacopy: false });
    fs.releaseId(fs.nodeid("sparse"), fs.openId(fs.nodeid("sparse"), 2));
    const stat = lstatSync(join(upper, "sparse"));
    expect(stat.size).toBe((1 << 20) + 8);
    expect(stat.blocks * 512).toBeLessThan(64 * 1024);
    expect(readFileSync(join(upper, "sparse")).subarray(-4).toString()).toBe("tail");
  });

  it("copies no more than a truncation leaves", () => {
    const fs = mount(image, fresh());
    expect(fs.setattr("etc/passwd", { valid: FATTR_SIZE, size: 2 }).size).toBe(2);
    expect(fs.read("etc/passwd")).toBe("ro");
    expect(fs.setattr("etc/motd", { valid: FATTR_SIZE, size: 8 }).size).toBe(8);
    expect(fs.read("etc/motd")).toBe("hello\n\0\0");
    fs.write("etc/deep/er/file", "new");
    expect(fs.read("etc/deep/er/file")).toBe("new");
  });

  it("changes nothing in the image's directories that shows", () => {
    const upper = fresh();
    const fs = mount(image, upper);
    const before = fs.stat("etc/deep");
    fs.setattr("etc/deep/er/file", { valid: FATTR_MODE, mode: 0o600 });
    const after = fs.stat("etc/deep");
    expect(after).toMatchObject({
      mtimeSec: 5,
      mtimeNsec: 6,
      ino: before.ino,
      nlink: before.nlink,
      mode: before.mode,
    });
    expect(readdirSync(join(upper, "etc"))).toEqual(["deep"]);
    expect(fs.names("etc")).toEqual(["deep", "motd", "passwd"]);
  });

  it("copies symlinks and pipes when they change", () => {
    const fs = mount(image, fresh());
    expect(fs.setattr("link", { valid: FATTR_GID, gid: 44 })).toMatchObject({ uid: 3, gid: 44, nlink: 1 });
    expect(fs.readlink("link")).toBe("etc/motd");
    expect(fs.setattr("pipe", { valid: FATTR_MODE, mode: 0o600 })).toMatchObject({ mode: 0o10600, nlink: 1 });
  });

  it("leaves a file alone whose open for reading only looks at it", () => {
    const upper = fresh();
    const fs = mount(image, upper);
    fs.read("etc/motd");
    expect(code(() => fs.removexattr("etc/motd", "user.none"))).toBe("ENODATA");
    expect(readdirSync(upper)).toEqual([]);
  });

  it("writes to an unlinked file of the image that is still open", () => {
    const upper = fresh();
    const fs = mount(image, upper);
    const nodeid = fs.nodeid("etc/motd");
    const fh = fs.openId(nodeid, 0);
    fs.unlink("etc/motd");
    expect(fs.getattr(nodeid).nlink).toBe(0);
    expect(fs.readId(nodeid, fh).toString()).toBe("hello\n");
    fs.writeId(nodeid, fh, "J");
    expect(fs.readId(nodeid, fh).toString()).toBe("Jello\n");
    expect(fs.getattr(nodeid).nlink).toBe(0);
    expect(fs.exists("etc/motd")).toBe(false);
    expect(execFileSync("find", [`${upper}.work`, "-type", "f", "-name", "[0-9]*"]).toString()).toBe("");
  });

  it("clears setuid when the writer may not keep it", () => {
    const fs = mount(image, fresh());
    const nodeid = fs.nodeid("bin/su");
    const fh = fs.openId(nodeid, O_RDWR);
    fs.writeId(nodeid, fh, "x", 0, true);
    expect(fs.getattr(nodeid).mode & 0o7777).toBe(0o755);
  });
});

describe("hard links of the image", () => {
  for (const name of ["bin/a", "bin/b", "lib/c"]) {
    it(`share what is written by ${name}, at once and after a remount`, () => {
      const upper = fresh();
      const first = mount(image, upper);
      const { ino } = first.stat("bin/a");
      first.write(name, "changed");
      for (const anew of [false, true]) {
        const at = anew ? remount(first, image, upper) : first;
        for (const other of ["bin/a", "bin/b", "lib/c"]) {
          expect(at.read(other)).toBe("changed");
          expect(at.stat(other)).toMatchObject({ nlink: 3, ino });
        }
      }
    });
  }

  it("are counted down by unlink without being copied", () => {
    const upper = fresh();
    const first = mount(image, upper);
    first.unlink("bin/b");
    expect(first.stat("lib/c").nlink).toBe(2);
    expect(readdirSync(upper)).toEqual(["bin"]);
    first.close();
    const second = mount(image, upper);
    expect(second.stat("lib/c").nlink).toBe(2);
    second.setattr("lib/c", { valid: FATTR_MODE, mode: 0o700 });
    expect(second.stat("bin/a")).toMatchObject({ nlink: 2, mode: 0o100700 });
    second.link("bin/a", "d");
    expect(second.stat("lib/c").nlink).toBe(3);
    second.unlink("bin/a");
    second.unlink("lib/c");
    expect(second.stat("d").nlink).toBe(1);
    second.close();
    const third = mount(image, upper);
    expect(third.stat("d")).toMatchObject({ nlink: 1, mode: 0o100700 });
    third.unlink("d");
    expect(readdirSync(`${upper}.work/index`)).toEqual([]);
  });

  it("are found through the index where they could not be linked", () => {
    const upper = fresh();
    const first = mount(image, upper);
    first.write("bin/a", "changed");
    first.close();
    // As after a crash between the commit to the index and the links.
    execFileSync("rm", ["-r", join(upper, "bin"), join(upper, "lib")]);
    const second = mount(image, upper);
    for (const name of ["bin/a", "bin/b", "lib/c"]) {
      expect(second.read(name)).toBe("changed");
      expect(second.stat(name).nlink).toBe(3);
    }
    second.write("lib/c", "again");
    expect(second.read("bin/b")).toBe("again");
    second.rename("bin/a", "moved");
    expect(second.stat("lib/c").nlink).toBe(3);
    expect(second.read("moved")).toBe("again");
    second.unlink("bin/b");
    second.unlink("lib/c");
    expect(second.stat("moved").nlink).toBe(1);
  });
});
