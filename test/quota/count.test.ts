// What each kind of object in an upper directory costs, counted without a mount: `imgfs du`. The uppers are made by hand,
// with real directories, xattrs, holes and devices.
import { execFileSync } from "node:child_process";
import {
  closeSync,
  ftruncateSync,
  linkSync,
  mkdirSync,
  mkdtempSync,
  openSync,
  rmSync,
  symlinkSync,
  writeFileSync,
  writeSync,
} from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { afterAll, describe, expect, it } from "vitest";
import { costOfUpper, type UpperCost } from "../../src/overlay/quota/offline.js";
import { fallocateFd } from "../../src/sys/files.js";
import { writeXattrFd } from "../../src/sys/xattr.js";

const base = mkdtempSync(join(tmpdir(), "imgfs-count-"));
afterAll(() => rmSync(base, { recursive: true, force: true }));

const BLOCK = 4096;
const IDENTITY = "0123456789abcdef";
const ORIGIN = "3 0123456789abcdef";
let made = 0;

interface Pair {
  readonly upper: string;
  readonly work: string;
}

/** An upper of ours with nothing in it, whose root says `costs`. */
function newUpper(costs: string | undefined, folder = base): Pair {
  const upper = join(folder, `upper${made++}`);
  const work = `${upper}.work`;
  for (const folder of [upper, work, join(work, "tmp"), join(work, "index"), join(work, "moved")]) {
    mkdirSync(folder);
  }
  mark(upper, "user.imgfs.upper", `imgfs upper 1:${IDENTITY}`);
  if (costs !== undefined) mark(upper, "user.imgfs.costs", costs);
  writeFileSync(join(work, "format"), `imgfs upper 1:${IDENTITY}\n`);
  return { upper, work };
}

function mark(path: string, name: string, value: string | Buffer): void {
  const fd = openSync(path, "r");
  const result = writeXattrFd(fd, Buffer.from(name), Buffer.from(value as string));
  closeSync(fd);
  expect(result, `${name} of ${path}`).toBe(0);
}

/** Marks of what is no file or directory are those of `trusted.`. */
function markLink(path: string, name: string, length: number): void {
  execFileSync("setfattr", ["-h", "-n", name, "-v", "x".repeat(length), path]);
}

function sparse(path: string, size: number, ...blocks: number[]): void {
  const fd = openSync(path, "w");
  ftruncateSync(fd, size);
  for (const block of blocks) writeSync(fd, "x", block * BLOCK + 100);
  closeSync(fd);
}

function ranges(...blocks: number[]): Buffer {
  const value = Buffer.alloc(blocks.length * 8);
  for (const [i, block] of blocks.entries()) value.writeBigUInt64LE(BigInt(block), i * 8);
  return value;
}

function copiedDirectory(path: string): string {
  mkdirSync(path);
  mark(path, "user.imgfs.copied", "");
  return path;
}

interface Kind {
  readonly kind: string;
  /** Of the root's mark. */
  readonly costs?: string;
  readonly make: (upper: string, work: string) => void;
  readonly blocks: number;
  readonly inodes: number;
}

