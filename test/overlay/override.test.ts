// Owners, modes and kinds kept beside objects, as a privileged mount meets them: uppers that an ordinary user's mount,
// podman or somebody malicious has written. What an ordinary user's mount writes is in test/e2e/foreign-owners.test.ts.
import { lstatSync, mkdirSync, openSync, readdirSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { describe, expect, it } from "vitest";
import { createLogger, type Logger } from "../../src/base/log.js";
import { FATTR_GID, FATTR_MODE, FATTR_UID } from "../../src/fuse/operations.js";
import { formatOverride, parseOverride } from "../../src/overlay/override.js";
import {
  makeDevice,
  S_IFBLK,
  S_IFCHR,
  S_IFDIR,
  S_IFIFO,
  S_IFLNK,
  S_IFMT,
  S_IFREG,
  S_IFSOCK,
} from "../../src/sys/stat.js";
import { readXattrAt, writeXattrAt } from "../../src/sys/xattr.js";
import { code, fresh, type Mounted, mount, remount } from "./harness.js";
import { plainImage } from "./trees.js";

const slash = openSync("/", "r");
const override = "user.containers.override_stat";

function setXattr(path: string, value: string, name = override): void {
  expect(writeXattrAt(slash, Buffer.from(path.slice(1)), Buffer.from(name), Buffer.from(value))).toBe(0);
}

/** The value, or the number of the errno. */
function xattrOf(path: string, name = override): string {
  return String(readXattrAt(slash, Buffer.from(path.slice(1)), Buffer.from(name)));
}

/** An upper whose root says that there are overrides. */
function upperWith(files: Record<string, [content: string, override: string]>): string {
  const upper = fresh();
  mkdirSync(upper);
  setXattr(upper, "0:0:0755:dir");
  for (const [name, [content, value]] of Object.entries(files)) {
    writeFileSync(join(upper, name), content, { mode: 0o600 });
    setXattr(join(upper, name), value);
  }
  return upper;
}

const ownerAndMode = (fs: Mounted, path: string): string => {
  const { uid, gid, mode } = fs.stat(path);
  return `${uid}:${gid} ${mode.toString(8)}`;
};

const file = { mode: S_IFREG | 0o600, size: 0 };
const directory = { mode: S_IFDIR | 0o700, size: 4096 };

describe("the value of an override", () => {
  it.each([
    ["1000:1011:0644:file", S_IFREG | 0o644, 0],
    ["0:0:4755:file", S_IFREG | 0o4755, 0],
    ["1003:1014:0666:pipe", S_IFIFO | 0o666, 0],
    ["1004:1015:0700:socket", S_IFSOCK | 0o700, 0],
    ["1005:1016:0600:block-8-0", S_IFBLK | 0o600, makeDevice(8, 0)],
    ["4294967294:0:0000:char-4095-1048575", S_IFCHR, makeDevice(4095, 1_048_575)],
    ["0:0:0000:char-0-0", S_IFCHR, 0],
  ])("%s is read, and written the same", (text, mode, rdev) => {
    const parsed = parseOverride(Buffer.from(text), file);
    expect(parsed).toMatchObject({ mode, rdev });
    expect(formatOverride(parsed as never)).toBe(text);
  });

  it("may leave the type out, as fuse-overlayfs does", () => {
    expect(parseOverride(Buffer.from("7:8:755"), directory)).toEqual({
      uid: 7,
      gid: 8,
      mode: S_IFDIR | 0o755,
      rdev: 0,
    });
    expect(parseOverride(Buffer.from("7:8:100644\0"), file)?.mode).toBe(S_IFREG | 0o644);
  });

  it.each([
    "",
    ":::",
    "1:2",
    "1:2:9:file",
    "-1:0:644:file",
    "4294967295:0:644:file",
    "0:99999999999:644:file",
    "0:0:644:door",
    "0:0:644:dir",
    "0:0:644:char",
    "0:0:644:char-1",
    "0:0:644:char-4096-0",
    "0:0:644:block-1-1048576",
    "0:0:644:file-1-1",
    "0:0:644:symlink",
    "0:0:644:file:more",
    `${"0".repeat(60_000)}:0:644:file`,
    "\xff:0:644:file",
  ])("that makes no sense is none: %#", (text) => {
    expect(parseOverride(Buffer.from(text, "latin1"), file)).toBeUndefined();
  });

  it("does not make something else of a directory", () => {
    expect(parseOverride(Buffer.from("0:0:644:file"), directory)).toBeUndefined();
    expect(parseOverride(Buffer.from("0:0:777:symlink"), { ...file, size: 4096 })).toBeUndefined();
    expect(parseOverride(Buffer.from("0:0:777:symlink"), { ...file, size: 4095 })?.mode).toBe(
      S_IFLNK | 0o777,
    );
  });
});

describe("an upper with overrides", () => {
  const upper = (): string =>
    upperWith({
      secret: ["of 1000\n", "1000:1001:0000:file"],
      su: ["set\n", "0:0:6755:file"],
      link: ["where/to", "3:4:0777:symlink"],
      pipe: ["", "5:6:0622:pipe"],
      null: ["", "0:0:0666:char-1-3"],
    });

  it("shows what they say: stat, d_type, targets; and the same after a remount", () => {
    const path = upper();
    const image = plainImage();
    let fs = mount(image, path);
    for (const again of [false, true]) {
      if (again) fs = remount(fs, image, path);
      expect(ownerAndMode(fs, "")).toBe("0:0 40755");
      expect(ownerAndMode(fs, "secret")).toBe("1000:1001 100000");
      expect(fs.read("secret")).toBe("of 1000\n");
      expect(ownerAndMode(fs, "su")).toBe("0:0 106755");
      expect(ownerAndMode(fs, "link")).toBe("3:4 120777");
      expect(fs.stat("link").size).toBe(8);
      expect(fs.readlink("link")).toBe("where/to");
      expect(ownerAndMode(fs, "pipe")).toBe("5:6 10622");
      expect(fs.stat("null")).toMatchObject({ mode: S_IFCHR | 0o666, rdev: 0x103, size: 0, blocks: 0 });
      expect(fs.listxattr("secret")).toEqual([]);
      for (const plus of [false, true]) {
        const fresh = remount(fs, image, path);
        fs = fresh;
        const types = new Map(fs.list(1, { plus }).map(({ name, type }) => [name, type]));
        expect(["secret", "su", "link", "pipe", "null"].map((name) => types.get(name))).toEqual([
          8, 8, 10, 1, 2,
        ]);
      }
    }
  });

  it("keeps changes there, and never makes the file itself setuid", () => {
    const path = upper();
    const image = plainImage();
    let fs = mount(image, path);
    fs.setattr("secret", { valid: FATTR_MODE, mode: 0o4711 });
    fs.setattr("link", { valid: FATTR_UID | FATTR_GID, uid: 9, gid: 10 });
    fs.setattr("pipe", { valid: FATTR_UID, uid: 11 });
    fs.setattr("null", { valid: FATTR_MODE, mode: 0o600 });
    expect(xattrOf(join(path, "secret"))).toBe("1000:1001:4711:file");
    expect(lstatSync(join(path, "secret")).mode & 0o7777).toBe(0o711);
    expect(xattrOf(join(path, "link"))).toBe("9:10:0777:symlink");
    expect(xattrOf(join(path, "pipe"))).toBe("11:6:0622:pipe");
    fs = remount(fs, image, path);
    expect(ownerAndMode(fs, "secret")).toBe("1000:1001 104711");
    expect(fs.stat("null").mode & 0o7777).toBe(0o600);
    // Writing and giving away take setuid off.
    const id = fs.nodeid("secret");
    const fh = fs.openId(id, 1);
    fs.writeId(id, fh, "new", 0, true);
    fs.releaseId(id, fh);
    expect(ownerAndMode(fs, "secret")).toBe("1000:1001 100711");
    fs.setattr("su", { valid: FATTR_UID, uid: 5 });
    expect(ownerAndMode(fs, "su")).toBe("5:0 100755");
    fs.link("link", "etc/other");
    fs.rename("pipe", "etc/pipe");
    fs.unlink("null");
    fs = remount(fs, image, path);
    expect(fs.readlink("etc/other")).toBe("where/to");
    expect(fs.stat("link").nlink).toBe(2);
    expect(ownerAndMode(fs, "etc/pipe")).toBe("11:6 10622");
    expect(fs.exists("null")).toBe(false);
  });

  it("hands a setgid directory's group on, and an access ACL goes with the mode", () => {
    const path = upper();
    mkdirSync(join(path, "shared"), { mode: 0o700 });
    setXattr(join(path, "shared"), "1:50:2770:dir");
    const image = plainImage();
    let fs = mount(image, path);
    expect(fs.create("shared/new").attr.gid).toBe(50);
    expect(fs.mkdir("shared/sub").attr.mode & 0o7777).toBe(0o2755);
    const acl = "system.posix_acl_access";
    const value = aclText(7, 4, 6, 0);
    fs.setxattr("secret", acl, value);
    expect(ownerAndMode(fs, "secret")).toBe("1000:1001 100760");
    expect(fs.getxattr("secret", acl)).toBe(value);
    expect(fs.listxattr("secret")).toEqual([acl]);
    fs.setattr("secret", { valid: FATTR_MODE, mode: 0o640 });
    expect(fs.getxattr("secret", acl)).toBe(aclText(6, 4, 4, 0));
    fs = remount(fs, image, path);
    expect(fs.getxattr("secret", acl)).toBe(aclText(6, 4, 4, 0));
    expect(ownerAndMode(fs, "secret")).toBe("1000:1001 100640");
    fs.removexattr("secret", acl);
    expect(fs.listxattr("secret")).toEqual([]);
    expect(code(() => fs.getxattr("secret", acl))).toBe("ENODATA");
  });

  it("that make no sense is ignored, with a line for each", () => {
    const path = upperWith({
      odd: ["text\n", "0:0:0644:door"],
      empty: ["", "0:0:0777:symlink"],
      nul: ["a\0b", "0:0:0777:symlink"],
    });
    mkdirSync(join(path, "dir"));
    setXattr(join(path, "dir"), "0:0:0644:file");
    const lines: string[] = [];
    const fs = mount(plainImage(), path, { log: recordingLogger(lines) });
    expect(fs.stat("odd").mode).toBe(S_IFREG | 0o600);
    expect(fs.read("odd")).toBe("text\n");
    expect(fs.stat("empty").mode & S_IFMT).toBe(S_IFREG);
    expect(fs.stat("dir").mode & S_IFMT).toBe(S_IFDIR);
    expect(fs.readlink("nul")).toBe("a");
    expect(lines).toHaveLength(3);
    expect(lines[0]).toContain("make no sense");
  });

  // Overrides on objects of an upper whose root has none are what some program wrote there: no mark of anybody's.
  it("that does not say so has none", () => {
    const path = fresh();
    mkdirSync(path);
    writeFileSync(join(path, "file"), "", { mode: 0o600 });
    setXattr(join(path, "file"), "5:6:0644:pipe");
    const fs = mount(plainImage(), path);
    expect(ownerAndMode(fs, "file")).toBe("0:0 100600");
  });
});

/** An ACL of owner, one user 1000, group none, a mask and others. */
function aclText(owner: number, user: number, mask: number, other: number): string {
  const entries = [
    [0x01, owner, 0xffff_ffff],
    [0x02, user, 1000],
    [0x04, 0, 0xffff_ffff],
    [0x10, mask, 0xffff_ffff],
    [0x20, other, 0xffff_ffff],
  ] as const;
  const value = Buffer.alloc(4 + 8 * entries.length);
  value.writeUInt32LE(2);
  entries.forEach(([tag, permissions, id], i) => {
    value.writeUInt16LE(tag, 4 + 8 * i);
    value.writeUInt16LE(permissions, 6 + 8 * i);
    value.writeUInt32LE(id, 8 + 8 * i);
  });
  return value.toString("latin1");
}

function recordingLogger(lines: string[]): Logger {
  const log = createLogger({ level: "error", format: "text", fd: 2 });
  return { ...log, warn: (message: string) => lines.push(message) };
}

describe("device 0:0", () => {
  it("is a device to programs, and no whiteout to the overlay", () => {
    const image = plainImage();
    const upper = fresh();
    let fs = mount(image, upper);
    fs.uid = 7;
    fs.gid = 8;
    fs.umask = 0;
    expect(fs.mknod("zero", S_IFCHR | 0o640, 0).attr).toMatchObject({
      mode: S_IFCHR | 0o640,
      rdev: 0,
      uid: 7,
      gid: 8,
    });
    fs.unlink("etc/motd");
    fs.mknod("etc/motd", S_IFCHR | 0o600, 0);
    expect(code(() => fs.mknod("zero", S_IFCHR, 0))).toBe("EEXIST");
    expect(code(() => fs.mknod("etc/passwd", S_IFCHR, 0))).toBe("EEXIST");
    for (const again of [false, true]) {
      if (again) fs = remount(fs, image, upper);
      for (const plus of [false, true]) {
        const { type } = fs.list(1, { plus }).find(({ name }) => name === "zero") ?? { type: -1 };
        expect(type).toBe(2);
      }
      expect(fs.names("etc")).toEqual(["deep", "motd", "passwd"]);
      expect(fs.stat("etc/motd")).toMatchObject({ mode: S_IFCHR | 0o600, rdev: 0, nlink: 1, size: 0 });
      expect(ownerAndMode(fs, "zero")).toBe("7:8 20640");
    }
    expect(xattrOf(join(upper, "zero"))).toBe("7:8:0640:char-0-0");
    // Files that are not empty need no look: the upper holds devices 0:0 and no other overrides.
    expect(xattrOf(upper)).toBe("-61");
    fs.link("zero", "etc/zero");
    fs.rename("etc/motd", "etc/moved");
    expect(fs.exists("etc/motd")).toBe(false);
    fs.unlink("etc/moved");
    fs.unlink("zero");
    fs = remount(fs, image, upper);
    expect(fs.names("etc")).toEqual(["deep", "passwd", "zero"]);
    expect(fs.exists("zero")).toBe(false);
    expect(fs.stat("etc/zero").nlink).toBe(1);
  });
});

/** user::rwx user:1234:rw- group::r-x mask::rwx other::r-x */
const withUser = Buffer.from(
  "0200000001000700ffffffff02000600d204000004000500ffffffff10000700ffffffff20000500ffffffff",
  "hex",
);

// The root is given an override for being the root of such an upper; then its mode is that override's.
it("the root of an upper that comes to hold overrides keeps what is changed of it later", () => {
  const image = plainImage();
  const upper = fresh();
  let fs = mount(image, upper);
  fs.setxattr("etc", "system.posix_acl_default", withUser);
  fs.mknod("etc/zero", S_IFCHR | 0o660, 0);
  expect(xattrOf(upper)).toMatch(/:dir$/);
  fs.setattr("", { valid: FATTR_MODE | FATTR_GID, mode: 0o2751, gid: 9 });
  const { uid, gid, mode } = fs.stat("");
  expect([gid, mode]).toEqual([9, S_IFDIR | 0o2751]);
  fs = remount(fs, image, upper);
  expect(fs.stat("")).toMatchObject({ uid, gid, mode });
});

describe("rename that leaves a whiteout", () => {
  const WHITEOUT = 4;
  const isZero = (fs: Mounted, path: string): void =>
    expect(fs.stat(path)).toMatchObject({ mode: S_IFCHR, rdev: 0, uid: 7, gid: 8, nlink: 1 });

  it.each([
    ["a file of the image", "etc/passwd", "etc/there"],
    ["a file over another", "etc/passwd", "etc/motd"],
    ["a file made here", "made", "etc/there"],
    ["a file over what was removed", "made", "gone"],
    ["a directory of the image", "etc/deep", "there"],
    ["a directory over what was removed", "etc/deep", "gone"],
    ["a symlink", "link", "etc/there"],
    ["one of several names", "bin/a", "etc/there"],
  ])("moves %s, and a device 0:0 shows in its place", (_what, from, to) => {
    const image = plainImage();
    const upper = fresh();
    let fs = mount(image, upper);
    fs.write("made", "made\n");
    fs.write("gone", "x");
    fs.unlink("gone");
    const { ino, mode } = fs.stat(from);
    fs.uid = 7;
    fs.gid = 8;
    fs.rename(from, to, WHITEOUT);
    for (const again of [false, true]) {
      if (again) fs = remount(fs, image, upper);
      isZero(fs, from);
      expect(fs.stat(to)).toMatchObject({ ino, mode });
      const [parent, name] = from.includes("/") ? from.split("/") : ["", from];
      expect(fs.names(parent as string)).toContain(name);
    }
    expect(readdirSync(`${upper}.work/tmp`)).toEqual([]);
    fs.unlink(from);
    fs = remount(fs, image, upper);
    expect(fs.exists(from)).toBe(false);
    expect(fs.exists(to)).toBe(true);
  });

  it("refuses to exchange as well, and to replace with NOREPLACE", () => {
    const fs = mount(plainImage(), fresh());
    expect(code(() => fs.rename("etc/motd", "etc/passwd", WHITEOUT | 2))).toBe("EINVAL");
    expect(code(() => fs.rename("etc/motd", "etc/passwd", WHITEOUT | 1))).toBe("EEXIST");
    expect(fs.stat("etc/motd").mode & S_IFMT).toBe(S_IFREG);
  });

  it("cut off by a crash before the first step shows the old name, after it the device", () => {
    const image = plainImage();
    const upper = fresh();
    let fs = mount(image, upper);
    fs.setattr("etc/passwd", { valid: FATTR_MODE, mode: 0o600 });
    fs.close();
    setXattr(join(upper, "etc"), "7:8:passwd", "user.imgfs.leaves");
    fs = mount(image, upper);
    expect(fs.read("etc/passwd")).toBe("root\n");
    expect(xattrOf(join(upper, "etc"), "user.imgfs.leaves")).toBe("-61");
    fs.rename("etc/passwd", "moved");
    fs.rename("link", "etc/link");
    fs.close();
    setXattr(join(upper, "etc"), "7:8:passwd", "user.imgfs.leaves");
    setXattr(upper, "7:8:link", "user.imgfs.leaves");
    fs = mount(image, upper);
    isZero(fs, "link");
    isZero(fs, "etc/passwd");
    expect(fs.read("moved")).toBe("root\n");
    fs.close();
    expect(xattrOf(upper, "user.imgfs.leaves")).toBe("-61");
    expect(xattrOf(join(upper, "etc"), "user.imgfs.leaves")).toBe("-61");
  });
});
