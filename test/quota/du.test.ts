// `imgfs du`: the walk itself, whatever the tree is like; the list of directories; uppers of other overlays; and that it
// neither changes anything nor is in a mount's way.
import { execFileSync } from "node:child_process";
import {
  chmodSync,
  closeSync,
  linkSync,
  mkdirSync,
  mkdtempSync,
  openSync,
  readdirSync,
  rmSync,
  statSync,
  symlinkSync,
  writeFileSync,
} from "node:fs";
import { join } from "node:path";
import { describe, expect, it } from "vitest";
import { costOfUpper } from "../../src/overlay/quota/offline.js";
import {
  AT_FDCWD,
  closeFd,
  mkdirAt,
  O_CREAT,
  O_DIRECTORY,
  O_RDONLY,
  O_WRONLY,
  openAt,
} from "../../src/sys/files.js";
import { writeXattrFd } from "../../src/sys/xattr.js";
import { command, imgfs, noCommand, run, shell, titleOf } from "../e2e/mounted.js";
import { base, fresh, mount } from "../overlay/harness.js";
import { plainImage } from "../overlay/trees.js";

const BLOCK = 4096;
const image = plainImage();

function directoryOf(): string {
  const upper = fresh();
  mkdirSync(upper);
  return upper;
}

function mark(path: string, name: string, value: string): void {
  const fd = openSync(path, "r");
  expect(writeXattrFd(fd, Buffer.from(name), Buffer.from(value))).toBe(0);
  closeSync(fd);
}

/** A chain of `depth` directories in `top` and a file at its end, made by descriptors: the path is too long for names. */
function makeChain(top: string, depth: number): void {
  const name = Buffer.from("d");
  let fd = openAt(AT_FDCWD, Buffer.from(top), O_RDONLY | O_DIRECTORY);
  for (let i = 0; i < depth; i++) {
    expect(mkdirAt(fd, name, 0o700)).toBe(0);
    const next = openAt(fd, name, O_RDONLY | O_DIRECTORY);
    closeFd(fd);
    fd = next;
  }
  const file = openAt(fd, Buffer.from("file"), O_CREAT | O_WRONLY, 0o600);
  expect(file).toBeGreaterThan(0);
  closeFd(file);
  closeFd(fd);
}

describe("the walk", () => {
  it("goes through a tree deeper than any path, with few descriptors and a small stack", () => {
    // On a disk that takes seconds.
    const upper = mkdtempSync("/dev/shm/imgfs-du-");
    try {
      makeChain(upper, 6000);
      mkdirSync(join(upper, "d/d/beside"));
      const { bytes, inodes, directories } = costOfUpper({ upper, most: 3 });
      expect({ bytes, inodes }).toEqual({ bytes: 6001 * BLOCK, inodes: 6002 });
      expect(directories.map(({ path }) => path)).toEqual(["/d", "/d/d", "/d/d/d"]);
    } finally {
      execFileSync("rm", ["-rf", upper]);
    }
  });

  it("takes names of any bytes", () => {
    const upper = directoryOf();
    const names = [Buffer.from([0xff, 0xfe]), Buffer.from("a\nb"), Buffer.alloc(255, 0xe4)];
    for (const name of names) mkdirSync(Buffer.concat([Buffer.from(`${upper}/`), name]));
    const { inodes, directories } = costOfUpper({ upper, most: Infinity });
    expect(inodes).toBe(3);
    expect(directories.map(({ path }) => path).sort()).toEqual(
      ["/\\xff\\xfe", "/a\\x0ab", `/${"\\xe4".repeat(255)}`].sort(),
    );
  });

  it("follows no link, and stays on its filesystem", async () => {
    const upper = directoryOf();
    symlinkSync("/usr", join(upper, "link"));
    mkdirSync(join(upper, "mounted"));
    await shell(`mount -t tmpfs none '${upper}/mounted'; touch '${upper}/mounted/file'`);
    try {
      const { bytes, inodes, notes } = costOfUpper({ upper, most: 0 });
      expect({ bytes, inodes }).toEqual({ bytes: 0, inodes: 1 });
      expect(notes).toContain(`${upper}/mounted: another filesystem is mounted there: not counted`);
    } finally {
      await shell(`umount '${upper}/mounted'`);
    }
  });

  it("counts a tree of many files in many directories as find does", async () => {
    const upper = directoryOf();
    for (let i = 0; i < 100; i++) {
      mkdirSync(join(upper, `d${i % 17}/e${i}`), { recursive: true });
      for (let j = 0; j < 10; j++) writeFileSync(join(upper, `d${i % 17}/e${i}/f${j}`), "x".repeat(i * j));
    }
    linkSync(join(upper, "d0/e0/f1"), join(upper, "d1/same"));
    const script = `find '${upper}' -mindepth 1 -printf '%y %s %i\\n'`;
    const lines = [...new Set((await shell(script)).trim().split("\n"))].map((line) => line.split(" "));
    const blocks = lines.map(([type, size]) => (type === "d" ? 1 : Math.ceil(Number(size) / BLOCK)));
    expect(costOfUpper({ upper, most: 0 })).toMatchObject({
      bytes: blocks.reduce((sum, count) => sum + count, 0) * BLOCK,
      inodes: lines.length,
    });
  });
});