const kinds: readonly Kind[] = [
  { kind: "nothing", make: () => {}, blocks: 0, inodes: 0 },
  {
    kind: "a file of one byte",
    make: (upper) => writeFileSync(join(upper, "file"), "x"),
    blocks: 1,
    inodes: 1,
  },
  { kind: "an empty file", make: (upper) => writeFileSync(join(upper, "file"), ""), blocks: 0, inodes: 1 },
  {
    kind: "a file of one byte more than two blocks",
    make: (upper) => writeFileSync(join(upper, "file"), Buffer.alloc(2 * BLOCK + 1, 1)),
    blocks: 3,
    inodes: 1,
  },
  {
    kind: "a file that was only made longer",
    make: (upper) => sparse(join(upper, "file"), 1 << 30),
    blocks: 0,
    inodes: 1,
  },
  {
    kind: "a byte in each of three places",
    make: (upper) => sparse(join(upper, "file"), 1 << 30, 1, 1000, 9999),
    blocks: 3,
    inodes: 1,
  },
  {
    kind: "data at the start, a hole at the end",
    make: (upper) => sparse(join(upper, "file"), 10 * BLOCK, 0, 1),
    blocks: 2,
    inodes: 1,
  },
  {
    kind: "reserved blocks that are noted, of a file without size",
    costs: "1a",
    make: (upper) => {
      const path = join(upper, "file");
      const fd = openSync(path, "w");
      expect(fallocateFd(fd, 1, 0, 5 * BLOCK)).toBe(0);
      closeSync(fd);
      mark(path, "user.imgfs.allocated", ranges(0, 5));
    },
    blocks: 5,
    inodes: 1,
  },
  {
    kind: "reserved blocks, data in some of them and beside them",
    costs: "1a",
    make: (upper) => {
      sparse(join(upper, "file"), 100 * BLOCK, 3, 50, 70);
      mark(join(upper, "file"), "user.imgfs.allocated", ranges(2, 5, 60, 65));
    },
    blocks: 3 + 5 + 2,
    inodes: 1,
  },
  {
    kind: "a file full of data, all of it reserved",
    costs: "1a",
    make: (upper) => {
      writeFileSync(join(upper, "file"), Buffer.alloc(3 * BLOCK, 1));
      mark(join(upper, "file"), "user.imgfs.allocated", ranges(0, 3));
    },
    blocks: 3,
    inodes: 1,
  },
  {
    kind: "a file full of data, and blocks reserved after its end",
    costs: "1a",
    make: (upper) => {
      writeFileSync(join(upper, "file"), Buffer.alloc(3 * BLOCK, 1));
      mark(join(upper, "file"), "user.imgfs.allocated", ranges(1, 8));
    },
    blocks: 8,
    inodes: 1,
  },
  {
    kind: "a directory that a user made",
    make: (upper) => mkdirSync(join(upper, "made")),
    blocks: 1,
    inodes: 1,
  },
  {
    kind: "directories in directories",
    make: (upper) => mkdirSync(join(upper, "a/b/c"), { recursive: true }),
    blocks: 3,
    inodes: 3,
  },
  {
    kind: "a copied directory",
    make: (upper) => void copiedDirectory(join(upper, "d")),
    blocks: 0,
    inodes: 0,
  },
  {
    kind: "what a user made in a copied directory",
    make: (upper) => {
      mkdirSync(join(copiedDirectory(join(upper, "d")), "made"));
      writeFileSync(join(upper, "d/made/file"), "x");
      writeFileSync(join(upper, "d/file"), "x");
    },
    blocks: 3,
    inodes: 3,
  },
  ...[
    "user.imgfs.redirect",
    "user.overlay.redirect",
    "trusted.overlay.redirect",
    "trusted.overlay.origin",
  ].map(
    (name): Kind => ({
      kind: `a directory with ${name}`,
      make: (upper) => {
        mkdirSync(join(upper, "d"));
        mark(join(upper, "d"), name, name === "user.imgfs.redirect" ? ORIGIN : "/usr");
      },
      blocks: 0,
      inodes: 0,
    }),
  ),
  {
    kind: "a copied file, in a copied directory",
    make: (upper) => {
      writeFileSync(join(copiedDirectory(join(upper, "d")), "file"), "0123");
      mark(join(upper, "d/file"), "user.imgfs.origin", ORIGIN);
    },
    blocks: 1,
    inodes: 1,
  },
  {
    kind: "a copied file that has been cut to nothing",
    make: (upper) => {
      writeFileSync(join(upper, "file"), "");
      mark(join(upper, "file"), "user.imgfs.origin", ORIGIN);
    },
    blocks: 0,
    inodes: 0,
  },
  {
    kind: "a copy of metadata alone",
    make: (upper) => {
      sparse(join(upper, "file"), 123_456);
      mark(join(upper, "file"), "user.imgfs.origin", `${ORIGIN} meta`);
    },
    blocks: 0,
    inodes: 0,
  },
  {
    kind: "a copy of metadata alone that was to get its data when the daemon died",
    make: (upper) => {
      writeFileSync(join(upper, "file"), "0123");
      mark(join(upper, "file"), "user.imgfs.origin", `${ORIGIN} meta`);
    },
    blocks: 0,
    inodes: 0,
  },
  {
    kind: "a copy that came into a directory which says that it may hold some",
    make: (upper) => {
      mkdirSync(join(upper, "made"));
      mark(join(upper, "made"), "user.imgfs.impure", "y");
      sparse(join(upper, "made/file"), 123_456);
      mark(join(upper, "made/file"), "user.imgfs.origin", `${ORIGIN} meta`);
    },
    blocks: 1,
    inodes: 1,
  },
  {
    kind: "an origin where none is looked for",
    make: (upper) => {
      mkdirSync(join(upper, "made"));
      writeFileSync(join(upper, "made/file"), "");
      mark(join(upper, "made/file"), "user.imgfs.origin", ORIGIN);
    },
    blocks: 1,
    inodes: 2,
  },
  {
    kind: "a symlink, a FIFO and a device",
    make: (upper) => {
      symlinkSync("x".repeat(3000), join(upper, "link"));
      execFileSync("mkfifo", [join(upper, "fifo")]);
      execFileSync("mknod", [join(upper, "null"), "c", "1", "3"]);
    },
    blocks: 0,
    inodes: 3,
  },
  {
    kind: "the same copied up: linked in the index",
    make: (upper, work) => {
      symlinkSync("target", join(upper, "link"));
      execFileSync("mkfifo", [join(upper, "fifo")]);
      linkSync(join(upper, "link"), join(work, "index/7"));
      linkSync(join(upper, "fifo"), join(work, "index/8"));
    },
    blocks: 0,
    inodes: 0,
  },
  {
    kind: "devices 0:0 and files that are whiteouts",
    make: (upper) => {
      execFileSync("mknod", [join(upper, "gone"), "c", "0", "0"]);
      const d = copiedDirectory(join(upper, "d"));
      mark(d, "user.overlay.opaque", "x");
      writeFileSync(join(d, "gone"), "");
      mark(join(d, "gone"), "user.overlay.whiteout", "y");
      const e = copiedDirectory(join(upper, "e"));
      mark(e, "user.overlay.opaque", "y");
      mark(e, "user.imgfs.whiteouts", "y");
      writeFileSync(join(e, "gone"), "");
      mark(join(e, "gone"), "trusted.overlay.whiteout", "y");
    },
    blocks: 0,
    inodes: 0,
  },
  {
    kind: "a file marked as a whiteout in a directory that holds none",
    make: (upper) => {
      writeFileSync(join(upper, "file"), "");
      mark(join(upper, "file"), "user.overlay.whiteout", "y");
    },
    blocks: 0,
    inodes: 1,
  },
  {
    kind: "a name that begins like a whiteout file, in an upper of ours",
    make: (upper) => writeFileSync(join(upper, ".wh.name"), ""),
    blocks: 0,
    inodes: 1,
  },
  {
    kind: "a whiteout that is to become a device of somebody's",
    make: (upper) => {
      mark(copiedDirectory(join(upper, "d")), "user.imgfs.leaves", "0:0:old");
      execFileSync("mknod", [join(upper, "d/old"), "c", "0", "0"]);
      execFileSync("mknod", [join(upper, "d/gone"), "c", "0", "0"]);
    },
    blocks: 0,
    inodes: 1,
  },
  {
    kind: "the same where whiteouts are files",
    make: (upper) => {
      const d = copiedDirectory(join(upper, "d"));
      mark(d, "user.imgfs.leaves", "0:0:old");
      mark(d, "user.overlay.opaque", "x");
      for (const name of ["old", "gone"]) {
        writeFileSync(join(d, name), "");
        mark(join(d, name), "user.overlay.whiteout", "y");
      }
    },
    blocks: 0,
    inodes: 1,
  },
  {
    kind: "files that stand for a symlink, a FIFO and a device",
    make: (upper) => {
      mark(upper, "user.containers.override_stat", "0:0:0755:dir");
      for (const [name, type, content] of [
        ["link", "symlink", "target"],
        ["fifo", "pipe", ""],
        ["null", "char-1-3", ""],
        ["file", "file", "x"],
      ] as const) {
        writeFileSync(join(upper, name), content);
        mark(join(upper, name), "user.containers.override_stat", `7:8:0644:${type}`);
      }
    },
    blocks: 1,
    inodes: 4,
  },
  {
    kind: "a copied symlink that a file stands for",
    make: (upper, work) => {
      mark(upper, "user.containers.override_stat", "0:0:0755:dir");
      writeFileSync(join(upper, "link"), "target");
      mark(join(upper, "link"), "user.containers.override_stat", "7:8:0777:symlink");
      linkSync(join(upper, "link"), join(work, "index/7"));
    },
    blocks: 0,
    inodes: 0,
  },
  {
    kind: "a device 0:0 that a file stands for",
    make: (upper) => {
      mark(upper, "user.imgfs.devices", "y");
      writeFileSync(join(upper, "zero"), "");
      mark(join(upper, "zero"), "user.containers.override_stat", "0:0:0644:char-0-0");
    },
    blocks: 0,
    inodes: 1,
  },
  {
    kind: "overrides in an upper that is not marked as one with any",
    make: (upper) => {
      writeFileSync(join(upper, "link"), "target");
      mark(join(upper, "link"), "user.containers.override_stat", "7:8:0777:symlink");
    },
    blocks: 1,
    inodes: 1,
  },
  {
    kind: "one file with names in three directories",
    make: (upper) => {
      for (const d of ["a", "b"]) mkdirSync(join(upper, d));
      writeFileSync(join(upper, "a/file"), Buffer.alloc(3 * BLOCK, 1));
      linkSync(join(upper, "a/file"), join(upper, "b/file"));
      linkSync(join(upper, "a/file"), join(upper, "file"));
    },
    blocks: 2 + 3,
    inodes: 3,
  },
  {
    kind: "one symlink with two names",
    make: (upper) => {
      symlinkSync("target", join(upper, "link"));
      linkSync(join(upper, "link"), join(upper, "same"));
    },
    blocks: 0,
    inodes: 1,
  },
  {
    kind: "a hard-linked copy that the index alone holds",
    make: (_, work) => {
      writeFileSync(join(work, "index/12"), Buffer.alloc(2 * BLOCK, 1));
      mark(join(work, "index/12"), "user.imgfs.origin", ORIGIN);
    },
    blocks: 2,
    inodes: 1,
  },
  {
    kind: "the same without data",
    make: (_, work) => {
      sparse(join(work, "index/12"), 50_000);
      mark(join(work, "index/12"), "user.imgfs.origin", `${ORIGIN} meta`);
    },
    blocks: 0,
    inodes: 0,
  },
  {
    kind: "a hard-linked copy with a name where no origin is looked for",
    make: (upper, work) => {
      writeFileSync(join(work, "index/12"), "");
      mark(join(work, "index/12"), "user.imgfs.origin", ORIGIN);
      mkdirSync(join(upper, "made"));
      linkSync(join(work, "index/12"), join(upper, "made/name"));
    },
    blocks: 1,
    inodes: 1,
  },
  {
    kind: "what is left in the work directory's tmp, and its records",
    make: (_, work) => {
      writeFileSync(join(work, "tmp/5"), Buffer.alloc(BLOCK));
      writeFileSync(join(work, "moved/5"), "");
    },
    blocks: 0,
    inodes: 0,
  },
  {
    kind: "xattrs up to 4 KiB, and marks of ours beside them",
    costs: "1x",
    make: (upper) => {
      mkdirSync(join(upper, "d"));
      mark(join(upper, "d"), "user.a", "x".repeat(2000));
      mark(join(upper, "d"), "user.imgfs.impure", "y");
      mark(join(upper, "d"), "user.overlay.opaque", "y");
    },
    blocks: 1,
    inodes: 1,
  },
];

