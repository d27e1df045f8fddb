// What a mount with a quota takes an upper to cost: the same by following every change, by counting again, and by
// `imgfs du` without a mount. And when what the mount before left is trusted.
import { execFileSync } from "node:child_process";
import {
  closeSync,
  existsSync,
  mkdirSync,
  openSync,
  readFileSync,
  renameSync,
  rmSync,
  statSync,
  symlinkSync,
  writeFileSync,
} from "node:fs";
import { join } from "node:path";
import { describe, expect, it } from "vitest";
import { FATTR_MODE, FATTR_SIZE, FATTR_UID } from "../../src/fuse/operations.js";
import { costOfUpper } from "../../src/overlay/quota/offline.js";
import type { QuotaOptions } from "../../src/overlay/quota/start.js";
import { createLedgerMemory, Ledger, type Usage } from "../../src/quota/ledger.js";
import { readXattrFd } from "../../src/sys/xattr.js";
import { directory, file, symlink } from "../imgfs/support.js";
import { fresh, imageOf, type Mounted, mount } from "../overlay/harness.js";
import { plainImage } from "../overlay/trees.js";

const BLOCK = 4096;
const image = plainImage();

interface Counting {
  readonly fs: Mounted;
  readonly ledger: Ledger;
}

/** A mount that counts without a limit. */
function counting(upper: string, of = image): Counting {
  const memory = createLedgerMemory();
  const quota: QuotaOptions = {
    mode: "exclusive",
    bytes: "unlimited",
    inodes: "unlimited",
    errno: "EDQUOT",
    imageBytes: 0,
    ledger: memory,
  };
  return { fs: mount(of, upper, { quota }), ledger: new Ledger(memory) };
}

function usage({ bytes, inodes }: Usage): Usage {
  return { bytes, inodes };
}

function du(upper: string): Usage {
  return usage(costOfUpper({ upper, most: 0 }));
}

/** What the next mount counts, which finds nothing left by one before. */
function recounted(upper: string, of = image): Usage {
  rmSync(`${upper}.work/usage`, { force: true });
  const { fs, ledger } = counting(upper, of);
  const found = usage(ledger);
  fs.close();
  return found;
}

/** Makes one of most things an upper can hold. */
function change(fs: Mounted): void {
  fs.write("new", "x".repeat(10_000));
  fs.mkdir("made");
  fs.mkdir("made/below");
  fs.write("made/below/file", "x");
  fs.symlink("target", "made/link");
  fs.mknod("made/fifo", 0o10644);
  fs.link("new", "made/same");
  // Metadata alone, data, cut to nothing, data of a file with three names.
  fs.setattr("etc/motd", { valid: FATTR_MODE, mode: 0o600 });
  fs.write("etc/passwd", "changed\n", 1);
  fs.setattr("full/one", { valid: FATTR_SIZE, size: 0 });
  fs.write("bin/a", "changed", 1);
  fs.setattr("link", { valid: FATTR_UID, uid: 9 });
  fs.setattr("pipe", { valid: FATTR_MODE, mode: 0o600 });
  fs.setattr("sparse", { valid: FATTR_SIZE, size: 500_000 });
  fs.rename("etc/deep", "moved");
  fs.write("moved/er/new", "x".repeat(5000));
  fs.rename("etc/motd", "made/motd");
  fs.unlink("full/two");
  fs.rmdir("empty");
  fs.mkdir("empty");
  fs.unlink("made/same");
}

