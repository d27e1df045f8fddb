import { execFileSync } from "node:child_process";
import { mkdirSync, mkdtempSync, readdirSync, rmSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { describe, expect, it } from "vitest";
import { nameFromText } from "../../src/base/bytes.js";
import { FATTR_MODE } from "../../src/fuse/operations.js";
import { directory, file } from "../imgfs/support.js";
import { base, code, fresh, imageOf, mount, remount } from "./harness.js";
import { plainImage } from "./trees.js";

const image = plainImage();
const message = (call: () => unknown): string => {
  try {
    call();
    return "mounted";
  } catch (cause) {
    return (cause as Error).message;
  }
};

describe("the upper directory", () => {
  it("is made when missing, with UPPER.work beside it", () => {
    const upper = fresh();
    mount(image, upper);
    expect([readdirSync(upper), readdirSync(`${upper}.work`).sort()]).toEqual([
      [],
      ["format", "index", "moved", "tmp"],
    ]);
  });

  it("begins with the root of the image, and keeps a root that was made by others", () => {
    const root = imageOf(
      directory({}, { mode: 0o711, uid: 3, gid: 4, mtimeSec: 1_600_000_000, mtimeNsec: 5 }),
    );
    const upper = fresh();
    const fs = mount(root, upper);
    const expected = {
      mode: 0o40711,
      uid: 3,
      gid: 4,
      mtimeSec: 1_600_000_000,
      mtimeNsec: 5,
      ino: 1,
      nlink: 2,
    };
    expect(fs.stat("")).toMatchObject(expected);
    fs.setattr("", { valid: FATTR_MODE, mode: 0o700 });
    expect(remount(fs, root, upper).stat("").mode).toBe(0o40700);
    const foreign = fresh();
    mkdirSync(join(foreign, "x"), { recursive: true });
    expect(mount(root, foreign).stat("").uid).toBe(0);
  });

  it("belongs to one mount, and is free again after it", () => {
    const upper = fresh();
    const first = mount(image, upper);
    expect(message(() => mount(image, upper))).toBe(`upper directory ${upper} is in use by another mount`);
    const other = fresh();
    expect(message(() => mount(image, other, { work: `${upper}.work` }))).toBe(
      `work directory ${upper}.work is in use by another mount`,
    );
    expect(mount(image, fresh()).exists("etc")).toBe(true);
    first.close();
    expect(message(() => mount(image, upper))).toBe("mounted");
  });

  it("has its place on one filesystem with the work directory, neither inside the other", () => {
    const upper = fresh();
    const inside = join(upper, "work");
    expect(message(() => mount(image, upper, { work: inside }))).toBe(
      `work directory ${inside} is inside the upper directory ${upper}`,
    );
    const work = fresh("work");
    expect(message(() => mount(image, join(work, "up"), { work }))).toContain("is inside the work directory");
    expect(message(() => mount(image, work, { work }))).toContain("are the same");
    const elsewhere = mkdtempSync("/dev/shm/imgfs-test-");
    expect(message(() => mount(image, fresh(), { work: elsewhere }))).toContain(
      "are on different filesystems",
    );
    rmSync(elsewhere, { recursive: true });
    const blocked = fresh("file");
    writeFileSync(blocked, "");
    expect(message(() => mount(image, blocked))).toBe(`cannot open upper directory ${blocked}: ENOTDIR`);
  });

  it("is refused to another image once it holds changes to files of one", () => {
    const upper = fresh();
    const other = imageOf(directory({ different: file("x") }));
    const fs = mount(image, upper);
    fs.write("new", "x");
    fs.close();
    const second = mount(other, upper);
    expect(second.read("new")).toBe("x");
    second.close();
    const third = mount(image, upper);
    third.write("etc/motd", "changed");
    third.close();
    expect(message(() => mount(other, upper))).toMatch(
      /^upper directory .* holds changes to another image: sha256:/,
    );
    expect(message(() => mount(image, upper))).toBe("mounted");
  });

  it("is refused when its layout is newer", () => {
    const upper = fresh();
    mount(image, upper).close();
    execFileSync("setfattr", ["-n", "user.imgfs.upper", "-v", "imgfs upper 9:x", upper]);
    expect(message(() => mount(image, upper))).toContain(
      "has a layout this version does not know: imgfs upper 9",
    );
  });

  it("goes on without its work directory, links to other names excepted", () => {
    const upper = fresh();
    const fs = mount(image, upper);
    fs.write("etc/motd", "changed");
    const { ino } = fs.stat("etc/motd");
    fs.close();
    rmSync(`${upper}.work`, { recursive: true });
    const again = mount(image, upper);
    expect([again.read("etc/motd"), again.stat("etc/motd").ino]).toEqual(["changed", ino]);
  });

  it("drops what another upper left in the work directory, and what a crash left in its tmp", () => {
    const upper = fresh();
    const work = `${upper}.work`;
    const fs = mount(image, upper);
    fs.write("bin/a", "changed");
    fs.close();
    mkdirSync(join(work, "tmp/left/over"), { recursive: true });
    writeFileSync(join(work, "tmp/left/over/x"), "");
    const other = mount(image, fresh(), { work });
    expect(readdirSync(join(work, "tmp"))).toEqual([]);
    expect(readdirSync(join(work, "index"))).toEqual([]);
    expect(other.read("bin/a")).toBe("shared");
  });
});

describe("whiteouts and opaque marks of others", () => {
  it("are read in the xattr form", () => {
    const upper = fresh();
    mkdirSync(join(upper, "etc"), { recursive: true });
    writeFileSync(join(upper, "etc/motd"), "");
    mkdirSync(join(upper, "full"));
    writeFileSync(join(upper, "full/mine"), "x");
    execFileSync("setfattr", ["-n", "user.overlay.whiteout", "-v", "y", join(upper, "etc/motd")]);
    execFileSync("setfattr", ["-n", "user.overlay.opaque", "-v", "x", join(upper, "etc")]);
    execFileSync("setfattr", ["-n", "user.overlay.opaque", "-v", "y", join(upper, "full")]);
    const fs = mount(image, upper);
    expect(fs.names("etc")).toEqual(["deep", "passwd"]);
    expect(fs.exists("etc/motd")).toBe(false);
    expect(fs.names("full")).toEqual(["mine"]);
    fs.write("etc/motd", "again");
    expect(remount(fs, image, upper).read("etc/motd")).toBe("again");
  });
});

describe("xattrs", () => {
  it("are set, listed and removed, those of overlays refused", () => {
    const upper = fresh();
    const fs = mount(image, upper);
    fs.mkdir("full/sub");
    for (const path of ["etc/motd", "full", "full/sub"]) {
      fs.setxattr(path, "user.mine", "value");
      fs.setxattr(path, "trusted.mine", "secret");
      expect(fs.listxattr(path)).toEqual(["trusted.mine", "user.mine"]);
      expect(fs.getxattr(path, "user.mine")).toBe("value");
      expect(code(() => fs.setxattr(path, "user.mine", "x", 1))).toBe("EEXIST");
      expect(code(() => fs.setxattr(path, "user.other", "x", 2))).toBe("ENODATA");
      fs.removexattr(path, "user.mine");
      expect(code(() => fs.removexattr(path, "user.mine"))).toBe("ENODATA");
    }
    expect(fs.listxattr("bin/su")).toEqual(["security.capability", "user.note"]);
    fs.removexattr("bin/su", "user.note");
    expect(fs.listxattr("bin/su")).toEqual(["security.capability"]);
    expect(fs.listxattr("")).toEqual([]);
  });

  it("hand default ACLs down, over a whiteout too, and the umask gives way to them", () => {
    const acl = Buffer.from(
      "0200000001000700ffffffff02000600e803000004000500ffffffff10000700ffffffff20000000ffffffff",
      "hex",
    );
    const fs = mount(
      imageOf(
        directory({
          d: directory(
            { old: file("x") },
            { xattrs: [{ name: nameFromText("system.posix_acl_default"), value: acl }] },
          ),
        }),
      ),
      fresh(),
    );
    fs.umask = 0o077;
    fs.unlink("d/old");
    for (const name of ["old", "new"]) {
      expect(fs.create(`d/${name}`, 0o666).attr.mode & 0o777).toBe(0o660);
      expect(fs.listxattr(`d/${name}`)).toEqual(["system.posix_acl_access"]);
    }
    expect(fs.mkdir("d/sub", 0o777).attr.mode & 0o777).toBe(0o770);
    expect(fs.listxattr("d/sub")).toEqual(["system.posix_acl_access", "system.posix_acl_default"]);
    expect(fs.mkdir("d/sub/sub", 0o777).attr.mode & 0o777).toBe(0o770);
  });
});

describe("statfs", () => {
  it("is the upper filesystem's", () => {
    const { bfree, namelen, frsize } = mount(image, fresh()).statfs();
    expect(bfree * frsize).toBeGreaterThan(0);
    expect(namelen).toBe(255);
    expect(base).toBeTruthy();
  });
});
