// Names that overlays use for themselves, used by programs in the mount: kept under names of their own, never taken for
// marks, and marks never shown.
import { spawn } from "node:child_process";
import { closeSync, openSync, readFileSync } from "node:fs";
import { join } from "node:path";
import { describe, expect, it } from "vitest";
import { type Name, nameFromText } from "../../src/base/bytes.js";
import { FATTR_MODE } from "../../src/fuse/operations.js";
import { shownName, storedName } from "../../src/overlay/xattr-names.js";
import { readXattrFd, readXattrNamesFd } from "../../src/sys/xattr.js";
import { until } from "../e2e/mounted.js";
import { directory, file } from "../imgfs/support.js";
import { code, fresh, imageOf, type Mounted, mount, remount } from "./harness.js";
import { plainImage } from "./trees.js";

const image = plainImage();
const stored = {
  "trusted.overlay.opaque": "trusted.overlay.overlay.opaque",
  "trusted.overlay.overlay.redirect": "trusted.overlay.overlay.overlay.redirect",
  "user.overlay.whiteout": "user.overlay.overlay.whiteout",
  "user.overlay.overlay.overlay.opaque": "user.overlay.overlay.overlay.overlay.opaque",
  "user.imgfs.origin": "user.imgfs.imgfs.origin",
  "user.imgfs.imgfs.upper": "user.imgfs.imgfs.imgfs.upper",
  "user.containers.override_stat": "user.containers.containers.override_stat",
  "user.fuseoverlayfs.opaque": "user.fuseoverlayfs.fuseoverlayfs.opaque",
} as const;
const names = Object.keys(stored).sort() as (keyof typeof stored)[];

/** The names that an object of an upper directory has on disk. */
function onDisk(path: string): string[] {
  const fd = openSync(path, "r");
  try {
    return String(readXattrNamesFd(fd)).split("\0").slice(0, -1).sort();
  } finally {
    closeSync(fd);
  }
}

function valueOnDisk(path: string, name: string): string {
  const fd = openSync(path, "r");
  try {
    return String(readXattrFd(fd, Buffer.from(name)));
  } finally {
    closeSync(fd);
  }
}

describe("a name of overlays' own that a program sets", () => {
  it("is kept as the kernel's overlayfs would, and shown as it was set", () => {
    const upper = fresh();
    let fs = mount(image, upper);
    fs.mkdir("made");
    const paths = ["etc/motd", "full", "made"];
    for (const path of paths) for (const name of names) fs.setxattr(path, name, `value of ${name}`);
    for (const once of [1, 2]) {
      for (const path of paths) {
        expect([once, fs.listxattr(path)]).toEqual([once, names]);
        for (const name of names) {
          expect(fs.getxattr(path, name)).toBe(`value of ${name}`);
          expect(valueOnDisk(join(upper, path), stored[name])).toBe(`value of ${name}`);
        }
      }
      fs = remount(fs, image, upper);
    }
    expect(code(() => fs.setxattr("full", "user.overlay.whiteout", "x", 1))).toBe("EEXIST");
    expect(code(() => fs.setxattr("full", "user.overlay.none", "x", 2))).toBe("ENODATA");
    for (const path of paths) for (const name of names) fs.removexattr(path, name);
    for (const path of paths) expect(fs.listxattr(path)).toEqual([]);
    expect(code(() => fs.removexattr("full", "user.overlay.whiteout"))).toBe("ENODATA");
  });

  it("means nothing to the mount: no directory becomes opaque, no file a whiteout, nothing is redirected", () => {
    const upper = fresh();
    let fs = mount(image, upper);
    for (const prefix of ["user.overlay.", "trusted.overlay."]) {
      fs.setxattr("full", `${prefix}opaque`, "y");
      fs.setxattr("etc", `${prefix}redirect`, "/full");
      fs.setxattr("bin", `${prefix}opaque`, "x");
    }
    fs.create("bin/empty");
    fs.setxattr("bin/empty", "user.overlay.whiteout", "y");
    fs.write("etc/motd", "new");
    fs.setxattr("etc/motd", "trusted.overlay.metacopy", "");
    fs.setxattr("etc/motd", "user.imgfs.origin", "1 0");
    const ino = fs.stat("etc/motd").ino;
    fs = remount(fs, image, upper);
    expect(fs.names("full")).toEqual(["one", "three", "two"]);
    expect(fs.names("etc")).toEqual(["deep", "motd", "passwd"]);
    expect(fs.names("bin")).toEqual(["a", "b", "empty", "su"]);
    expect(fs.read("etc/motd")).toBe("new");
    expect(fs.stat("etc/motd").ino).toBe(ino);
  });

  it("cannot reach the marks that the mount has made", () => {
    const upper = fresh();
    const fs = mount(image, upper);
    fs.setattr("etc/motd", { valid: FATTR_MODE, mode: 0o600 });
    fs.rename("etc", "moved");
    fs.rmdir("empty");
    fs.mkdir("empty");
    const marks = ["moved/motd", "moved", "empty", "."].flatMap((path) =>
      onDisk(join(upper, path)).map((name) => [path, name] as const),
    );
    const ofOurs = marks.map(([, name]) => name);
    expect(ofOurs).toContain("user.imgfs.origin");
    expect(ofOurs).toContain("user.overlay.redirect");
    expect(ofOurs).toContain("user.overlay.opaque");
    for (const [path, name] of marks) {
      const shown = path === "." ? "" : path;
      const before = valueOnDisk(join(upper, path), name);
      expect(fs.listxattr(shown)).toEqual([]);
      expect(code(() => fs.getxattr(shown, name))).toBe("ENODATA");
      expect(code(() => fs.removexattr(shown, name))).toBe("ENODATA");
      fs.setxattr(shown, name, "forged");
      expect(valueOnDisk(join(upper, path), name)).toBe(before);
      fs.removexattr(shown, name);
    }
    expect(fs.names("moved")).toEqual(["deep", "motd", "passwd"]);
  });

  it("lists to the byte: its own length as programs see it, and ERANGE for one byte less", () => {
    const fs = mount(image, fresh());
    for (const name of names) fs.setxattr("full", name, "");
    const size = names.reduce((sum, name) => sum + name.length + 1, 0);
    expect(listSize(fs, "full", 0)).toEqual({ status: 0, length: size });
    expect(listSize(fs, "full", size)).toEqual({ status: 0, length: size });
    expect(listSize(fs, "full", size - 1).status).toBe(-34);
  });

  it("that is too long once it is escaped is EOPNOTSUPP, as the kernel's overlayfs says, and is absent", () => {
    const fs = mount(image, fresh());
    const fits = `user.overlay.${"x".repeat(255 - "user.overlay.overlay.".length)}`;
    fs.setxattr("full", fits, "kept");
    expect(fs.listxattr("full")).toEqual([fits]);
    const longer = `${fits}y`;
    expect(code(() => fs.setxattr("full", longer, ""))).toBe("EOPNOTSUPP");
    expect(code(() => fs.getxattr("full", longer))).toBe("ENODATA");
    expect(code(() => fs.removexattr("full", longer))).toBe("ENODATA");
  });

  it("is not had by the root for the name that tells the daemon", () => {
    const fs = mount(image, fresh());
    expect(code(() => fs.setxattr("", "user.imgfs.daemon", "1"))).toBe("EOPNOTSUPP");
    expect(code(() => fs.removexattr("", "user.imgfs.daemon"))).toBe("EOPNOTSUPP");
    expect(fs.getxattr("", "user.imgfs.daemon")).toMatch(new RegExp(`^${process.pid} [0-9]+$`));
    expect(fs.listxattr("")).toEqual([]);
    fs.setxattr("full", "user.imgfs.daemon", "1");
    expect(fs.listxattr("full")).toEqual(["user.imgfs.daemon"]);
  });
});