describe("what an upper costs", () => {
  it("is the same followed, counted again by a mount, and counted without one", () => {
    const upper = fresh();
    const { fs, ledger } = counting(upper);
    change(fs);
    const followed = usage(ledger);
    fs.close();
    expect(followed).toEqual({ bytes: 12 * BLOCK, inodes: 11 });
    expect(du(upper)).toEqual(followed);
    expect(recounted(upper)).toEqual(followed);
    expect(du(upper)).toEqual(followed);
  });

  it("is counted by a mount with a quota after mounts without one", () => {
    const upper = fresh();
    const fs = mount(image, upper);
    change(fs);
    fs.close();
    const expected = { bytes: 12 * BLOCK, inodes: 11 };
    expect(du(upper)).toEqual(expected);
    expect(recounted(upper)).toEqual(expected);
  });

  it("includes a hard-linked copy of which the index alone knows, and no symlink of that kind", () => {
    const of = imageOf(
      directory({ a: directory({ file: file("x".repeat(5000)) }), b: directory({ link: symlink("t") }) }),
    );
    const upper = fresh();
    const { fs } = counting(upper, of);
    fs.setattr("b/link", { valid: FATTR_UID, uid: 7 });
    fs.write("a/file", "y", 1);
    fs.close();
    expect(du(upper)).toEqual({ bytes: 2 * BLOCK, inodes: 1 });
    renameSync(join(upper, "a/file"), join(`${upper}.work/index/2`));
    const { nameless, bytes } = costOfUpper({ upper, most: 0 });
    expect({ nameless, bytes }).toEqual({ nameless: { bytes: 2 * BLOCK, inodes: 1 }, bytes: 2 * BLOCK });
  });

  it("includes reserved blocks and large xattrs that a mount without a quota made", () => {
    const upper = fresh();
    const fs = mount(image, upper);
    const { nodeid, fh } = fs.create("reserved");
    expect(fs.fs.fallocate!(fs.q(nodeid), fh, 1, 0, 10 * BLOCK)).toBe(0);
    fs.writeId(nodeid, fh, "x", 20 * BLOCK);
    fs.releaseId(nodeid, fh);
    fs.close();
    expect(du(upper)).toEqual({ bytes: 11 * BLOCK, inodes: 1 });
    expect(recounted(upper)).toEqual({ bytes: 11 * BLOCK, inodes: 1 });
  });
});

