// O_TMPFILE: files without a name, and the name they may get.
import { describe, expect, it } from "vitest";
import { emptyEntry } from "../../src/fuse/operations.js";
import { check, code, fresh, type Mounted, mount, remount } from "./harness.js";
import { plainImage } from "./trees.js";

const image = plainImage();
const O_RDWR = 2;
const O_EXCL = 0o200;

function tmpfile(fs: Mounted, directory: string, mode = 0o666, flags = O_RDWR): { id: number; fh: number } {
  const entry = emptyEntry();
  const open = { fh: 0, openFlags: 0 };
  check(fs.fs.tmpfile!(fs.q(fs.nodeid(directory)), flags, 0o100000 | mode, fs.umask, entry, open));
  return { id: entry.nodeid, fh: open.fh };
}

/** Names an open file, as linkat(2) of /proc/self/fd/N does. */
function name(fs: Mounted, id: number, path: string): void {
  const { parent, name: last } = fs.split(path);
  check(fs.fs.link!(fs.q(parent), id, fs.view(last), emptyEntry()));
}

describe("a file made by O_TMPFILE", () => {
  it("has no name, is its maker's, is written and read, and goes with its last descriptor", () => {
    const upper = fresh();
    const fs = mount(image, upper);
    fs.uid = 7;
    fs.gid = 8;
    const { id, fh } = tmpfile(fs, "etc");
    fs.writeId(id, fh, "temporary");
    expect(fs.readId(id, fh).toString()).toBe("temporary");
    expect(fs.getattr(id)).toMatchObject({ nlink: 0, mode: 0o100644, uid: 7, gid: 8, size: 9 });
    expect(fs.names("etc")).toEqual(["deep", "motd", "passwd"]);
    fs.releaseId(id, fh);
    fs.forget(id);
    expect(code(() => fs.getattr(id))).toBe("ESTALE");
    expect(remount(fs, image, upper).names("etc")).toEqual(["deep", "motd", "passwd"]);
  });

  it("gets names: free ones, removed ones, several; and keeps them", () => {
    const upper = fresh();
    const fs = mount(image, upper);
    const { id, fh } = tmpfile(fs, "bin");
    fs.writeId(id, fh, "now");
    fs.unlink("etc/motd");
    name(fs, id, "etc/motd");
    name(fs, id, "full/more");
    expect(fs.getattr(id).nlink).toBe(2);
    expect(code(() => name(fs, id, "etc/passwd"))).toBe("EEXIST");
    fs.releaseId(id, fh);
    for (const now of [fs, remount(fs, image, upper)]) {
      expect([now.read("etc/motd"), now.read("full/more")]).toEqual(["now", "now"]);
      expect(now.stat("etc/motd").ino).toBe(now.stat("full/more").ino);
    }
  });

  it("never gets one with O_EXCL", () => {
    const fs = mount(image, fresh());
    const { id } = tmpfile(fs, "etc", 0o600, O_RDWR | O_EXCL);
    expect(code(() => name(fs, id, "etc/new"))).toBe("ENOENT");
    expect(fs.exists("etc/new")).toBe(false);
  });

  it("takes the group of a setgid directory", () => {
    const fs = mount(image, fresh());
    fs.mkdir("shared", 0o2777);
    const { id } = tmpfile(fs, "shared", 0o660);
    expect(fs.getattr(id).gid).toBe(fs.stat("shared").gid);
  });

  it("is refused on a read-only mount", () => {
    const fs = mount(image);
    expect(code(() => tmpfile(fs, "etc"))).toBe("EROFS");
  });
});
