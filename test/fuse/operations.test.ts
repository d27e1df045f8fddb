// Every operation through a real mount, against the memory filesystem.
import { constants, openSync, writeFileSync } from "node:fs";
import * as fs from "node:fs/promises";
import { join } from "node:path";
import { describe, expect, it } from "vitest";
import { Errno } from "../../src/base/errno.js";
import * as files from "../../src/sys/files.js";
import { allocatePages } from "../../src/sys/memory.js";
import { emptyStat, statAt } from "../../src/sys/stat.js";
import * as xattr from "../../src/sys/xattr.js";
import { type Bed, sh, until, withBed } from "./harness.js";

const { AT_FDCWD } = files;
const bytes = (text: string): Buffer => Buffer.from(text);

async function mounted(bed: Bed, settings = {}): Promise<(name: string) => string> {
  const { path } = await bed.mount(settings);
  return (name) => join(path, name);
}

describe.concurrent("operations through a mount", () => {
  it(
    "files: create, write, append, read, truncate, with data larger than one request",
    withBed(async (bed) => {
      const at = await mounted(bed);
      const data = Buffer.alloc(3_000_001, "0123456789abcdefg");
      await fs.writeFile(at("big"), data);
      expect((await fs.readFile(at("big"))).equals(data)).toBe(true);
      await fs.appendFile(at("big"), "end");
      expect((await fs.stat(at("big"))).size).toBe(3_000_004);
      await fs.truncate(at("big"), 10);
      await fs.truncate(at("big"), 12);
      expect(await fs.readFile(at("big"), "latin1")).toBe("0123456789\0\0");
      await fs.writeFile(at("big"), "x");
      expect(await fs.readFile(at("big"), "utf8")).toBe("x");
    }),
  );

  it(
    "directories: make, list thousands of names exactly once, remove",
    withBed(async (bed) => {
      for (const readdirplus of ["never", "auto", "always"] as const) {
        const { path } = await bed.mount({ count: 3000 }, { readdirplus });
        const names = await fs.readdir(path);
        expect(new Set(names).size).toBe(3000);
        expect(names.length).toBe(3000);
        expect(sh(`ls -lR ${path} | wc -l`).trim()).toBe("3002");
        await fs.mkdir(join(path, "d/e"), { recursive: true });
        await expect(fs.rmdir(join(path, "d"))).rejects.toMatchObject({ code: "ENOTEMPTY" });
        await fs.rm(join(path, "d"), { recursive: true });
        await expect(fs.stat(join(path, "d"))).rejects.toMatchObject({ code: "ENOENT" });
      }
    }),
  );

  it(
    "names: rename with its flags, links, symlinks, FIFOs, names that are not UTF-8, 255 bytes and no more",
    withBed(async (bed) => {
      const at = await mounted(bed, { files: ["a", "b"] });
      const rename = (from: string, to: string, flags: number): number =>
        files.renameAt(AT_FDCWD, bytes(at(from)), AT_FDCWD, bytes(at(to)), flags);
      expect(rename("a", "b", files.RENAME_NOREPLACE)).toBe(-Errno.EEXIST);
      expect(rename("a", "b", files.RENAME_EXCHANGE)).toBe(0);
      expect(await fs.readFile(at("a"), "utf8")).toBe("content of b\n");
      expect(rename("a", "c", 0)).toBe(0);
      await fs.link(at("c"), at("c2"));
      expect((await fs.stat(at("c"))).nlink).toBe(2);
      await fs.unlink(at("c"));
      expect(await fs.readFile(at("c2"), "utf8")).toBe("content of b\n");
      await fs.symlink("some/where", at("s"));
      expect(await fs.readlink(at("s"))).toBe("some/where");
      sh(`mkfifo ${at("fifo")} && test -p ${at("fifo")}`);
      const odd = Buffer.concat([bytes(at("")), Buffer.from([0x2f, 0xff, 0xfe, 0x80])]);
      await fs.writeFile(odd, "odd");
      expect((await fs.readdir(at(""), { encoding: "buffer" })).some((n) => n.equals(odd.subarray(-3)))).toBe(
        true,
      );
      await fs.writeFile(at("n".repeat(255)), "");
      await expect(fs.writeFile(at("n".repeat(256)), "")).rejects.toMatchObject({ code: "ENAMETOOLONG" });
    }),
  );

  it(
    "attributes: mode, owner, times to the nanosecond and before 1970",
    withBed(async (bed) => {
      const at = await mounted(bed, { files: ["a"] });
      await fs.chmod(at("a"), 0o4711);
      await fs.chown(at("a"), 4_000_000_000, 7);
      expect(files.utimesAt(AT_FDCWD, bytes(at("a")), -5, 999_999_999, 2 ** 33, 1)).toBe(0);
      const stat = emptyStat();
      expect(statAt(AT_FDCWD, bytes(at("a")), stat)).toBe(0);
      expect(stat).toMatchObject({ uid: 4_000_000_000, gid: 7, atimeSec: -5, atimeNsec: 999_999_999 });
      expect(stat).toMatchObject({ mtimeSec: 2 ** 33, mtimeNsec: 1 });
    }),
  );

  it(
    "extended attributes: set, get, list, remove, empty, 64 KiB, too small a buffer",
    withBed(async (bed) => {
      const at = await mounted(bed, { files: ["a"] });
      const { address, bytes: memory } = allocatePages(1 << 17);
      const fd = openSync(at("a"), "r");
      const key = bytes("user.key");
      memory.fill(0xab, 0, 65536);
      expect(xattr.setXattrFd(fd, key, address, 65536, 0)).toBe(0);
      expect(xattr.setXattrFd(fd, key, address, 1, xattr.XATTR_CREATE)).toBe(-Errno.EEXIST);
      memory.fill(0);
      expect(xattr.getXattrFd(fd, key, address, 0)).toBe(65536);
      expect(xattr.getXattrFd(fd, key, address, 100)).toBe(-Errno.ERANGE);
      expect(xattr.getXattrFd(fd, key, address, 65536)).toBe(65536);
      expect(memory[65535]).toBe(0xab);
      expect(xattr.setXattrFd(fd, bytes("user.empty"), address, 0, 0)).toBe(0);
      expect(xattr.getXattrFd(fd, bytes("user.empty"), address, 10)).toBe(0);
      const length = xattr.listXattrFd(fd, address, 1000);
      expect(Buffer.from(memory.slice(0, length)).toString()).toBe("user.key\0user.empty\0");
      expect(xattr.removeXattrFd(fd, key)).toBe(0);
      expect(xattr.getXattrFd(fd, key, address, 0)).toBe(-Errno.ENODATA);
      files.closeFd(fd);
    }),
  );

  it(
    "data: fsync, fallocate, SEEK_DATA and SEEK_HOLE, copy_file_range, O_TMPFILE with a later name",
    withBed(async (bed) => {
      const at = await mounted(bed, { files: ["a"] });
      const fd = openSync(at("a"), "r+");
      expect(files.fsyncFd(fd)).toBe(0);
      expect(files.fdatasyncFd(fd)).toBe(0);
      expect(files.fallocateFd(fd, 0, 0, 10_000)).toBe(0);
      expect((await fs.stat(at("a"))).size).toBe(10_000);
      expect(files.seekFd(fd, 5, files.SEEK_DATA)).toBe(5);
      expect(files.seekFd(fd, 5, files.SEEK_HOLE)).toBe(10_000);
      expect(files.seekFd(fd, 20_000, files.SEEK_DATA)).toBe(-Errno.ENXIO);
      const copy = openSync(at("copy"), "w+");
      expect(files.copyRange(fd, 0, copy, 3, 12)).toBe(12);
      expect(await fs.readFile(at("copy"), "latin1")).toBe("\0\0\0content of a");
      const unnamed = openSync(at(""), constants.O_RDWR | files.O_TMPFILE, 0o600);
      writeFileSync(unnamed, "unnamed");
      expect(
        files.linkAt(AT_FDCWD, bytes(`/proc/self/fd/${unnamed}`), AT_FDCWD, bytes(at("named")), 0x400),
      ).toBe(0);
      for (const open of [fd, copy, unnamed]) files.closeFd(open);
      expect(await fs.readFile(at("named"), "utf8")).toBe("unnamed");
    }),
  );

  it(
    "statfs passes every count",
    withBed(async (bed) => {
      const at = await mounted(bed);
      const { bsize, blocks, bfree, bavail, files: count, ffree } = await fs.statfs(at(""));
      expect({ bsize, blocks, bfree, bavail, count, ffree }).toEqual({
        bsize: 4096,
        blocks: 1000,
        bfree: 400,
        bavail: 300,
        count: 70,
        ffree: 50,
      });
    }),
  );

  it(
    "inodes the kernel drops are forgotten, and found again",
    withBed(async (bed) => {
      const { path, log, pid } = await bed.mount({ count: 500 });
      sh(`ls -l ${path} > /dev/null; echo 2 > /proc/sys/vm/drop_caches; ls -l ${path} > /dev/null`);
      process.kill(pid, "SIGUSR1");
      await until(() => log().includes("opcode"));
      expect(log()).toMatch(/FORGET +[1-9]/);
      expect(log()).not.toMatch(/error error|unexpected/);
    }),
  );
});