/** Of more xattrs than ext4 takes: on a filesystem that does. */
const large: readonly Kind[] = [
  {
    kind: "xattrs of one byte more than 4 KiB",
    costs: "1x",
    make: (upper) => {
      writeFileSync(join(upper, "file"), "");
      mark(join(upper, "file"), "user.a", "x".repeat(4096 - "user.a".length + 1));
    },
    blocks: 1,
    inodes: 1,
  },
  {
    kind: "xattrs of exactly 4 KiB",
    costs: "1x",
    make: (upper) => {
      writeFileSync(join(upper, "file"), "");
      mark(join(upper, "file"), "user.a", "x".repeat(4096 - "user.a".length));
    },
    blocks: 0,
    inodes: 1,
  },
  {
    kind: "xattrs that the image gave, and 100 bytes more",
    costs: "1x",
    make: (upper) => {
      const d = copiedDirectory(join(upper, "d"));
      mark(d, "user.a", "x".repeat(10_000 - "user.a".length));
      mark(d, "user.b", "x".repeat(100 - "user.b".length));
      mark(d, "user.imgfs.base-xattrs", "10000");
    },
    blocks: 1,
    inodes: 0,
  },
  {
    kind: "names that an overlay in the mount uses, which count, and ACLs and marks, which do not",
    costs: "1x",
    make: (upper) => {
      writeFileSync(join(upper, "file"), "");
      // As programs see it, the name is shorter than it is here: that of trusted.overlay.overlay.x is trusted.overlay.x.
      const shown = "trusted.overlay.x";
      mark(join(upper, "file"), "trusted.overlay.overlay.x", "x".repeat(4096 - shown.length));
      mark(join(upper, "file"), "user.imgfs.impure", "y".repeat(500));
    },
    blocks: 0,
    inodes: 1,
  },
  {
    kind: "xattrs of what is neither file nor directory, which are root's alone",
    costs: "1x",
    make: (upper) => {
      symlinkSync("target", join(upper, "link"));
      markLink(join(upper, "link"), "trusted.a", 9000);
    },
    blocks: 0,
    inodes: 1,
  },
  {
    kind: "large xattrs where the root says that there are none",
    make: (upper) => {
      writeFileSync(join(upper, "file"), "");
      mark(join(upper, "file"), "user.a", "x".repeat(9000));
    },
    blocks: 0,
    inodes: 1,
  },
];