describe("an upper that says nothing of costs", () => {
  function xattrOf(path: string, name: string): Buffer | number {
    const fd = openSync(path, "r");
    const value = readXattrFd(fd, Buffer.from(name));
    closeSync(fd);
    return value;
  }

  /** As a mount of a version before left it. */
  function forget(upper: string): void {
    execFileSync("setfattr", ["-x", "user.imgfs.costs", upper]);
    for (const path of ["etc", "bin", "full", "lib", "moved/er"]) {
      execFileSync("setfattr", ["-x", "user.imgfs.copied", join(upper, path)]);
    }
  }

  it("is looked at whole once, and its copied directories get their mark", () => {
    const upper = fresh();
    const fs = mount(image, upper);
    change(fs);
    fs.close();
    const expected = du(upper);
    forget(upper);
    expect(du(upper)).toEqual({
      bytes: expected.bytes + 5 * BLOCK,
      inodes: expected.inodes + 5,
    });
    const { fs: again, ledger } = counting(upper);
    expect(usage(ledger)).toEqual(expected);
    again.close();
    expect(xattrOf(join(upper, "etc"), "user.imgfs.copied")).toEqual(Buffer.alloc(0));
    expect(xattrOf(join(upper, "moved/er"), "user.imgfs.copied")).toEqual(Buffer.alloc(0));
    expect(xattrOf(join(upper, "made"), "user.imgfs.copied")).toBeLessThan(0);
    expect(xattrOf(join(upper, "empty"), "user.imgfs.copied")).toBeLessThan(0);
    expect(xattrOf(upper, "user.imgfs.costs")).toEqual(Buffer.from("1"));
    expect(du(upper)).toEqual(expected);
  });

  it("says afterwards what kinds of costs it has", () => {
    const upper = fresh();
    const fs = mount(image, upper);
    const { nodeid, fh } = fs.create("reserved");
    expect(fs.fs.fallocate!(fs.q(nodeid), fh, 1, 0, 10 * BLOCK)).toBe(0);
    fs.releaseId(nodeid, fh);
    fs.close();
    execFileSync("setfattr", ["-x", "user.imgfs.costs", upper]);
    expect(recounted(upper)).toEqual({ bytes: 10 * BLOCK, inodes: 1 });
    expect(xattrOf(upper, "user.imgfs.costs")).toEqual(Buffer.from("1a"));
  });

  it("may be one of the kernel's overlayfs, over the same tree", () => {
    const lower = fresh("lower");
    mkdirSync(join(lower, "etc/deep/er"), { recursive: true });
    mkdirSync(join(lower, "full"));
    writeFileSync(join(lower, "etc/passwd"), "root\n");
    writeFileSync(join(lower, "etc/deep/er/file"), "deep\n");
    writeFileSync(join(lower, "full/one"), "1");
    const [upper, work, merged] = [fresh(), fresh("work"), fresh("merged")];
    for (const path of [upper, work, merged]) mkdirSync(path);
    const where = `lowerdir=${lower},upperdir=${upper},workdir=${work}`;
    execFileSync("mount", ["-t", "overlay", "overlay", "-o", where, merged]);
    try {
      writeFileSync(join(merged, "etc/passwd"), "x".repeat(5000));
      writeFileSync(join(merged, "etc/deep/er/new"), "x");
      mkdirSync(join(merged, "etc/made"));
      rmSync(join(merged, "full"), { recursive: true });
      mkdirSync(join(merged, "full"));
      symlinkSync("target", join(merged, "link"));
    } finally {
      execFileSync("umount", [merged]);
    }
    // As one without trusted xattrs has it, where nothing says which directories it has copied.
    for (const path of ["etc", "etc/deep", "etc/deep/er"]) {
      execFileSync("setfattr", ["-x", "trusted.overlay.origin", join(upper, path)]);
    }
    const expected = { bytes: 5 * BLOCK, inodes: 5 };
    expect(du(upper)).toEqual({ bytes: expected.bytes + 3 * BLOCK, inodes: expected.inodes + 3 });
    expect(recounted(upper)).toEqual(expected);
    expect(du(upper)).toEqual(expected);
    expect(xattrOf(join(upper, "etc/deep/er"), "user.imgfs.copied")).toEqual(Buffer.alloc(0));
    expect(xattrOf(join(upper, "full"), "user.imgfs.copied")).toBeLessThan(0);
  });

  it("is an error where there is none", () => {
    const upper = fresh();
    mkdirSync(upper);
    expect(() => costOfUpper({ upper: join(upper, "no"), most: 0 })).toThrow(
      `upper directory ${upper}/no: no such file or directory`,
    );
  });
});

