// A directory of the image moves however deep it lies and however long its names are: rename is never EXDEV.
import { execFileSync } from "node:child_process";
import { closeSync, openSync } from "node:fs";
import { join } from "node:path";
import { afterAll, describe, expect, it } from "vitest";
import type { DirectoryInode } from "../../src/imgfs/tree.js";
import { readXattrFd, writeXattrFd } from "../../src/sys/xattr.js";
import { directory, file } from "../imgfs/support.js";
import { base, code, fresh, imageOf, type Mounted, mount, remount } from "./harness.js";

const long = (first: string): string => first.padEnd(255, "x");
// Node's own rm goes by paths.
afterAll(() => execFileSync("rm", ["-rf", base]));

/** 24 directories in each other with names of 255 bytes: a path of 6,144 bytes, more than any system call takes. */
const names = Array.from({ length: 24 }, (_, i) => long(`level${i}-`));
const shared = file("shared\n");

function nest(depth: number): DirectoryInode {
  const name = names[depth];
  const inside = {
    file: file(`at ${depth}\n`),
    linked: shared,
    [long("sub")]: directory({ f: file("sub\n") }),
  };
  return directory(name === undefined ? inside : { ...inside, [name]: nest(depth + 1) });
}

const image = imageOf(directory({ deep: nest(0), opaque: directory({ below: file("b\n") }), far: shared }));
const deepest = ["deep", ...names].join("/");
const above = ["deep", ...names.slice(0, -1)].join("/");

function marks(path: string): Record<string, string | undefined> {
  const fd = openSync(path, "r");
  try {
    const read = (name: string): string | undefined => {
      const value = readXattrFd(fd, Buffer.from(name));
      return typeof value === "number" ? undefined : value.toString("latin1");
    };
    return {
      own: read("user.imgfs.redirect"),
      trusted: read("trusted.overlay.redirect"),
      user: read("user.overlay.redirect"),
    };
  } finally {
    closeSync(fd);
  }
}

function both(fs: Mounted, upper: string, check: (fs: Mounted) => void): Mounted {
  check(fs);
  const again = remount(fs, image, upper);
  check(again);
  return again;
}

const whole = ["file", "linked", long("sub")].sort();

