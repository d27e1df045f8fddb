import { readdirSync } from "node:fs";
import { describe, expect, it } from "vitest";
import { code, fresh, type Mounted, mount, remount } from "./harness.js";
import { plainImage } from "./trees.js";

const image = plainImage();
const NOREPLACE = 1;
const EXCHANGE = 2;

function both(fs: Mounted, upper: string, check: (fs: Mounted) => void): void {
  check(fs);
  check(remount(fs, image, upper));
}

describe("rename of files", () => {
  const states: Record<string, (fs: Mounted) => void> = {
    lower: () => {},
    "copied up": (fs) => fs.write("etc/motd", "hello\n", 0o2),
  };
  for (const [state, prepare] of Object.entries(states)) {
    it(`moves one that is ${state}, and the old name stays gone`, () => {
      const upper = fresh();
      const fs = mount(image, upper);
      prepare(fs);
      const { ino } = fs.stat("etc/motd");
      fs.rename("etc/motd", "bin/motd");
      both(fs, upper, (now) => {
        expect(now.names("etc")).toEqual(["deep", "passwd"]);
        expect(now.read("bin/motd")).toBe("hello\n");
        expect(now.stat("bin/motd")).toMatchObject({ ino, uid: 7, gid: 8, mtimeSec: expect.any(Number) });
      });
    });

    it(`replaces by one that is ${state} each kind of target`, () => {
      for (const target of ["etc/passwd", "link", "pipe", "bin/a", "new", "gone"]) {
        const upper = fresh();
        const fs = mount(image, upper);
        prepare(fs);
        if (target === "new") fs.write("new", "old");
        if (target === "gone") {
          fs.write("gone", "x");
          fs.unlink("gone");
        }
        fs.rename("etc/motd", target);
        both(fs, upper, (now) => {
          expect(now.read(target)).toBe("hello\n");
          expect(now.exists("etc/motd")).toBe(false);
          if (target === "bin/a") expect(now.stat("bin/b").nlink).toBe(2);
        });
      }
    });
  }

  it("goes over a whiteout and back again", () => {
    const upper = fresh();
    const fs = mount(image, upper);
    fs.rename("etc/motd", "etc/other");
    fs.rename("etc/other", "etc/motd");
    both(fs, upper, (now) => {
      expect(now.names("etc")).toEqual(["deep", "motd", "passwd"]);
      expect(now.read("etc/motd")).toBe("hello\n");
      expect(now.stat("etc/motd").ino).toBeLessThan(2 ** 32);
    });
  });

  it("keeps a replaced open file readable", () => {
    const fs = mount(image, fresh());
    fs.write("x", "old");
    const nodeid = fs.nodeid("x");
    const fh = fs.openId(nodeid, 0);
    fs.write("y", "new");
    fs.rename("y", "x");
    expect(fs.readId(nodeid, fh).toString()).toBe("old");
    expect(fs.getattr(nodeid).nlink).toBe(0);
    expect(fs.read("x")).toBe("new");
    fs.releaseId(nodeid, fh);
  });

  it("does nothing between two names of one object", () => {
    const fs = mount(image, fresh());
    fs.rename("bin/a", "bin/b");
    expect(fs.stat("bin/a").nlink).toBe(3);
    expect(fs.exists("bin/b")).toBe(true);
  });

  it("moves one name of several and counts right", () => {
    const upper = fresh();
    const fs = mount(image, upper);
    fs.rename("bin/b", "lib/b");
    both(fs, upper, (now) => {
      for (const name of ["bin/a", "lib/b", "lib/c"]) expect(now.stat(name).nlink).toBe(3);
      expect(new Set(["bin/a", "lib/b", "lib/c"].map((name) => now.stat(name).ino)).size).toBe(1);
      expect(now.exists("bin/b")).toBe(false);
    });
  });

  it("checks types, emptiness and flags", () => {
    const fs = mount(image, fresh());
    fs.mkdir("dir");
    fs.mkdir("filled");
    fs.mkdir("filled/x");
    expect(code(() => fs.rename("etc/motd", "dir"))).toBe("EISDIR");
    expect(code(() => fs.rename("dir", "etc/motd"))).toBe("ENOTDIR");
    expect(code(() => fs.rename("dir", "filled"))).toBe("ENOTEMPTY");
    expect(code(() => fs.rename("dir", "full"))).toBe("ENOTEMPTY");
    expect(code(() => fs.rename("nothing", "x"))).toBe("ENOENT");
    expect(code(() => fs.rename("etc/motd", "link", NOREPLACE))).toBe("EEXIST");
    expect(code(() => fs.rename("etc/motd", "nothing", EXCHANGE))).toBe("ENOENT");
    expect(code(() => fs.rename("etc/motd", "x", 4 | EXCHANGE))).toBe("EINVAL");
    expect(code(() => fs.rename("etc/motd", "x".repeat(256)))).toBe("ENAMETOOLONG");
    expect(code(() => fs.rename("etc/motd", "free", NOREPLACE))).toBe("ok");
  });
});

