// Moving directories of the image: at once whatever lies below, the same after a remount, readable by the kernel.
import { execFileSync } from "node:child_process";
import { closeSync, openSync, readdirSync } from "node:fs";
import { describe, expect, it } from "vitest";
import { readXattrFd, writeXattrFd } from "../../src/sys/xattr.js";
import { code, fresh, type Mounted, mount, remount } from "./harness.js";
import { plainImage } from "./trees.js";

const image = plainImage();
const redirect = Buffer.from("user.overlay.redirect");

function withFolder<T>(path: string, use: (fd: number) => T): T {
  const fd = openSync(path, "r");
  try {
    return use(fd);
  } finally {
    closeSync(fd);
  }
}
const redirectOf = (path: string): string => String(withFolder(path, (fd) => readXattrFd(fd, redirect)));
const setRedirect = (path: string, target: string): number =>
  withFolder(path, (fd) => writeXattrFd(fd, redirect, Buffer.from(target)));

const EXCHANGE = 2;

/** Runs the checks on the mount as it is and after a remount. */
function both(fs: Mounted, upper: string, check: (fs: Mounted) => void): void {
  check(fs);
  check(remount(fs, image, upper));
}

/** d_ino of a name, as a plain readdir of its directory tells. */
const listedIno = (fs: Mounted, directory: string, name: string): number | undefined =>
  fs.list(fs.nodeid(directory)).find((entry) => entry.name === name)?.ino;

describe("a directory of the image that is moved", () => {
  const places: Record<string, (fs: Mounted) => string> = {
    "a new name": () => "new",
    "another directory of the image": () => "bin/etc",
    "a directory of the upper": (fs) => {
      fs.mkdir("made");
      return "made/etc";
    },
    "an empty directory of the image": () => "empty",
    "an empty directory of the upper": (fs) => {
      fs.mkdir("mine");
      return "mine";
    },
    "a directory of the image that was emptied": (fs) => {
      for (const name of ["one", "two", "three"]) fs.unlink(`full/${name}`);
      return "full";
    },
    "a name of the image that was removed": (fs) => {
      fs.unlink("link");
      return "link";
    },
    "a directory of the image that was removed": (fs) => {
      fs.rmdir("empty");
      return "empty";
    },
  };
  const states: Record<string, (fs: Mounted) => void> = {
    "nobody has touched": () => {},
    "was changed inside": (fs) => {
      fs.write("etc/mine", "mine\n");
      fs.unlink("etc/passwd");
      fs.write("etc/deep/er/file", "changed\n", 0o2);
    },
  };
  for (const [state, prepare] of Object.entries(states)) {
    for (const [what, place] of Object.entries(places)) {
      it(`which ${state}, to ${what}, keeps everything`, () => {
        const upper = fresh();
        const fs = mount(image, upper);
        prepare(fs);
        const to = place(fs);
        const names = fs.names("etc");
        const before = fs.stat("etc");
        const inside = fs.stat("etc/deep/er/file");
        const text = fs.read("etc/deep/er/file");
        fs.rename("etc", to);
        both(fs, upper, (now) => {
          expect(now.exists("etc")).toBe(false);
          expect(now.names("")).not.toContain("etc");
          expect(now.names(to)).toEqual(names);
          expect(now.names(to, true)).toEqual(names);
          const { ino, mode, uid, gid, nlink, mtimeSec, mtimeNsec } = before;
          expect(now.stat(to)).toMatchObject({ ino, mode, uid, gid, nlink, mtimeSec, mtimeNsec });
          expect(now.stat(`${to}/deep/er/file`).ino).toBe(inside.ino);
          expect(now.read(`${to}/deep/er/file`)).toBe(text);
          const [parent, name] = to.includes("/") ? (to.split("/") as [string, string]) : ["", to];
          expect(listedIno(now, parent, name)).toBe(before.ino);
          expect(listedIno(now, to, "..")).toBe(now.stat(parent).ino);
        });
        expect(readdirSync(`${upper}.work/tmp`)).toEqual([]);
      });
    }
  }

  it("copies nothing", () => {
    const upper = fresh();
    const fs = mount(image, upper);
    fs.rename("etc", "moved");
    expect(readdirSync(`${upper}/moved`)).toEqual([]);
    expect(redirectOf(`${upper}/moved`)).toBe("/etc");
  });

  it("is changed at its new place", () => {
    const upper = fresh();
    const fs = mount(image, upper);
    fs.rename("etc", "moved");
    fs.write("moved/motd", "new", 0o2);
    fs.write("moved/deep/er/more", "more");
    fs.unlink("moved/passwd");
    fs.rename("moved/deep/er", "moved/er");
    both(fs, upper, (now) => {
      expect(now.names("moved")).toEqual(["deep", "er", "motd"]);
      expect(now.names("moved/er")).toEqual(["file", "more"]);
      expect(now.names("moved/deep")).toEqual([]);
      expect([now.read("moved/motd"), now.read("moved/er/file")]).toEqual(["newlo\n", "deep\n"]);
    });
  });

  it("moves again, back, and under a new parent of its old name", () => {
    const upper = fresh();
    const fs = mount(image, upper);
    fs.rename("etc", "one");
    fs.rename("one", "two");
    fs.rename("two", "etc");
    expect(fs.names("etc")).toEqual(["deep", "motd", "passwd"]);
    fs.rename("etc", "three");
    fs.mkdir("etc");
    expect(fs.names("etc")).toEqual([]);
    fs.rename("three", "etc/etc");
    both(fs, upper, (now) => {
      expect(now.names("etc")).toEqual(["etc"]);
      expect(now.read("etc/etc/motd")).toBe("hello\n");
      expect(now.stat("etc/etc").ino).toBeLessThan(2 ** 32);
    });
  });

  it("stays reachable by descriptors and nodeids from before", () => {
    const fs = mount(image, fresh());
    const directory = fs.nodeid("etc/deep");
    const file = fs.nodeid("etc/deep/er/file");
    fs.rename("etc", "moved");
    expect(fs.list(directory).map(({ name }) => name)).toContain("er");
    expect(fs.readId(file, 0).toString()).toBe("deep\n");
    const fh = fs.openId(file, 2);
    fs.releaseId(file, fh);
    expect(fs.names("moved/deep")).toEqual(["er"]);
  });

  it("can be emptied and removed, and nothing of it shows again", () => {
    const upper = fresh();
    const fs = mount(image, upper);
    fs.rename("full", "moved");
    expect(code(() => fs.rmdir("moved"))).toBe("ENOTEMPTY");
    for (const name of ["one", "two", "three"]) fs.unlink(`moved/${name}`);
    fs.rmdir("moved");
    fs.mkdir("moved");
    both(fs, upper, (now) => {
      expect(now.names("moved")).toEqual([]);
      expect(now.exists("full")).toBe(false);
    });
    expect(readdirSync(`${upper}.work/moved`)).toEqual([]);
  });

  it("emptied, gives way to a directory that is moved over it", () => {
    const upper = fresh();
    const fs = mount(image, upper);
    fs.rename("full", "moved");
    for (const name of ["one", "two", "three"]) fs.unlink(`moved/${name}`);
    fs.mkdir("other");
    fs.write("other/x", "x");
    fs.rename("other", "moved");
    both(fs, upper, (now) => expect(now.names("moved")).toEqual(["x"]));
  });

  it("changes places with a file and with another of the image", () => {
    const upper = fresh();
    const fs = mount(image, upper);
    fs.rename("etc", "full", EXCHANGE);
    fs.rename("bin", "link", EXCHANGE);
    both(fs, upper, (now) => {
      expect(now.names("etc")).toEqual(["one", "three", "two"]);
      expect(now.names("full")).toEqual(["deep", "motd", "passwd"]);
      expect(now.readlink("bin")).toBe("etc/motd");
      expect(now.names("link")).toEqual(["a", "b", "su"]);
    });
  });

  it("counts and shares hard links that also have names in it, also found from the other side first", () => {
    const upper = fresh();
    const fs = mount(image, upper);
    fs.rename("bin", "moved");
    let now = remount(fs, image, upper);
    expect(now.stat("lib/c").nlink).toBe(3);
    now.write("lib/c", "CHANGED", 0o2);
    expect(now.read("moved/a")).toBe("CHANGED");
    now = remount(now, image, upper);
    now.unlink("lib/c");
    now = remount(now, image, upper);
    expect(now.stat("moved/a").nlink).toBe(2);
    expect(now.stat("moved/a").ino).toBe(now.stat("moved/b").ino);
  });
});