describe("the largest directories", () => {
  function tree(): string {
    const upper = directoryOf();
    for (const [path, blocks] of [
      ["a/small", 1],
      ["a/b/large", 10],
      ["c/middle", 5],
      ["c/d/e/tiny", 0],
    ] as const) {
      mkdirSync(join(upper, path, ".."), { recursive: true });
      writeFileSync(join(upper, path), Buffer.alloc(blocks * BLOCK, 1));
    }
    return upper;
  }

  it("come first, each with all that is below it", () => {
    const { directories, leftOut } = costOfUpper({ upper: tree(), most: Infinity });
    expect(directories.map(({ path, bytes, inodes }) => [path, bytes / BLOCK, inodes])).toEqual([
      ["/a", 13, 4],
      ["/a/b", 11, 2],
      ["/c", 8, 5],
      ["/c/d", 2, 3],
      ["/c/d/e", 1, 2],
    ]);
    expect(leftOut).toBe(0);
  });

  it("are as many as wanted, also of thousands", () => {
    const upper = directoryOf();
    for (let i = 0; i < 1300; i++) {
      const folder = join(upper, `d${i}`);
      mkdirSync(folder);
      if (i % 100 === 0) writeFileSync(join(folder, "f"), Buffer.alloc((i / 100 + 1) * BLOCK, 1));
    }
    const { directories, leftOut } = costOfUpper({ upper, most: 3 });
    expect(directories.map(({ path }) => path)).toEqual(["/d1200", "/d1100", "/d1000"]);
    expect(leftOut).toBe(1297);
  });

  it("have a file with several names once", () => {
    const upper = tree();
    linkSync(join(upper, "a/b/large"), join(upper, "c/large"));
    const { bytes, directories } = costOfUpper({ upper, most: Infinity });
    expect(bytes).toBe(21 * BLOCK);
    const of = (wanted: string): number =>
      (directories.find(({ path }) => path === wanted)?.bytes ?? 0) / BLOCK;
    expect([
      [13, 8],
      [3, 18],
    ]).toContainEqual([of("/a"), of("/c")]);
  });
});

