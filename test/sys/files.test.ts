import { mkdirSync, mkdtempSync, readFileSync, rmSync, symlinkSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { afterAll, beforeAll, describe, expect, it } from "vitest";
import { Errno } from "../../src/base/errno.js";
import * as files from "../../src/sys/files.js";
import { allocatePages } from "../../src/sys/memory.js";
import * as stats from "../../src/sys/stat.js";
import * as xattr from "../../src/sys/xattr.js";

const latin = Buffer.from([0x63, 0xe9]);
const bytes = (text: string): Buffer => Buffer.from(text);
let folder: string;
let dirfd: number;

beforeAll(() => {
  folder = mkdtempSync(join(tmpdir(), "imgfs-sys-"));
  dirfd = files.openAt(files.AT_FDCWD, bytes(folder), files.O_RDONLY | files.O_DIRECTORY);
});

afterAll(() => {
  files.closeFd(dirfd);
  rmSync(folder, { recursive: true });
});

describe("files by descriptor and name", () => {
  it("take names that are not UTF-8", () => {
    expect(files.mkdirAt(dirfd, latin, 0o700)).toBe(0);
    const seen: string[] = [];
    expect(
      files.readDirectory(dirfd, (b, s, e) => seen.push(Buffer.from(b.subarray(s, e)).toString("latin1"))),
    ).toBe(0);
    expect(seen).toEqual(["c\xe9"]);
    expect(files.unlinkAt(dirfd, latin, files.AT_REMOVEDIR)).toBe(0);
  });

  it("answer a negative errno, and never take a NUL for an end", () => {
    expect(files.openAt(dirfd, bytes("missing"), files.O_RDONLY)).toBe(-Errno.ENOENT);
    expect(files.openAt(dirfd, bytes("a\0b"), files.O_RDONLY)).toBe(-Errno.EINVAL);
    expect(files.openAt(dirfd, Buffer.alloc(5000, 0x61), files.O_RDONLY)).toBe(-Errno.ENAMETOOLONG);
    expect(files.openAt(dirfd, Buffer.alloc(256, 0x61), files.O_RDONLY)).toBe(-Errno.ENAMETOOLONG);
  });

  it("keep nanosecond times before 1970 and after 2106", () => {
    writeFileSync(join(folder, "t"), "");
    expect(files.utimesAt(dirfd, bytes("t"), -5, 7, 2 ** 32 + 9, 123_456_789)).toBe(0);
    const stat = stats.emptyStat();
    expect(stats.statAt(dirfd, bytes("t"), stat)).toBe(0);
    expect([stat.atimeSec, stat.atimeNsec, stat.mtimeSec, stat.mtimeNsec]).toEqual([
      -5,
      7,
      2 ** 32 + 9,
      123_456_789,
    ]);
  });

  it("copy ranges and find holes", () => {
    writeFileSync(join(folder, "from"), "0123456789");
    const from = files.openAt(dirfd, bytes("from"), files.O_RDONLY);
    const to = files.openAt(dirfd, bytes("to"), files.O_RDWR | files.O_CREAT, 0o600);
    expect(files.copyRange(from, 2, to, 65536, 5)).toBe(5);
    expect(readFileSync(join(folder, "to")).subarray(65536).toString()).toBe("23456");
    expect(files.seekFd(to, 0, files.SEEK_DATA)).toBe(65536);
    files.closeFd(from);
    files.closeFd(to);
  });

  it("read and write native memory", () => {
    const memory = allocatePages(4096);
    memory.bytes.set(bytes("native"), 10);
    const fd = files.openAt(dirfd, bytes("n"), files.O_RDWR | files.O_CREAT, 0o600);
    expect(files.pwrite(fd, memory.address + 10, 6, 3)).toBe(6);
    expect(files.pread(fd, memory.address + 100, 50, 0)).toBe(9);
    expect(Buffer.from(memory.bytes.subarray(100, 109)).toString()).toBe("\0\0\0native");
    files.closeFd(fd);
  });
});

describe("device numbers", () => {
  it("round-trip through the kernel's 32-bit encoding", () => {
    for (const [major, minor] of [
      [1, 3],
      [7, 99],
      [300, 70000],
      [4095, 0xfffff],
      [0, 0],
    ] as const) {
      const device = stats.makeDevice(major, minor);
      expect([stats.deviceMajor(device), stats.deviceMinor(device)]).toEqual([major, minor]);
    }
  });
});

describe("extended attributes", () => {
  it("keep binary and empty values, on a symlink's own inode too", () => {
    const memory = allocatePages(4096);
    mkdirSync(join(folder, "d"));
    symlinkSync("nowhere", join(folder, "d", "l"));
    const inner = files.openAt(dirfd, bytes("d"), files.O_RDONLY | files.O_DIRECTORY);
    memory.bytes.set([0, 0xff, 0, 0x41]);
    expect(xattr.setXattrFd(inner, bytes("user.bin"), memory.address, 4, 0)).toBe(0);
    expect(xattr.setXattrFd(inner, bytes("user.empty"), memory.address, 0, xattr.XATTR_CREATE)).toBe(0);
    expect(xattr.getXattrFd(inner, bytes("user.bin"), memory.address + 100, 100)).toBe(4);
    expect([...memory.bytes.subarray(100, 104)]).toEqual([0, 0xff, 0, 0x41]);
    expect(xattr.getXattrFd(inner, bytes("user.empty"), memory.address, 100)).toBe(0);
    // user.* is refused on symlinks: that this is EPERM, not ENOENT, shows that the link itself was reached.
    expect(xattr.setXattrAt(inner, bytes("l"), bytes("user.x"), memory.address, 1, 0)).toBe(-Errno.EPERM);
    files.closeFd(inner);
  });
});