describe("redirects of others", () => {
  it("are followed by path and by name, and a second claim on a directory goes without", () => {
    const upper = fresh();
    const fs = mount(image, upper);
    fs.mkdir("byname");
    fs.mkdir("bypath");
    fs.mkdir("again");
    fs.mkdir("nowhere");
    fs.close();
    for (const [name, target] of [
      ["byname", "etc"],
      ["bypath", "/etc/deep"],
      ["again", "/etc/deep"],
      ["nowhere", "/etc/none/there"],
    ] as const) {
      expect(setRedirect(`${upper}/${name}`, target)).toBe(0);
    }
    const now = mount(image, upper);
    expect(now.names("byname")).toEqual(["deep", "motd", "passwd"]);
    expect(now.names("bypath")).toEqual(["er"]);
    expect(now.names("again")).toEqual([]);
    expect(now.names("nowhere")).toEqual([]);
  });
});

describe("moved directories", () => {
  // Whoever came from the image's side found a hard link in one gone, and counted it no more.
  it("are known under a new workdir, and where another overlay has moved them", () => {
    const redirects: Array<(upper: string) => void> = [
      () => {},
      // As the kernel writes it for a rename in the same directory, and to another; its mount has no mark of ours.
      (upper) => execFileSync("sh", ["-ec", forget, "sh", upper, "bin"]),
      (upper) => execFileSync("sh", ["-ec", forget, "sh", upper, "/bin"]),
    ];
    for (const [i, prepare] of redirects.entries()) {
      const upper = fresh();
      let fs = mount(image, upper);
      fs.rename("bin", "moved");
      fs.close();
      prepare(upper);
      const work = fresh("work");
      fs = mount(image, upper, { work });
      expect([i, fs.stat("lib/c").nlink]).toEqual([i, 3]);
      expect(fs.stat("moved/a").ino).toBe(fs.stat("lib/c").ino);
      fs.mkdir("new");
      fs.rename("moved", "new/bin");
      fs.write("lib/c", "CHANGED", 0o2);
      fs.close();
      fs = mount(image, upper, { work });
      expect(fs.read("new/bin/b")).toBe("CHANGED");
      expect(fs.stat("lib/c").nlink).toBe(3);
      fs.close();
    }
  });
});

/** Takes the marks of ours off an upper directory, and has `moved` be redirected to $2. */
const forget = `
  setfattr -x user.imgfs.upper "$1"; setfattr -x user.imgfs.tree "$1"; setfattr -x user.imgfs.redirect "$1/moved"
  for name in trusted user; do setfattr -n $name.overlay.redirect -v "$2" "$1/moved"; done`;
