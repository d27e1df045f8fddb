import { describe, expect, it } from "vitest";
import { nameFromText } from "../../src/base/bytes.js";
import { InodeType } from "../../src/imgfs/tree.js";
import { device, directory, file, symlink } from "../imgfs/support.js";
import { code, imageOf, mount } from "./harness.js";

const shared = file("shared", { mode: 0o755 });
const image = imageOf(
  directory({
    etc: directory({
      motd: file("hello\n", { uid: 7, gid: 8, mtimeSec: -5, mtimeNsec: 123_456_789 }),
      empty: file(""),
    }),
    bin: directory({ a: shared, b: shared }),
    dev: directory({
      null: device(InodeType.char, 0x103),
      pipe: device(InodeType.fifo, 0),
      sda: device(InodeType.block, 0x800),
    }),
    link: symlink("etc/motd", { mode: 0o644 }),
    sparse: file(["head", 1 << 20, "tail"]),
    attrs: file("x", {
      xattrs: [
        { name: nameFromText("user.a"), value: Buffer.from([0, 255]) },
        { name: nameFromText("user.overlay.redirect"), value: Buffer.from("/x") },
        { name: nameFromText("user.empty"), value: Buffer.alloc(0) },
      ],
    }),
  }),
);

describe("a read-only mount", () => {
  it("answers names, with negative entries the kernel may keep", () => {
    const fs = mount(image);
    const entry = fs.lookup(1, "nothing");
    expect([entry.nodeid, entry.entryTimeout]).toEqual([0, Infinity]);
    const etc = fs.lookup(1, "etc");
    expect([etc.attrTimeout, etc.entryTimeout]).toEqual([Infinity, Infinity]);
    expect(etc.attr.ino).toBe(etc.nodeid);
    expect(code(() => fs.lookup(1, Buffer.alloc(256, "x")))).toBe("ENAMETOOLONG");
    expect(fs.lookup(1, Buffer.alloc(255, "x")).nodeid).toBe(0);
  });

  it("tells attributes as the image has them", () => {
    const fs = mount(image);
    const motd = fs.stat("etc/motd");
    expect(motd).toMatchObject({
      uid: 7,
      gid: 8,
      size: 6,
      nlink: 1,
      mtimeSec: -5,
      mtimeNsec: 123_456_789,
      mode: 0o100644,
    });
    expect(fs.stat("bin/a")).toMatchObject({ nlink: 2, mode: 0o100755 });
    expect(fs.stat("bin/a").ino).toBe(fs.stat("bin/b").ino);
    expect(fs.stat("").nlink).toBe(5);
    // In blocks of a filesystem, holes left out: cp(1) and tar(1) look for holes only where a file takes less than its size.
    const blocks = ["etc/motd", "etc/empty", "sparse", "link", "etc"].map((path) => fs.stat(path).blocks);
    expect(blocks).toEqual([8, 0, 8, 0, 8]);
    expect(fs.stat("etc").size).toBe(4096);
    expect(fs.stat("link").mode).toBe(0o120777);
  });

  it("reads files, symlinks and holes", () => {
    const fs = mount(image);
    expect(fs.read("etc/motd")).toBe("hello\n");
    expect(fs.read("etc/empty")).toBe("");
    expect(fs.readlink("link")).toBe("etc/motd");
    const id = fs.nodeid("sparse");
    expect(fs.readId(id, 0, (1 << 20) + 2, 100).toString("latin1")).toBe("\0\0tail");
    expect(fs.fs.lseek!(fs.q(id), 0, 0, 4)).toBeGreaterThan(0);
    expect(fs.readId(id, 0, 1 << 21, 100).length).toBe(0);
  });

  it("lists with offsets that go on where they left off", () => {
    const fs = mount(image);
    const all = fs.list(1);
    expect(all.map(({ name }) => name).sort()).toEqual([
      ".",
      "..",
      "attrs",
      "bin",
      "dev",
      "etc",
      "link",
      "sparse",
    ]);
    for (let batch = 1; batch < 9; batch++) expect(fs.list(1, { batch })).toEqual(all);
    expect(fs.list(1, { plus: true })).toEqual(all);
    for (const { name, ino } of all) {
      if (!name.startsWith(".")) expect(ino).toBe(fs.stat(name).ino);
    }
  });

  it("hides devices unless they are asked for, but not pipes", () => {
    const hidden = mount(image);
    expect(hidden.names("dev")).toEqual(["pipe"]);
    expect(hidden.exists("dev/null")).toBe(false);
    const shown = mount(image, undefined, { devices: true });
    expect(shown.names("dev")).toEqual(["null", "pipe", "sda"]);
    expect(shown.stat("dev/null")).toMatchObject({ mode: 0o20644, rdev: 0x103 });
  });

  it("shows xattrs, those by which overlays go among them", () => {
    const fs = mount(image);
    expect(fs.listxattr("attrs")).toEqual(["user.a", "user.empty", "user.overlay.redirect"]);
    expect(fs.getxattr("attrs", "user.a")).toBe("\0\xff");
    expect(fs.getxattr("attrs", "user.empty")).toBe("");
    expect(fs.getxattr("attrs", "user.overlay.redirect")).toBe("/x");
    expect(code(() => fs.getxattr("attrs", "user.a", 1))).toBe("ERANGE");
    expect(code(() => fs.getxattr("etc", "user.a"))).toBe("ENODATA");
  });

  it("names its process on the root, without listing it", () => {
    const fs = mount(image);
    expect(fs.getxattr("", "user.imgfs.daemon")).toMatch(new RegExp(`^${process.pid} [0-9]+$`));
    expect(fs.listxattr("")).toEqual([]);
    expect(code(() => fs.getxattr("etc", "user.imgfs.daemon"))).toBe("ENODATA");
  });

  it("refuses every change with EROFS", () => {
    const fs = mount(image);
    const changes: Array<() => unknown> = [
      () => fs.create("new"),
      () => fs.mkdir("new"),
      () => fs.mknod("new", 0o10644),
      () => fs.symlink("x", "new"),
      () => fs.link("etc/motd", "new"),
      () => fs.unlink("etc/motd"),
      () => fs.rmdir("etc"),
      () => fs.rename("etc/motd", "new"),
      () => fs.setattr("etc/motd", { valid: 1, mode: 0 }),
      () => fs.setxattr("etc/motd", "user.b", "x"),
      () => fs.removexattr("attrs", "user.a"),
      () => fs.write("etc/motd", "x"),
    ];
    for (const change of changes) expect(code(change), String(change)).toBe("EROFS");
  });

  it("reports the image's size, all of it used", () => {
    const { blocks, bfree, files, frsize, namelen } = mount(image).statfs();
    expect(blocks * frsize).toBeGreaterThan(1 << 20);
    expect([bfree, namelen]).toEqual([0, 255]);
    expect(files).toBeGreaterThan(10);
  });
});
