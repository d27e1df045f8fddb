import { lstatSync, readdirSync } from "node:fs";
import { join } from "node:path";
import { describe, expect, it } from "vitest";
import { FATTR_MODE } from "../../src/fuse/operations.js";
import { code, fresh, mount, remount } from "./harness.js";
import { plainImage } from "./trees.js";

const image = plainImage();

describe("creation", () => {
  it("gives owner, mode and a stable number", () => {
    const upper = fresh();
    const fs = mount(image, upper);
    fs.uid = 1000;
    fs.gid = 1001;
    fs.umask = 0o027;
    const made = fs.create("etc/new", 0o666);
    expect(made.attr).toMatchObject({ mode: 0o100640, uid: 1000, gid: 1001, nlink: 1, size: 0 });
    fs.writeId(made.nodeid, made.fh, "data");
    fs.releaseId(made.nodeid, made.fh);
    expect(fs.mkdir("dir", 0o777).attr).toMatchObject({ mode: 0o40750, uid: 1000, gid: 1001, nlink: 2 });
    expect(fs.symlink("target", "sym").attr).toMatchObject({ mode: 0o120777, uid: 1000, size: 6 });
    expect(fs.mknod("fifo", 0o10666).attr.mode).toBe(0o10640);
    expect(fs.mknod("blk", 0o60666, 0x800).attr).toMatchObject({ mode: 0o60640, rdev: 0x800 });
    expect(fs.readlink("sym")).toBe("target");
    const inos = ["etc/new", "dir", "sym", "fifo", "blk"].map((path) => fs.stat(path).ino);
    expect(new Set(inos).size).toBe(5);
    expect(Math.min(...inos)).toBeGreaterThan(2 ** 33);
    fs.close();
    const again = mount(image, upper);
    expect(["etc/new", "dir", "sym", "fifo", "blk"].map((path) => again.stat(path).ino)).toEqual(inos);
    expect(again.read("etc/new")).toBe("data");
    for (const { name, ino } of again.list(1)) {
      if (!name.startsWith(".")) expect([name, ino]).toEqual([name, again.stat(name).ino]);
    }
  });

  it("refuses what is there already, above and below", () => {
    const fs = mount(image, fresh());
    fs.mkdir("dir");
    for (const name of ["dir", "etc", "link", "pipe"]) {
      expect(code(() => fs.mkdir(name))).toBe("EEXIST");
      expect(code(() => fs.create(name))).toBe("EEXIST");
      expect(code(() => fs.symlink("x", name))).toBe("EEXIST");
      expect(code(() => fs.mknod(name, 0o10644))).toBe("EEXIST");
      expect(code(() => fs.link("etc/motd", name))).toBe("EEXIST");
    }
    expect(code(() => fs.mkdir("x".repeat(256)))).toBe("ENAMETOOLONG");
    expect(code(() => fs.mkdir("x".repeat(255)))).toBe("ok");
  });

  it("makes files over the image's hidden devices, and removing them does not bring the device back", () => {
    const upper = fresh();
    const fs = mount(image, upper);
    fs.write("dev/null", "mine");
    expect(fs.read("dev/null")).toBe("mine");
    expect(fs.names("dev")).toEqual(["null"]);
    fs.unlink("dev/null");
    fs.close();
    expect(mount(image, upper, { devices: true }).names("dev")).toEqual([]);
  });

  it("inherits the group, and the bit, of a setgid directory", () => {
    const fs = mount(image, fresh());
    fs.mkdir("shared", 0o775);
    fs.setattr("shared", { valid: FATTR_MODE | 4, mode: 0o2775, gid: 77 });
    fs.setattr("shared", { valid: FATTR_MODE, mode: 0o2775 });
    fs.uid = 5;
    fs.gid = 6;
    expect(fs.create("shared/f").attr).toMatchObject({ uid: 5, gid: 77, mode: 0o100644 });
    expect(fs.mkdir("shared/d").attr).toMatchObject({ uid: 5, gid: 77, mode: 0o42755 });
    expect(fs.mkdir("shared/d/e").attr).toMatchObject({ gid: 77, mode: 0o42755 });
  });

  it("gives names that are no text, and those that look like whiteouts, back as they were", () => {
    const upper = fresh();
    const fs = mount(image, upper);
    const odd = Buffer.from([0x66, 0xff, 0xfe, 0x0a]);
    fs.create(odd);
    fs.write(".wh.motd", "plain");
    fs.mkdir(".wh..wh..opq");
    fs.close();
    const again = mount(image, upper);
    expect(again.names("")).toContain(odd.toString("latin1"));
    expect(again.read(".wh.motd")).toBe("plain");
    expect(again.exists("etc/motd")).toBe(true);
  });
});