describe.concurrent("a filesystem that fails", () => {
  it(
    "an unknown exception is EIO with one log line, and the mount lives on",
    withBed(async (bed) => {
      const { path, log } = await bed.mount({ files: ["a"] });
      for (let i = 0; i < 3; i++) {
        await expect(fs.stat(join(path, `boom-${i}`))).rejects.toMatchObject({ code: "EIO" });
      }
      await expect(fs.stat(join(path, "bad-status"))).rejects.toMatchObject({ code: "EIO" });
      expect(await fs.readFile(join(path, "a"), "utf8")).toBe("content of a\n");
      expect(log().match(/unexpected error op="LOOKUP" .*a bug/g)?.length).toBe(3);
      expect(log()).toMatch(/no errno op="LOOKUP" status=-123456/);
    }),
  );

  it(
    "operations it leaves out are ENOSYS to the kernel, which then does without",
    withBed(async (bed) => {
      const leaveOut = ["open", "release", "flush", "opendir", "releasedir", "getxattr", "create", "tmpfile"];
      const { path } = await bed.mount({ files: ["a"], leaveOut });
      expect(await fs.readFile(join(path, "a"), "utf8")).toBe("content of a\n");
      expect(await fs.readdir(path)).toEqual(["a"]);
      await fs.writeFile(join(path, "b"), "made by mknod");
      expect(await fs.readFile(join(path, "b"), "utf8")).toBe("made by mknod");
    }),
  );
});
