// Changes of metadata of a file of the image: they copy no data, and nobody can tell.
import { lstatSync, readFileSync } from "node:fs";
import { join } from "node:path";
import { describe, expect, it } from "vitest";
import { runJob } from "../../src/fuse/job.js";
import {
  FATTR_GID,
  FATTR_MODE,
  FATTR_MTIME,
  FATTR_SIZE,
  FATTR_UID,
  type Job,
  type Services,
  SUSPENDED,
} from "../../src/fuse/operations.js";
import { directory, file } from "../imgfs/support.js";
import { code, fresh, imageOf, type Mounted, mount, remount } from "./harness.js";
import { plainImage } from "./trees.js";

const image = plainImage();
const SEEK_DATA = 3;
const SEEK_HOLE = 4;

it("a copy of metadata alone takes as many blocks as the file below", () => {
  const fs = mount(image, fresh());
  const { blocks, size } = fs.stat("sparse");
  expect(blocks * 512).toBeLessThan(size);
  fs.setattr("sparse", { valid: FATTR_MODE, mode: 0o600 });
  expect(fs.stat("sparse").blocks).toBe(blocks);
});

function both(fs: Mounted, upper: string, check: (fs: Mounted) => void): Mounted {
  check(fs);
  const again = remount(fs, image, upper);
  check(again);
  return again;
}

/** Whether a file of the upper directory has data on disk: more than one block, which xattrs may take. */
const hasData = (upper: string, path: string): boolean => lstatSync(join(upper, path)).blocks * 512 > 4096;

const changes: Record<string, (fs: Mounted) => string> = {
  chmod: (fs) => {
    fs.setattr("sparse", { valid: FATTR_MODE, mode: 0o600 });
    return "sparse";
  },
  chown: (fs) => {
    fs.setattr("sparse", { valid: FATTR_UID | FATTR_GID, uid: 5, gid: 6 });
    return "sparse";
  },
  utimes: (fs) => {
    fs.setattr("sparse", { valid: FATTR_MTIME, mtimeSec: 7, mtimeNsec: 8 });
    return "sparse";
  },
  setxattr: (fs) => {
    fs.setxattr("sparse", "user.mine", "x");
    return "sparse";
  },
  "a rename": (fs) => {
    fs.rename("sparse", "bin/sparse");
    return "bin/sparse";
  },
  "a new link": (fs) => {
    fs.link("sparse", "bin/sparse");
    return "bin/sparse";
  },
};

/** The first and last four bytes of "head", a megabyte of holes, "tail". */
function ends(fs: Mounted, path: string): string {
  const nodeid = fs.nodeid(path);
  const [head, tail] = [0, (1 << 20) + 4].map((offset) => fs.readId(nodeid, 0, offset, 4).toString());
  return `${head} ${tail}`;
}