describe("removal", () => {
  it("hides names of the image for good", () => {
    const upper = fresh();
    const fs = mount(image, upper);
    fs.unlink("etc/motd");
    fs.write("etc/passwd", "changed");
    fs.unlink("etc/passwd");
    fs.unlink("link");
    fs.unlink("pipe");
    for (const anew of [false, true]) {
      const now = anew ? remount(fs, image, upper) : fs;
      expect(now.names("etc")).toEqual(["deep"]);
      expect(now.names("etc", true)).toEqual(["deep"]);
      for (const name of ["etc/motd", "etc/passwd", "link", "pipe"]) expect(now.exists(name)).toBe(false);
    }
    const whiteout = lstatSync(join(upper, "etc/motd"));
    expect([whiteout.isCharacterDevice(), whiteout.rdev]).toEqual([true, 0]);
  });

  it("leaves no whiteout where the image has nothing", () => {
    const upper = fresh();
    const fs = mount(image, upper);
    fs.write("new", "x");
    fs.mkdir("dir");
    fs.unlink("new");
    fs.rmdir("dir");
    expect(readdirSync(upper)).toEqual([]);
  });

  it("removes directories that show nothing, and only those", () => {
    const upper = fresh();
    const fs = mount(image, upper);
    expect(code(() => fs.rmdir("full"))).toBe("ENOTEMPTY");
    expect(code(() => fs.rmdir("etc/motd"))).toBe("ENOTDIR");
    expect(code(() => fs.unlink("full"))).toBe("EISDIR");
    expect(code(() => fs.rmdir("nothing"))).toBe("ENOENT");
    for (const name of ["one", "two", "three"]) fs.unlink(`full/${name}`);
    expect(fs.names("full")).toEqual([]);
    fs.write("full/four", "4");
    expect(code(() => fs.rmdir("full"))).toBe("ENOTEMPTY");
    fs.unlink("full/four");
    fs.rmdir("full");
    fs.rmdir("empty");
    expect([fs.exists("full"), fs.exists("empty")]).toEqual([false, false]);
    expect(readdirSync(`${upper}.work/tmp`)).toEqual([]);
    fs.close();
    expect(mount(image, upper).names("")).toEqual(["bin", "dev", "etc", "lib", "link", "pipe", "sparse"]);
  });

  it("makes a directory opaque where another was removed", () => {
    const upper = fresh();
    const fs = mount(image, upper);
    const { ino } = fs.stat("full");
    for (const name of ["one", "two", "three"]) fs.unlink(`full/${name}`);
    fs.rmdir("full");
    fs.mkdir("full");
    fs.write("full/own", "x");
    expect(fs.stat("full").ino).not.toBe(ino);
    for (const anew of [false, true]) {
      const now = anew ? remount(fs, image, upper) : fs;
      expect(now.names("full")).toEqual(["own"]);
      expect(now.exists("full/one")).toBe(false);
      expect(now.stat("full").nlink).toBe(2);
    }
  });

  it("replaces what was removed by something of another type", () => {
    const upper = fresh();
    const fs = mount(image, upper);
    fs.unlink("link");
    fs.mkdir("link");
    fs.unlink("etc/motd");
    fs.symlink("x", "etc/motd");
    fs.rmdir("empty");
    fs.write("empty", "file now");
    fs.close();
    const again = mount(image, upper);
    expect(again.names("link")).toEqual([]);
    expect(again.readlink("etc/motd")).toBe("x");
    expect(again.read("empty")).toBe("file now");
  });

  it("keeps an open file of the upper until its last close", () => {
    const upper = fresh();
    const fs = mount(image, upper);
    const { nodeid, fh } = fs.create("open");
    fs.writeId(nodeid, fh, "data");
    fs.unlink("open");
    expect(fs.getattr(nodeid).nlink).toBe(0);
    expect(fs.readId(nodeid, fh).toString()).toBe("data");
    fs.writeId(nodeid, fh, "DATA+", 0);
    expect(fs.getattr(nodeid).size).toBe(5);
    fs.releaseId(nodeid, fh);
    expect(fs.getattr(nodeid).nlink).toBe(0);
    fs.forget(nodeid, 2);
    expect(code(() => fs.getattr(nodeid))).not.toBe("ok");
  });

  it("reaches an object by another name, or by none, when the known one goes", () => {
    const fs = mount(image, fresh());
    fs.write("x", "data");
    const nodeid = fs.nodeid("x");
    fs.link("x", "y");
    fs.unlink("x");
    expect(fs.getattr(nodeid).nlink).toBe(1);
    fs.setattr(nodeid, { valid: FATTR_MODE, mode: 0o600 });
    expect(fs.stat("y").mode).toBe(0o100600);
    expect(fs.nodeid("y")).toBe(nodeid);
    fs.unlink("y");
    expect(fs.getattr(nodeid).nlink).toBe(0);
  });

  it("answers about a removed directory that is still known", () => {
    const fs = mount(image, fresh());
    for (const name of ["empty", "made"]) {
      if (name === "made") fs.mkdir(name);
      const nodeid = fs.nodeid(name);
      fs.rmdir(name);
      expect(fs.getattr(nodeid).nlink).toBe(0);
      expect(fs.list(nodeid).map((entry) => entry.name)).toEqual([".", ".."]);
      expect(fs.lookup(nodeid, "x").nodeid).toBe(0);
    }
  });
});

describe("directory link counts", () => {
  it("count subdirectories of the merged view", () => {
    const upper = fresh();
    const fs = mount(image, upper);
    expect(fs.stat("").nlink).toBe(8);
    fs.mkdir("a");
    fs.mkdir("etc/b");
    expect([fs.stat("").nlink, fs.stat("etc").nlink]).toEqual([9, 4]);
    fs.rmdir("empty");
    fs.rename("a", "etc/a");
    expect([fs.stat("").nlink, fs.stat("etc").nlink]).toEqual([7, 5]);
    fs.close();
    const again = mount(image, upper);
    expect([again.stat("").nlink, again.stat("etc").nlink]).toEqual([7, 5]);
  });
});