function listSize(fs: Mounted, path: string, capacity: number): { status: number; length: number } {
  const bytes = new Uint8Array(65536);
  const out = { address: 0, bytes, start: 0, capacity, length: -1 };
  const status = fs.fs.listxattr!(fs.q(fs.nodeid(path)), out);
  return { status, length: out.length };
}

describe("a name of overlays' own in the image", () => {
  const value = (name: string): { name: Name; value: Buffer } => ({
    name: nameFromText(name),
    value: Buffer.from("y"),
  });
  const marked = imageOf(
    directory({
      d: directory({ below: file("below\n") }, { xattrs: names.map(value) }),
      f: file("data\n", { xattrs: names.map(value) }),
      long: file("", { xattrs: [value(`user.overlay.${"x".repeat(242)}`), value("user.kept")] }),
    }),
  );

  it("is content: shown, and still there after copy-up and a remount", () => {
    const upper = fresh();
    let fs = mount(marked);
    for (const path of ["d", "f"]) expect(fs.listxattr(path)).toEqual(names);
    fs.close();
    fs = mount(marked, upper);
    fs.setattr("d", { valid: FATTR_MODE, mode: 0o700 });
    fs.setattr("f", { valid: FATTR_MODE, mode: 0o700 });
    for (const once of [1, 2]) {
      for (const path of ["d", "f"]) {
        expect([once, fs.listxattr(path)]).toEqual([once, names]);
        for (const name of names) {
          expect(fs.getxattr(path, name)).toBe("y");
          expect(onDisk(join(upper, path))).toContain(stored[name]);
        }
      }
      expect(fs.names("d")).toEqual(["below"]);
      expect(fs.read("f")).toBe("data\n");
      fs = remount(fs, marked, upper);
    }
  });

  it("that the upper has no room for is left out of a copy, which is made all the same", () => {
    const fs = mount(marked, fresh());
    expect(fs.listxattr("long")).toHaveLength(2);
    fs.setattr("long", { valid: FATTR_MODE, mode: 0o700 });
    expect(fs.listxattr("long")).toEqual(["user.kept"]);
  });
});

describe("trusted names", () => {
  it("are listed to nobody who may not use them", async () => {
    const fs = mount(image, fresh());
    fs.setxattr("full", "trusted.mine", "x");
    fs.setxattr("full", "user.mine", "x");
    expect(fs.listxattr("full")).toEqual(["trusted.mine", "user.mine"]);
    const { pid } = spawn("setpriv", ["--bounding-set", "-sys_admin", "sleep", "60"], { stdio: "ignore" });
    await until("setpriv has become sleep", () => readFileSync(`/proc/${pid}/comm`, "utf8") === "sleep\n");
    try {
      fs.pid = pid as number;
      expect(fs.listxattr("full")).toEqual(["user.mine"]);
    } finally {
      process.kill(pid as number);
    }
  });
});

describe("the form on disk", () => {
  it("is found from the form shown, and back, for every name", () => {
    for (const name of [
      ...names,
      "user.overlay",
      "user.overlayx",
      "trusted.overlay.",
      "security.capability",
    ]) {
      const kept = storedName(name as Name);
      expect(kept === undefined ? undefined : shownName(kept)).toBe(name);
    }
    for (const mark of [
      "user.overlay.opaque",
      "trusted.overlay.overlay",
      "user.imgfs.upper",
      "user.containers.x",
    ]) {
      expect(shownName(mark as Name)).toBeUndefined();
    }
  });
});