describe("a change of metadata copies no data", () => {
  for (const [what, change] of Object.entries(changes)) {
    it(what, () => {
      const upper = fresh();
      const fs = mount(image, upper);
      const before = fs.stat("sparse");
      const path = change(fs);
      expect(hasData(upper, path)).toBe(false);
      both(fs, upper, (now) => {
        expect(now.stat(path)).toMatchObject({ ino: before.ino, size: before.size, blocks: before.blocks });
        expect(ends(now, path)).toBe("head tail");
        const nodeid = now.nodeid(path);
        expect(now.fs.lseek!(now.q(nodeid), 0, 0, SEEK_DATA)).toBe(0);
        const hole = now.fs.lseek!(now.q(nodeid), 0, 0, SEEK_HOLE);
        expect(hole).toBeGreaterThanOrEqual(4);
        expect(hole).toBeLessThanOrEqual(1 << 20);
      });
    });

    it(`${what}, and then a write copies them, with everything that was changed`, () => {
      const upper = fresh();
      let fs = mount(image, upper);
      const path = change(fs);
      const before = fs.stat(path);
      fs = remount(fs, image, upper);
      fs.setattr(path, { valid: FATTR_SIZE, size: before.size });
      const { mtimeSec: _s, mtimeNsec: _n, ctimeSec: _c, ctimeNsec: _d, blocks: _b, ...same } = before;
      fs.write(path, "HEAD", 0o2);
      both(fs, upper, (now) => {
        const { atimeSec: _a, atimeNsec: _t, ...kept } = same;
        expect(now.stat(path)).toMatchObject(kept);
        expect(ends(now, path)).toBe("HEAD tail");
        if (what === "setxattr") expect(now.getxattr(path, "user.mine")).toBe("x");
      });
      expect(readFileSync(join(upper, path), "latin1")).toMatch(/^HEAD\0{1048576}tail$/);
    });
  }

  it("an open for writing copies nothing, and leaves times, mode and capabilities as they were", () => {
    const upper = fresh();
    const fs = mount(image, upper);
    const { mode, mtimeSec, mtimeNsec, uid, gid } = fs.stat("bin/su");
    const capability = fs.getxattr("bin/su", "security.capability");
    const nodeid = fs.nodeid("bin/su");
    fs.releaseId(nodeid, fs.openId(nodeid, 2));
    expect(readFileSync(join(upper, "bin/su"), "latin1")).toBe("\0".repeat(6));
    const now = both(fs, upper, (now) => {
      expect(now.stat("bin/su")).toMatchObject({ mode, mtimeSec, mtimeNsec, uid, gid });
      expect(now.getxattr("bin/su", "security.capability")).toBe(capability);
      expect(now.read("bin/su")).toBe("setuid");
    });
    const id = now.nodeid("bin/su");
    const KEEP_SIZE = 1;
    expect(now.fs.fallocate!(now.q(id), now.openId(id, 2), KEEP_SIZE, 0, 6)).toBe(0);
    expect(readFileSync(join(upper, "bin/su"), "latin1")).toBe("setuid");
    expect(now.stat("bin/su")).toMatchObject({ mode, uid, gid });
  });

  it("a cut copies only what is left", () => {
    const upper = fresh();
    const fs = mount(image, upper);
    fs.setattr("sparse", { valid: FATTR_MODE, mode: 0o600 });
    fs.setattr("sparse", { valid: FATTR_SIZE, size: 2 });
    both(fs, upper, (now) => expect([now.read("sparse"), now.stat("sparse").size]).toEqual(["he", 2]));
    const other = fresh();
    const cut = mount(image, other);
    cut.setattr("sparse", { valid: FATTR_MODE, mode: 0o600 });
    cut.write("sparse", "new");
    both(cut, other, (now) => expect(now.read("sparse")).toBe("new"));
  });

  it("one of several hard links: all names show it, and share the data later", () => {
    const upper = fresh();
    const fs = mount(image, upper);
    fs.setattr("bin/a", { valid: FATTR_MODE, mode: 0o700 });
    const now = both(fs, upper, (now) => {
      for (const name of ["bin/a", "bin/b", "lib/c"]) {
        expect(now.stat(name)).toMatchObject({ mode: 0o100700, nlink: 3 });
        expect(now.read(name)).toBe("shared");
      }
    });
    now.write("lib/c", "SHARED", 0o2);
    both(now, upper, (again) => expect(again.read("bin/a")).toBe("SHARED"));
  });

  it("an open from before reads what is written after", () => {
    const fs = mount(image, fresh());
    const nodeid = fs.nodeid("etc/motd");
    const fh = fs.openId(nodeid, 0);
    fs.setattr("etc/motd", { valid: FATTR_MODE, mode: 0o600 });
    expect(fs.readId(nodeid, fh).toString()).toBe("hello\n");
    fs.write("etc/motd", "HELLO", 0o2);
    expect(fs.readId(nodeid, fh).toString()).toBe("HELLO\n");
    fs.unlink("etc/motd");
    expect(fs.readId(nodeid, fh).toString()).toBe("HELLO\n");
    fs.releaseId(nodeid, fh);
  });

  it("unlinked while open and without data, it is still read and written", () => {
    const fs = mount(image, fresh());
    fs.setattr("etc/motd", { valid: FATTR_MODE, mode: 0o600 });
    const nodeid = fs.nodeid("etc/motd");
    const fh = fs.openId(nodeid, 0);
    fs.unlink("etc/motd");
    expect(fs.readId(nodeid, fh).toString()).toBe("hello\n");
    const writer = fs.openId(nodeid, 2);
    fs.writeId(nodeid, writer, "J");
    expect(fs.readId(nodeid, fh).toString()).toBe("Jello\n");
  });

  it("not where that is switched off", () => {
    const upper = fresh();
    const fs = mount(image, upper, { metacopy: false });
    fs.setattr("etc/motd", { valid: FATTR_MODE, mode: 0o600 });
    expect(readFileSync(join(upper, "etc/motd"), "latin1")).toBe("hello\n");
  });
});

describe("data of a large file", () => {
  const size = 6 << 20;
  const large = imageOf(directory({ large: file(Buffer.alloc(size, "x")) }));

  it("come in the background; what would change the file meanwhile waits", () => {
    let held: { key: number; job: Job; done: (status: number) => void } | undefined;
    const services: Services = {
      offload: (_q, job) => runJob(job),
      suspend: (_q, key, job, done) => {
        held = { key, job, done };
        return SUSPENDED;
      },
      suspendBehind: (_q, key) => (held?.key === key ? SUSPENDED : undefined),
      interrupted: () => false,
      invalidateInode: () => 0,
      invalidateEntry: () => 0,
    };
    const finish = (status?: number): void => {
      const { job, done } = held!;
      held = undefined;
      done(status ?? runJob(job));
    };
    const suspended = (call: () => unknown): boolean => code(call).startsWith("errno ");
    const upper = fresh();
    const fs = mount(large, upper, { services });
    fs.setattr("large", { valid: FATTR_MODE, mode: 0o600 });
    const nodeid = fs.nodeid("large");
    const fh = fs.openId(nodeid, 1);
    const write = (): number => fs.writeId(nodeid, fh, "yy", size - 1);
    expect(suspended(write)).toBe(true);
    expect(suspended(() => fs.setattr(nodeid, { valid: FATTR_MODE, mode: 0 }))).toBe(true);
    expect(fs.readId(nodeid, 0, size - 2).toString()).toBe("xx");
    finish(-28);
    expect(code(write)).toBe("ENOSPC");
    expect(hasData(upper, "large")).toBe(false);
    expect(fs.readId(nodeid, 0, size - 2).toString()).toBe("xx");
    expect(suspended(write)).toBe(true);
    finish();
    write();
    expect(fs.stat("large")).toMatchObject({ size: size + 1, mode: 0o100600 });
    expect(fs.readId(nodeid, fh, size - 3).toString()).toBe("xxyy");
    fs.releaseId(nodeid, fh);
  });
});