describe("a directory of the image that lies deep", () => {
  it("moves, and is known again by a mark of our own where overlayfs's does not fit", () => {
    const upper = fresh();
    const fs = mount(image, upper);
    const before = fs.stat(deepest);
    fs.rename(deepest, "moved");
    const told = marks(join(upper, "moved"));
    expect(told).toMatchObject({ trusted: undefined, user: undefined });
    expect(told["own"]).toMatch(/^\d+ [0-9a-f]{16}$/);
    both(fs, upper, (now) => {
      expect(now.names("moved")).toEqual(whole);
      expect(now.read("moved/file")).toBe("at 24\n");
      expect(now.read(`moved/${long("sub")}/f`)).toBe("sub\n");
      expect(now.stat("moved").ino).toBe(before.ino);
      expect(now.exists(deepest)).toBe(false);
      expect(now.names(above)).toEqual(whole);
    });
  });

  it("tells other overlays its path where that fits, longer than the 256 bytes that they write", () => {
    const upper = fresh();
    const path = ["deep", ...names.slice(0, 4)].join("/");
    const fs = mount(image, upper);
    fs.rename(path, "moved");
    expect(marks(join(upper, "moved"))).toMatchObject({ trusted: `/${path}`, user: `/${path}` });
    both(fs, upper, (now) => expect(now.read("moved/file")).toBe("at 4\n"));
  });

  it("moves again, from under another that has moved, into an opaque directory and out of one", () => {
    const upper = fresh();
    let fs = mount(image, upper);
    fs.unlink("opaque/below");
    fs.rmdir("opaque");
    fs.mkdir("opaque");
    fs.rename(above, "opaque/one");
    fs = both(fs, upper, (now) => expect(now.names(`opaque/one/${names[23]}`)).toEqual(whole));
    fs.rename(`opaque/one/${names[23]}`, "opaque/two");
    fs = both(fs, upper, (now) => expect(now.names("opaque/two")).toEqual(whole));
    fs.rename("opaque/two", long("three"));
    fs.mkdir(`opaque/one/${names[23]}`);
    fs.rename("opaque/one", `${long("three")}/one`);
    fs.rename(long("three"), "opaque/three");
    fs = both(fs, upper, (now) => {
      expect(now.names("opaque/three")).toEqual([...whole, "one"].sort());
      expect(now.names(`opaque/three/one/${names[23]}`)).toEqual([]);
      expect(now.names("opaque/three/one")).toEqual([...whole, names[23]!].sort());
    });
    // Back where it was, over the whiteout that it left.
    fs.rename("opaque/three/one", above);
    both(fs, upper, (now) => {
      expect(now.names(above)).toEqual([...whole, names[23]!].sort());
      expect(now.names("opaque/three")).toEqual(whole);
    });
  });

  it("changes places with another, at every depth", () => {
    const upper = fresh();
    const fs = mount(image, upper);
    fs.rename(deepest, "opaque", 2);
    both(fs, upper, (now) => {
      expect(now.names(deepest)).toEqual(["below"]);
      expect(now.names("opaque")).toEqual(whole);
    });
  });

  it("keeps its hard links to the rest of the image, found from either side", () => {
    const upper = fresh();
    let fs = mount(image, upper);
    fs.rename(deepest, "moved");
    fs.write("moved/linked", "SHARED", 0o2);
    fs = both(fs, upper, (now) => {
      expect(now.read("far")).toBe("SHARED\n");
      expect(now.stat("far")).toMatchObject({ nlink: 26, ino: now.stat("moved/linked").ino });
    });
    fs.unlink("moved/linked");
    fs = both(fs, upper, (now) => expect(now.stat("far").nlink).toBe(25));
    fs.link("far", "moved/linked");
    both(fs, upper, (now) => expect(now.stat("moved/linked").nlink).toBe(26));
  });

  it("moves with all its files, and files move out of it, with their data", () => {
    const upper = fresh();
    const fs = mount(image, upper);
    fs.rename(`${deepest}/file`, long("file"));
    fs.rename(deepest, "moved");
    fs.rename("moved/linked", "opaque/linked");
    both(fs, upper, (now) => {
      expect(now.read(long("file"))).toBe("at 24\n");
      expect(now.read("opaque/linked")).toBe("shared\n");
      expect(now.names("moved")).toEqual([long("sub")]);
    });
  });

  it("stays where it is with --redirect-dir=off alone", () => {
    const fs = mount(image, fresh(), { redirects: false });
    expect(code(() => fs.rename(deepest, "moved"))).toBe("EXDEV");
    expect(fs.names(deepest)).toEqual(whole);
  });

  it("is not redirected by a mark that speaks of another image, or of no directory", () => {
    const upper = fresh();
    let fs = mount(image, upper);
    const file = fs.stat("far").ino;
    for (const name of ["other", "none", "file"]) fs.mkdir(name);
    fs.rename(deepest, "moved");
    fs.close();
    const own = marks(join(upper, "moved"))["own"] as string;
    const head = own.split(" ")[1] as string;
    const forge = (name: string, text: string): void => {
      const fd = openSync(join(upper, name), "r");
      expect(writeXattrFd(fd, Buffer.from("user.imgfs.redirect"), Buffer.from(text))).toBe(0);
      closeSync(fd);
    };
    forge("other", `${own.split(" ")[0]} ${head.replace(/./g, "0")}`);
    forge("none", `999999999 ${head}`);
    forge("file", `${file - 1} ${head}`);
    fs = mount(image, upper);
    for (const name of ["other", "none", "file"]) expect([name, fs.names(name)]).toEqual([name, []]);
    expect(fs.names("moved")).toEqual(whole);
  });
});