describe("what the mount before left", () => {
  /** An upper with something in it whose mount has ended. */
  function ended(): { upper: string; work: string; left: string } {
    const upper = fresh();
    const { fs } = counting(upper);
    fs.write("file", "x");
    fs.close();
    return { upper, work: `${upper}.work`, left: `${upper}.work/usage` };
  }

  /** What the next mount takes the upper to cost where the file, if it is believed, is wrong by 70 blocks. */
  function believed(upper: string, changeText: (text: string) => string = (text) => text): boolean {
    const left = `${upper}.work/usage`;
    const text = readFileSync(left, "latin1");
    writeFileSync(left, changeText(text.replace(`bytes ${BLOCK}\n`, `bytes ${71 * BLOCK}\n`)));
    const { fs, ledger } = counting(upper);
    const { bytes } = ledger;
    fs.close();
    expect([BLOCK, 71 * BLOCK]).toContain(bytes);
    return bytes === 71 * BLOCK;
  }

  it("is taken and removed before anything is served, and left again at the end", () => {
    const { upper, left } = ended();
    expect(readFileSync(left, "latin1")).toMatch(
      /^imgfs usage 1\nupper [0-9a-f]{16} \d+:\d+ \d+:\d+\nboot [0-9a-f-]{36}\nbytes 4096\ninodes 1\n$/,
    );
    const { fs } = counting(upper);
    expect(existsSync(left)).toBe(false);
    fs.close();
    expect(existsSync(left)).toBe(true);
    expect(believed(upper)).toBe(true);
  });

  it("stays where the next mount is refused", () => {
    const { upper, left } = ended();
    const text = readFileSync(left, "latin1");
    const limit = { mode: "inclusive", bytes: 1, inodes: 1, errno: "EDQUOT" } as const;
    const quota: QuotaOptions = { ...limit, imageBytes: 100, ledger: createLedgerMemory() };
    expect(() => mount(image, upper, { quota })).toThrow(/^disk limit is smaller than volume size/);
    expect(readFileSync(left, "latin1")).toBe(text);
  });

  it("is removed by a mount without a quota, too, which leaves none", () => {
    const { upper, left } = ended();
    const fs = mount(image, upper);
    expect(existsSync(left)).toBe(false);
    fs.close();
    expect(existsSync(left)).toBe(false);
    expect(recounted(upper)).toEqual({ bytes: BLOCK, inodes: 1 });
  });

  it.each<[string, (text: string) => string]>([
    ["another boot", (text) => text.replace(/boot ./, (found) => `boot ${found.endsWith("0") ? "1" : "0"}`)],
    [
      "another upper",
      (text) => text.replace(/upper ./, (found) => `upper ${found.endsWith("0") ? "1" : "0"}`),
    ],
    ["another version", (text) => text.replace("usage 1", "usage 2")],
    ["part of a block", (text) => text.replace(`${71 * BLOCK}`, `${71 * BLOCK + 1}`)],
    ["less than nothing", (text) => text.replace("inodes ", "inodes -")],
    ["no number", (text) => text.replace(`${71 * BLOCK}`, "NaN")],
    ["more than a number holds", (text) => text.replace(`${71 * BLOCK}`, `${2 ** 52}0`)],
    ["half of it", (text) => text.slice(0, text.length / 2)],
    ["nothing", () => ""],
    ["more after it", (text) => `${text}more\n`],
    ["much of anything", () => "x".repeat(100_000)],
  ])("is not believed when it says %s", (_, changeText) => {
    const { upper } = ended();
    expect(believed(upper, changeText)).toBe(false);
  });

  it("is not believed by a copy of both directories", () => {
    const { upper, work } = ended();
    const copy = fresh();
    execFileSync("cp", ["-a", upper, copy]);
    execFileSync("cp", ["-a", work, `${copy}.work`]);
    expect(believed(copy)).toBe(false);
    expect(believed(upper)).toBe(true);
  });

  it("is not followed where it is a link, and no directory is in the way", () => {
    const { upper, left } = ended();
    const elsewhere = fresh("elsewhere");
    renameSync(left, elsewhere);
    symlinkSync(elsewhere, left);
    const { fs, ledger } = counting(upper);
    expect(ledger.bytes).toBe(BLOCK);
    fs.close();
    expect(statSync(elsewhere).isFile()).toBe(true);
    rmSync(left);
    mkdirSync(left);
    expect(() => counting(upper)).toThrow(/^work directory of .*: cannot remove usage: EISDIR$/);
  });

  it("goes with the work directory: that of another upper says nothing of this one", () => {
    const { work } = ended();
    const upper = fresh();
    const fs = mount(image, upper, { work });
    fs.write("file", "x".repeat(BLOCK * 3));
    fs.close();
    expect(existsSync(join(work, "usage"))).toBe(false);
  });

  it("does not count what had no name when the mount ended", () => {
    const upper = fresh();
    const { fs, ledger } = counting(upper);
    const { nodeid, fh } = fs.create("file");
    fs.writeId(nodeid, fh, "x".repeat(9000));
    fs.unlink("file");
    expect(usage(ledger)).toEqual({ bytes: 3 * BLOCK, inodes: 1 });
    fs.close();
    const { fs: again, ledger: after } = counting(upper);
    expect(usage(after)).toEqual({ bytes: 0, inodes: 0 });
    again.close();
    expect(recounted(upper)).toEqual({ bytes: 0, inodes: 0 });
  });
});