describe("an upper of another overlay", () => {
  it("has whiteout files, which cost nothing, until a mount of ours makes whiteouts of them", () => {
    const upper = directoryOf();
    mkdirSync(join(upper, "etc"));
    for (const name of [".wh.motd", ".wh..wh..opq"]) writeFileSync(join(upper, "etc", name), "");
    writeFileSync(join(upper, "etc/.wh.full"), "x");
    expect(costOfUpper({ upper, most: 0 })).toMatchObject({ bytes: 2 * BLOCK, inodes: 2 });
    const fs = mount(image, upper);
    fs.close();
    expect(readdirSync(join(upper, "etc"))).toEqual([".wh.full"]);
  });

  it("of the kernel's has names like that", () => {
    const upper = directoryOf();
    mark(upper, "trusted.overlay.uuid", "0123456789abcdef");
    writeFileSync(join(upper, ".wh.motd"), "");
    expect(costOfUpper({ upper, most: 0 })).toMatchObject({ bytes: 0, inodes: 1 });
  });

  it("of the kernel's says which directories it has copied", async () => {
    const lower = directoryOf();
    const upper = directoryOf();
    const work = directoryOf();
    const merged = directoryOf();
    mkdirSync(join(lower, "etc/deep"), { recursive: true });
    writeFileSync(join(lower, "etc/gone"), "x");
    writeFileSync(join(lower, "etc/deep/file"), "x".repeat(10_000));
    await shell(`mount -t overlay overlay -o lowerdir=${lower},upperdir=${upper},workdir=${work} ${merged}`);
    try {
      rmSync(join(merged, "etc/gone"));
      writeFileSync(join(merged, "etc/deep/file"), "changed");
      mkdirSync(join(merged, "etc/made"));
      writeFileSync(join(merged, "etc/made/file"), "x".repeat(5000));
    } finally {
      await shell(`umount '${merged}'`);
    }
    // A file of it has no mark that says that it is a copy.
    const { bytes, inodes, notes } = costOfUpper({ upper, most: 0 });
    expect({ bytes, inodes }).toEqual({ bytes: 4 * BLOCK, inodes: 3 });
    expect(notes).toEqual([`${upper}: does not say which directories are the image's: all count`]);
  });
});

describe("what is beside the upper", () => {
  const used = (): string => {
    const upper = fresh();
    const fs = mount(image, upper);
    fs.setattr("link", { valid: 2, uid: 7 });
    fs.close();
    return upper;
  };

  it("says of symlinks whose they are; without it they count, and that is told", () => {
    const upper = used();
    expect(costOfUpper({ upper, most: 0 })).toMatchObject({ inodes: 0, notes: [], work: `${upper}.work` });
    rmSync(`${upper}.work`, { recursive: true });
    expect(costOfUpper({ upper, most: 0 })).toMatchObject({
      inodes: 1,
      work: null,
      notes: [
        `${upper}.work: no work directory: symlinks and special files of the image count as made in the upper directory`,
      ],
    });
    const work = fresh("no-work");
    expect(() => costOfUpper({ upper, work, most: 0 })).toThrow(
      /^work directory .*: no such file or directory$/,
    );
  });

  it("may be of another upper, and then says nothing", () => {
    const [upper, other] = [used(), used()];
    rmSync(`${upper}.work`, { recursive: true });
    execFileSync("cp", ["-a", `${other}.work`, `${upper}.work`]);
    const { inodes, notes } = costOfUpper({ upper, most: 0 });
    expect(inodes).toBe(1);
    expect(notes[0]).toMatch(/: does not serve this upper directory: symlinks/);
    expect(() => costOfUpper({ upper, work: `${other}.work`, most: 0 })).toThrow(
      `work directory ${other}.work: does not serve this upper directory`,
    );
  });

  it("may hold a rename that was interrupted, which is told", () => {
    const upper = used();
    symlinkSync("1 2 3/a/b", join(`${upper}.work`, "rename"));
    expect(costOfUpper({ upper, most: 0 }).notes).toEqual([
      `${upper}.work: a rename was interrupted, which the next mount finishes`,
    ]);
  });
});

it("refuses an upper of a newer layout by name", () => {
  const upper = directoryOf();
  mark(upper, "user.imgfs.upper", "imgfs upper 2:0123456789abcdef");
  expect(() => costOfUpper({ upper, most: 0 })).toThrow(
    `upper directory ${upper} has a layout this version does not know: imgfs upper 2`,
  );
});