describe("rename of directories", () => {
  it("is EXDEV for those of the image where they are not to be redirected, and changes nothing", () => {
    const upper = fresh();
    const fs = mount(image, upper, { redirects: false });
    expect(code(() => fs.rename("etc", "link", EXCHANGE))).toBe("EXDEV");
    expect(code(() => fs.rename("etc", "moved"))).toBe("EXDEV");
    fs.write("etc/new", "x");
    expect(code(() => fs.rename("etc", "moved"))).toBe("EXDEV");
    expect(fs.names("")).toContain("etc");
    expect(readdirSync(upper)).toEqual(["etc"]);
  });

  it("moves one of the upper to each kind of place", () => {
    for (const target of ["new", "empty", "emptied", "removed", "upper", "bin/gone"]) {
      const upper = fresh();
      const fs = mount(image, upper);
      fs.mkdir("dir");
      fs.write("dir/file", "x");
      const { ino } = fs.stat("dir");
      if (target === "upper") fs.mkdir("upper");
      let to = target;
      if (target === "emptied" || target === "removed") {
        for (const name of ["one", "two", "three"]) fs.unlink(`full/${name}`);
        if (target === "removed") fs.rmdir("full");
        to = "full";
      }
      if (target === "bin/gone") {
        fs.unlink("bin/su");
        to = "bin/su";
      }
      fs.rename("dir", to);
      both(fs, upper, (now) => {
        expect(now.exists("dir")).toBe(false);
        expect([target, ...now.names(to)]).toEqual([target, "file"]);
        expect(now.read(`${to}/file`)).toBe("x");
        expect(now.stat(to)).toMatchObject({ ino, nlink: 2 });
      });
      expect(readdirSync(`${upper}.work/tmp`)).toEqual([]);
    }
  });

  it("leaves a whiteout where the image has a directory of the old name", () => {
    const upper = fresh();
    const fs = mount(image, upper);
    for (const name of ["one", "two", "three"]) fs.unlink(`full/${name}`);
    fs.rmdir("full");
    fs.mkdir("full");
    fs.write("full/mine", "x");
    fs.rename("full", "other");
    both(fs, upper, (now) => {
      expect(now.exists("full")).toBe(false);
      expect(now.names("other")).toEqual(["mine"]);
    });
  });

  it("finds what is inside after the directory has moved", () => {
    const fs = mount(image, fresh());
    fs.mkdir("a");
    fs.mkdir("a/b");
    fs.write("a/b/c", "deep");
    const nodeid = fs.nodeid("a/b/c");
    fs.mkdir("z");
    fs.rename("a", "z/y");
    expect(fs.readId(nodeid, 0).toString()).toBe("deep");
    expect(fs.read("z/y/b/c")).toBe("deep");
    expect(fs.list(fs.nodeid("z/y")).find(({ name }) => name === "..")?.ino).toBe(fs.stat("z").ino);
  });
});

describe("exchange", () => {
  it("swaps files whatever they are, and directories of the upper", () => {
    const upper = fresh();
    const fs = mount(image, upper);
    fs.mkdir("dir");
    fs.write("dir/x", "x");
    fs.rename("etc/motd", "etc/passwd", EXCHANGE);
    fs.rename("dir", "link", EXCHANGE);
    both(fs, upper, (now) => {
      expect([now.read("etc/motd"), now.read("etc/passwd")]).toEqual(["root\n", "hello\n"]);
      expect(now.names("link")).toEqual(["x"]);
      expect(now.readlink("dir")).toBe("etc/motd");
      expect(now.stat("etc/motd").ino).not.toBe(now.stat("etc/passwd").ino);
    });
  });
});
