// Parts of files: what is allocated, where data is, and copies between files in every state.
import { describe, expect, it } from "vitest";
import { SEEK_DATA, SEEK_HOLE } from "../../src/sys/files.js";
import { check, code, fresh, type Mounted, mount } from "./harness.js";
import { plainImage } from "./trees.js";

const image = plainImage();
const KEEP_SIZE = 1;
const PUNCH_HOLE = 2;
const MIB = 1 << 20;

function opened(fs: Mounted, path: string): { id: number; fh: number } {
  const id = fs.nodeid(path);
  return { id, fh: fs.openId(id, 2) };
}

describe("ranges", () => {
  it("allocates beyond the end with and without the size, and punches holes", () => {
    const fs = mount(image, fresh());
    const { id, fh } = opened(fs, "etc/passwd");
    const allocate = (mode: number, offset: number, length: number): number =>
      check(fs.fs.fallocate!(fs.q(id), fh, mode, offset, length));
    allocate(KEEP_SIZE, 0, 8192);
    expect(fs.getattr(id).size).toBe(5);
    allocate(0, 0, 8192);
    expect(fs.getattr(id).size).toBe(8192);
    allocate(PUNCH_HOLE | KEEP_SIZE, 0, 4);
    expect(fs.readId(id, fh).subarray(0, 6).toString("latin1")).toBe("\0\0\0\0\n\0");
    expect(code(() => allocate(0, 0, 0))).toBe("EINVAL");
    fs.releaseId(id, fh);
  });

  it("finds data and holes in the image and in its copy alike", () => {
    const fs = mount(image, fresh());
    const id = fs.nodeid("sparse");
    const seek = (offset: number, whence: number): number => fs.fs.lseek!(fs.q(id), 0, offset, whence);
    const size = fs.getattr(id).size;
    for (const state of ["below", "copied"]) {
      if (state === "copied") fs.releaseId(id, fs.openId(id, 2));
      expect([state, seek(0, SEEK_DATA)]).toEqual([state, 0]);
      expect(seek(0, SEEK_HOLE)).toBeLessThanOrEqual(4096);
      expect(seek(8192, SEEK_DATA)).toBeGreaterThan(MIB - 8192);
      expect(seek(size - 1, SEEK_HOLE)).toBe(size);
      expect(code(() => check(seek(size, SEEK_DATA)))).toBe("ENXIO");
    }
  });

  it("copies ranges from the image, from copies and within one file", () => {
    const fs = mount(image, fresh());
    const { id: to, fh } = opened(fs, "etc/motd");
    const copy = (from: string, offset: number, at: number, length: number): number => {
      const source = fs.nodeid(from);
      return check(fs.fs.copyFileRange!(fs.q(source), 0, offset, to, fh, at, length, 0));
    };
    expect(copy("etc/passwd", 1, 0, 3)).toBe(3);
    expect(fs.read("etc/motd")).toBe("ootlo\n");
    fs.write("etc/passwd", "COPY", 1);
    expect(copy("etc/passwd", 0, 2, 100)).toBe(5);
    expect(copy("etc/motd", 0, 7, 3)).toBe(3);
    expect(fs.read("etc/motd")).toBe("ooCOPY\nooC");
    expect(copy("etc/passwd", 50, 0, 10)).toBe(0);
    fs.releaseId(to, fh);
  });
});