it("tells that a mount uses the upper, is not in its way, and changes nothing, not even a time", () => {
  const upper = fresh();
  const fs = mount(image, upper);
  fs.mkdir("made");
  fs.write("made/file", "x");
  fs.setattr("etc/motd", { valid: 1, mode: 0o600 });
  const times = (): string =>
    execFileSync("find", [upper, `${upper}.work`, "-printf", "%p %A@ %T@ %C@\n"]).toString();
  execFileSync("find", [upper, `${upper}.work`, "-exec", "touch", "-a", "-d", "2001-01-01", "{}", "+"]);
  const before = times();
  const { inUse, inodes, notes } = costOfUpper({ upper, most: 0 });
  expect({ inUse, inodes }).toEqual({ inUse: true, inodes: 2 });
  expect(notes).toEqual([`${upper}: in use by a mount, which may change it meanwhile`]);
  // What `find` has read itself has set atimes since.
  const kept = (text: string): string => text.replaceAll(/^(\S+) \S+/gm, "$1");
  expect(kept(times())).toBe(kept(before));
  expect(statSync(join(upper, "made/file")).atime.getFullYear()).toBe(2001);
  fs.close();
  expect(costOfUpper({ upper, most: 0 })).toMatchObject({ inUse: false, notes: [] });
});

describe.skipIf(noCommand)(titleOf("the command", noCommand), () => {
  function tree(): string {
    const upper = directoryOf();
    mark(upper, "user.imgfs.costs", "1");
    mkdirSync(join(upper, "usr/share"), { recursive: true });
    writeFileSync(join(upper, "usr/share/doc"), Buffer.alloc(3 << 20, 1));
    mkdirSync(join(upper, "var"));
    return upper;
  }

  it("prints the total, and then the directories, a screenful of them", async () => {
    const upper = tree();
    expect(await imgfs("du", upper)).toMatchObject({
      code: 0,
      stdout:
        "3.01 MiB (3158016 bytes), 4 inodes\n" +
        "3.01 MiB  3 inodes  /usr\n" +
        "3.00 MiB  2 inodes  /usr/share\n" +
        "4.00 KiB  1 inode   /var\n",
      stderr: "",
    });
    for (let i = 0; i < 30; i++) mkdirSync(join(upper, `d${i}`));
    const { stdout } = await imgfs("du", upper);
    expect(stdout.split("\n").length).toBe(1 + 20 + 1 + 1);
    expect(stdout).toMatch(/\nand 13 smaller directories; --all shows them\n$/);
    expect((await imgfs("du", upper, "--all")).stdout.split("\n").length).toBe(1 + 33 + 1);
    expect((await imgfs("du", upper, "--top", "1")).stdout.split("\n").length).toBe(1 + 1 + 1 + 1);
  });

  it("prints exact numbers as JSON, and says what it has to say on stderr", async () => {
    const upper = tree();
    execFileSync("setfattr", ["-x", "user.imgfs.costs", upper]);
    const { stdout, stderr } = await imgfs("du", upper, "--json", "--top", "2");
    expect(stderr).toBe(`imgfs: note: ${upper}: does not say which directories are the image's: all count\n`);
    expect(JSON.parse(stdout)).toEqual({
      schemaVersion: 1,
      upper,
      work: null,
      bytes: 3_158_016,
      inodes: 4,
      nameless: { bytes: 0, inodes: 0 },
      inUse: false,
      directories: [
        { path: "/usr", bytes: 3_153_920, inodes: 3 },
        { path: "/usr/share", bytes: 3_149_824, inodes: 2 },
      ],
      leftOut: 1,
    });
  });

  it("is one line and exit code 1 for what an ordinary user may not read, by name", async () => {
    const upper = tree();
    mkdirSync(join(upper, "usr/closed"));
    chmodSync(join(upper, "usr/closed"), 0o700);
    chmodSync(base, 0o755);
    const ids = ["--reuid=65534", "--regid=65534", "--clear-groups"];
    const { code, stdout, stderr } = await run("setpriv", [...ids, command, "du", upper]);
    expect({ code, stdout, stderr }).toEqual({
      code: 1,
      stdout: "",
      stderr: `imgfs: ${upper}/usr/closed: permission denied\n`,
    });
  });

  it("wants one of --top and --all", async () => {
    const { code, stderr } = await imgfs("du", tree(), "--top", "1", "--all");
    expect({ code, stderr }).toEqual({ code: 2, stderr: "imgfs: du: --top or --all, not both\n" });
  });
});
