// What the differential runs (test/conformance) found, each as the few calls it comes down to.
import { lstatSync } from "node:fs";
import { join } from "node:path";
import { describe, expect, it } from "vitest";
import {
  FATTR_CTIME,
  FATTR_FH,
  FATTR_MODE,
  FATTR_MTIME,
  FATTR_SIZE,
  type Services,
} from "../../src/fuse/operations.js";
import { code, fresh, type Mounted, mount } from "./harness.js";
import { plainImage } from "./trees.js";

const image = plainImage();
const OLD = 1_000_000_007;

describe("found by the differential runs", () => {
  it("takes an ACL that is not there for removed", () => {
    // ENODATA for it on objects of the image only, where every filesystem below says nothing.
    const fs = mount(image, fresh());
    for (const path of ["etc/motd", "etc", "link"]) {
      expect(code(() => fs.removexattr(path, "system.posix_acl_access"))).toBe("ok");
    }
    expect(code(() => fs.removexattr("etc/motd", "user.none"))).toBe("ENODATA");
  });

  it("changes a removed directory of the image that is still open", () => {
    // ENOENT: the copy-up looked for a place to put a copy that needs none.
    const upper = fresh();
    const fs = mount(image, upper);
    const nodeid = fs.nodeid("empty");
    fs.rmdir("empty");
    expect(fs.setattr(nodeid, { valid: FATTR_MODE, mode: 0o700 })).toMatchObject({ mode: 0o40700, nlink: 0 });
    expect(fs.setattr(nodeid, { valid: FATTR_MTIME, mtimeSec: OLD }).mtimeSec).toBe(OLD);
    expect(fs.names("")).not.toContain("empty");
    expect(lstatSync(join(upper, "empty")).isCharacterDevice()).toBe(true);
  });

  it("keeps xattrs of special objects without a name", () => {
    // EOPNOTSUPP and an empty list: there was no path to give to lsetxattr(2).
    const fs = mount(image, fresh());
    for (const path of ["pipe", "link"]) {
      fs.setxattr(path, "trusted.a", "1");
      const nodeid = fs.nodeid(path);
      fs.unlink(path);
      expect([path, fs.listxattr(nodeid)]).toEqual([path, ["trusted.a"]]);
      fs.setxattr(nodeid, "trusted.b", "2");
      fs.removexattr(nodeid, "trusted.a");
      expect(fs.getxattr(nodeid, "trusted.b")).toBe("2");
      expect(code(() => fs.setxattr(nodeid, "user.x", ""))).toBe("EPERM");
    }
  });

  it("does not take the kernel's flush of old times for utimes", () => {
    // A write after utimes and a shared mapping lost its mtime: the kernel sends back the time it had kept.
    const fs = mount(image, fresh());
    fs.write("etc/motd", "new", 1);
    const { mtimeSec } = fs.stat("etc/motd");
    fs.setattr("etc/motd", { valid: FATTR_MTIME | FATTR_CTIME | FATTR_FH, mtimeSec: OLD });
    expect(fs.stat("etc/motd").mtimeSec).toBe(mtimeSec);
  });

  it("takes every truncate for a change of the file", () => {
    // A copy is made with the new size already, and a file may have it: mtime stayed as it was.
    const fs = mount(image, fresh());
    expect(fs.setattr("etc/passwd", { valid: FATTR_SIZE, size: 2 }).mtimeSec).toBeGreaterThan(OLD);
    fs.setattr("etc/passwd", { valid: FATTR_MTIME, mtimeSec: OLD });
    expect(fs.setattr("etc/passwd", { valid: FATTR_SIZE, size: 2 }).mtimeSec).toBeGreaterThan(OLD);
  });

  it("counts a name once that was whited out and then made anew", () => {
    // The other names of the hard link showed one link too few: the whiteout and what replaced it both took one off.
    for (const makeAnew of [
      (fs: Mounted) => fs.write("bin/a", "new"),
      (fs: Mounted) => fs.link("etc/motd", "bin/a"),
    ]) {
      const fs = mount(image, fresh());
      expect(fs.stat("lib/c").nlink).toBe(3);
      fs.unlink("bin/a");
      expect(fs.stat("lib/c").nlink).toBe(2);
      makeAnew(fs);
      expect(fs.stat("lib/c").nlink).toBe(2);
      fs.unlink("bin/b");
      expect(fs.stat("lib/c").nlink).toBe(1);
    }
  });

  it("clears capabilities, not setuid, when the kernel asks for nothing else", () => {
    // SETATTR with no bit set comes before a write to a file with capabilities.
    const fs = mount(image, fresh());
    fs.setattr("bin/su", { valid: 0 });
    expect(fs.listxattr("bin/su")).toEqual(["user.note"]);
    expect(fs.stat("bin/su").mode).toBe(0o104755);
  });

  it("clears setuid when a user allocates or copies, and tells the kernel of every such change of mode", () => {
    // FALLOCATE and COPY_FILE_RANGE carry no word of it; and exec(2) went by the mode of before a write.
    const told: number[] = [];
    const services = { invalidateInode: (id: number) => told.push(id), suspendBehind: () => undefined };
    const fs = mount(image, fresh(), { services: services as unknown as Services });
    const nodeid = fs.nodeid("bin/su");
    const fh = fs.openId(nodeid, 2);
    fs.fs.fallocate!(fs.q(nodeid), fh, 0, 0, 100);
    expect([fs.stat("bin/su").mode, told]).toEqual([0o104755, []]);
    fs.uid = 1000;
    fs.fs.fallocate!(fs.q(nodeid), fh, 0, 0, 200);
    expect([fs.stat("bin/su").mode, told]).toEqual([0o100755, [nodeid]]);
    fs.setattr("bin/su", { valid: FATTR_MODE, mode: 0o6755 });
    const from = fs.nodeid("etc/passwd");
    fs.fs.copyFileRange!(fs.q(from), 0, 0, nodeid, fh, 0, 5, 0);
    expect(fs.stat("bin/su").mode).toBe(0o100755);
    fs.releaseId(nodeid, fh);
  });
});

it("makes what a user makes that user's from its first moment, and in a directory of others all the same", () => {
  // Made as root and given away after, so that a crash between left a file of root's.
  const fs = mount(image, fresh());
  fs.setattr("", { valid: FATTR_MODE, mode: 0o777 });
  fs.uid = 1000;
  fs.gid = 1001;
  expect(fs.create("mine", 0o6755).attr).toMatchObject({ uid: 1000, gid: 1001, mode: 0o106755 });
  expect(fs.mkdir("folder").attr).toMatchObject({ uid: 1000, gid: 1001 });
  // The kernel has allowed it, by a group this thread knows nothing of.
  expect(fs.create("etc/by-group", 0o644).attr).toMatchObject({ uid: 1000, gid: 1001 });
  fs.uid = 0;
  fs.gid = 0;
  expect(fs.create("roots").attr).toMatchObject({ uid: 0, gid: 0 });
});