function cost(upper: string, work?: string): UpperCost {
  return costOfUpper({ upper, work, most: Infinity });
}

function expectCost({ upper }: Pair, blocks: number, inodes: number): void {
  const { bytes, inodes: counted, notes } = cost(upper);
  expect({ blocks: bytes / BLOCK, inodes: counted, notes }).toEqual({ blocks, inodes, notes: [] });
}

describe("an upper costs what is in it", () => {
  it.each(kinds)("$kind: $blocks blocks, $inodes inodes", ({ costs, make, blocks, inodes }) => {
    const pair = newUpper(costs ?? "1");
    make(pair.upper, pair.work);
    expectCost(pair, blocks, inodes);
  });

  it("looks for everything where the root says nothing, and finds the same", () => {
    for (const { kind, costs, make, blocks, inodes } of kinds) {
      // There nothing says where none can be.
      if (kind === "an origin where none is looked for") continue;
      const pair = newUpper(costs === undefined ? undefined : "2 of another version");
      make(pair.upper, pair.work);
      const { bytes, inodes: counted, notes } = cost(pair.upper);
      expect([bytes / BLOCK, counted]).toEqual([blocks, inodes]);
      expect(notes).toEqual([`${pair.upper}: does not say which directories are the image's: all count`]);
    }
  });

  it("of all kinds together: the sum", () => {
    const pair = newUpper("1ax");
    const sum = { blocks: 0, inodes: 0 };
    const alone = kinds.filter(({ kind }) => !/index|overrid|stand|work directory/.test(kind));
    for (const [i, { make, blocks, inodes }] of alone.entries()) {
      make(copiedDirectory(join(pair.upper, `kind${i}`)), pair.work);
      sum.blocks += blocks;
      sum.inodes += inodes;
    }
    expect(alone.length).toBeGreaterThan(25);
    expectCost(pair, sum.blocks, sum.inodes);
  });
});

const shared = "/dev/shm";

/** Whether xattrs past 4 KiB can be had there. */
function takesLarge(): boolean {
  const folder = mkdtempSync(join(shared, "imgfs-count-"));
  const fd = openSync(folder, "r");
  const result = writeXattrFd(fd, Buffer.from("user.a"), Buffer.alloc(10_000));
  closeSync(fd);
  rmSync(folder, { recursive: true });
  return result === 0;
}

describe.runIf(takesLarge())("an upper with large xattrs", () => {
  const folder = mkdtempSync(join(shared, "imgfs-count-"));
  afterAll(() => rmSync(folder, { recursive: true, force: true }));

  it.each(large)("$kind: $blocks blocks, $inodes inodes", ({ costs, make, blocks, inodes }) => {
    const pair = newUpper(costs ?? "1", folder);
    make(pair.upper, pair.work);
    expectCost(pair, blocks, inodes);
  });
});
