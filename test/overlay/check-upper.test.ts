// `imgfs check --upper`: what a mount writes is sound, and each kind of damage is found where it is. Nothing is written.
import { execFileSync } from "node:child_process";
import {
  chmodSync,
  closeSync,
  linkSync,
  mkdirSync,
  openSync,
  readdirSync,
  readFileSync,
  renameSync,
  rmSync,
  symlinkSync,
  truncateSync,
  writeFileSync,
} from "node:fs";
import { join } from "node:path";
import { afterAll, beforeAll, describe, expect, it } from "vitest";
import { FATTR_MODE, FATTR_UID } from "../../src/fuse/operations.js";
import { checkUpper, type UpperReport } from "../../src/overlay/check-upper.js";
import { removeXattrFd, writeXattrFd } from "../../src/sys/xattr.js";
import { directory, file, Image } from "../imgfs/support.js";
import { fresh, imageOf, mount } from "./harness.js";
import { plainImage } from "./trees.js";

const path = plainImage();
const image = Image.stack([path]);
afterAll(() => image.close());

let used: string;
const rows = { motd: 0, a: 0, full: 0, empty: 0, passwd: 0 };

beforeAll(() => {
  used = fresh();
  const fs = mount(path, used);
  for (const name of ["motd", "passwd"] as const) rows[name] = fs.stat(`etc/${name}`).ino - 1;
  rows.a = fs.stat("bin/a").ino - 1;
  for (const name of ["full", "empty"] as const) rows[name] = fs.stat(name).ino - 1;
  fs.setattr("etc/motd", { valid: FATTR_MODE, mode: 0o600 });
  fs.write("etc/passwd", "changed\n");
  fs.setattr("bin/a", { valid: FATTR_MODE, mode: 0o700 });
  fs.unlink("bin/su");
  fs.setattr("link", { valid: FATTR_UID, uid: 9 });
  fs.setattr("pipe", { valid: FATTR_MODE, mode: 0o600 });
  fs.rename("full", "etc/moved");
  fs.rename("etc/passwd", "renamed");
  fs.rmdir("empty");
  fs.mkdir("empty");
  fs.create("empty/new");
  fs.close();
});

/** Both directories in one folder, copied together, so that the index stays linked. */
function copyTogether(): { upper: string; work: string } {
  const folder = fresh("pair");
  mkdirSync(folder);
  execFileSync("cp", ["-a", used, `${used}.work`, folder]);
  const [upper, work] = readdirSync(folder).sort() as [string, string];
  return { upper: join(folder, upper), work: join(folder, work) };
}

/** What a file notes as reserved. */
function blocks(...edges: number[]): Buffer {
  const value = Buffer.alloc(edges.length * 8);
  for (const [i, edge] of edges.entries()) value.writeBigUInt64LE(BigInt(edge), i * 8);
  return value;
}

function mark(target: string, name: string, value: string | Buffer | undefined): void {
  const fd = openSync(target, "r");
  const result =
    value === undefined
      ? removeXattrFd(fd, Buffer.from(name))
      : writeXattrFd(fd, Buffer.from(name), Buffer.from(value as string));
  closeSync(fd);
  expect(result).toBe(0);
}

const head = (): string => image.treeRoot.slice("sha256:".length, "sha256:".length + 16);

interface Damage {
  readonly kind: string;
  readonly damage: (upper: string, work: string) => void;
  /** What follows the upper's or the workdir's path, and the problem. */
  readonly at: string | (() => string);
  readonly problem: RegExp;
}

const inUpper: readonly Damage[] = [
  {
    kind: "an origin that is none",
    damage: (upper) => mark(join(upper, "etc/motd"), "user.imgfs.origin", "seven"),
    at: "/etc/motd",
    problem: /^its origin is none: "seven"$/,
  },
  {
    kind: "an origin of another image",
    damage: (upper) => mark(join(upper, "etc/motd"), "user.imgfs.origin", `${rows.motd} 0123456789abcdef`),
    at: "/etc/motd",
    problem: /^its origin names another image$/,
  },
  {
    kind: "an origin beyond the image",
    damage: (upper) => mark(join(upper, "etc/motd"), "user.imgfs.origin", `999999 ${head()}`),
    at: "/etc/motd",
    problem: /^its origin names row 999999, which is not there$/,
  },
  {
    kind: "an origin of another type",
    damage: (upper) => mark(join(upper, "etc/motd"), "user.imgfs.origin", `${rows.full} ${head()}`),
    at: "/etc/motd",
    problem: /which is no file$/,
  },
  ...(
    [
      ["that are no list of ranges", Buffer.from("seven")],
      ["with an end before its start", blocks(5, 3)],
      ["that overlap", blocks(1, 5, 4, 9)],
      ["in no order", blocks(8, 9, 1, 2)],
      ["with half a range", blocks(1, 2, 3)],
      ["in more ranges than are written", blocks(...Array.from({ length: 130 }, (_, i) => i))],
      ["beyond any file", Buffer.alloc(16, 0xff)],
    ] as const
  ).map(
    ([what, value]): Damage => ({
      kind: `reserved blocks ${what}`,
      damage: (upper) => {
        mark(upper, "user.imgfs.costs", "1a");
        mark(join(upper, "renamed"), "user.imgfs.allocated", value);
      },
      at: "/renamed",
      problem: /^what it has noted as reserved is no list of ranges$/,
    }),
  ),
  {
    kind: "reserved blocks where the root says that there are none",
    damage: (upper) => mark(join(upper, "renamed"), "user.imgfs.allocated", blocks(1, 2)),
    at: "/renamed",
    problem: /^has noted reserved blocks in an upper directory that says there are none$/,
  },
  {
    kind: "a directory with reserved blocks",
    damage: (upper) => mark(join(upper, "etc"), "user.imgfs.allocated", blocks(1, 2)),
    at: "/etc",
    problem: /^has noted reserved blocks, and is a directory$/,
  },
  {
    kind: "a file that says it is a copied directory",
    damage: (upper) => mark(join(upper, "etc/motd"), "user.imgfs.copied", ""),
    at: "/etc/motd",
    problem: /^marked as a copied directory, and is none$/,
  },
  {
    kind: "xattrs of the image in no number",
    damage: (upper) => mark(join(upper, "etc"), "user.imgfs.base-xattrs", "-5"),
    at: "/etc",
    problem: /^what the image gave it in xattrs is no number: "-5"$/,
  },
  {
    kind: "a root that says nothing known of costs",
    damage: (upper) => mark(upper, "user.imgfs.costs", "1xa"),
    at: "",
    problem: /^what it says of costs in it is nothing that imgfs writes: "1xa"$/,
  },
  {
    kind: "two copies of one file",
    damage: (upper) => {
      writeFileSync(join(upper, "etc/second"), "x");
      mark(join(upper, "etc/second"), "user.imgfs.origin", `${rows.motd} ${head()}`);
      mark(join(upper, "etc"), "user.imgfs.impure", "y");
    },
    at: "/etc/",
    problem: /^the copy of row \d+, as .* is$/,
  },
  {
    kind: "a copy without data that is larger than the file",
    damage: (upper) => truncateSync(join(upper, "etc/motd"), 100),
    at: "/etc/motd",
    problem: /^a copy without data that is larger than row \d+$/,
  },
  {
    kind: "a copy without data where none is looked for",
    damage: (upper) => {
      mkdirSync(join(upper, "other"));
      renameSync(join(upper, "etc/motd"), join(upper, "other/motd"));
    },
    at: "/other/motd",
    problem: /^a copy without data in a directory that is not marked/,
  },
  {
    kind: "a copy by another overlay without data that are nowhere",
    damage: (upper) => {
      writeFileSync(join(upper, "etc/nothing-below"), "");
      truncateSync(join(upper, "etc/nothing-below"), 4096);
      mark(join(upper, "etc/nothing-below"), "user.overlay.metacopy", "");
    },
    at: "/etc/nothing-below",
    problem: /^a copy without data, whose data the image does not have$/,
  },
  {
    kind: "a redirect that is no mark of ours",
    damage: (upper) => mark(join(upper, "etc/moved"), "user.imgfs.redirect", "elsewhere"),
    at: "/etc/moved",
    problem: /^its redirect is none: "elsewhere"$/,
  },
  {
    kind: "a redirect to a file",
    damage: (upper) => mark(join(upper, "etc/moved"), "user.imgfs.redirect", `${rows.motd} ${head()}`),
    at: "/etc/moved",
    problem: /which is no directory$/,
  },
  {
    kind: "a path that leads nowhere",
    damage: (upper) => {
      mkdirSync(join(upper, "lost"));
      mark(join(upper, "lost"), "user.overlay.redirect", "/not/there");
    },
    at: "/lost",
    problem: /^redirected to "\/not\/there", which is no directory of the image$/,
  },
  {
    kind: "a path that is none",
    damage: (upper) => {
      mkdirSync(join(upper, "lost"));
      mark(join(upper, "lost"), "user.overlay.redirect", "/a/../b");
    },
    at: "/lost",
    problem: /^a redirect that is no path: "\/a\/\.\.\/b"$/,
  },
  {
    kind: "two redirects that differ",
    damage: (upper) => {
      mark(join(upper, "etc/moved"), "trusted.overlay.redirect", "/full");
      mark(join(upper, "etc/moved"), "user.overlay.redirect", "/lib");
    },
    at: "/etc/moved",
    problem: /^two redirects that differ$/,
  },
  {
    kind: "two directories with one of the image below",
    damage: (upper) => {
      mkdirSync(join(upper, "again"));
      mark(join(upper, "again"), "user.imgfs.redirect", `${rows.full} ${head()}`);
    },
    at: "/",
    problem: /^the same directory of the image as /,
  },
  {
    kind: "an opaque mark of unknown value",
    damage: (upper) => mark(join(upper, "empty"), "user.overlay.opaque", "maybe"),
    at: "/empty",
    problem: /^an opaque mark of unknown value: "maybe"$/,
  },
  {
    kind: "a whiteout in xattr form where none is looked for",
    damage: (upper) => {
      writeFileSync(join(upper, "etc/white"), "");
      mark(join(upper, "etc/white"), "user.overlay.whiteout", "y");
    },
    at: "/etc/white",
    problem: /^a whiteout in a directory that is not marked/,
  },
  {
    kind: "a whiteout with data",
    damage: (upper) => {
      writeFileSync(join(upper, "etc/white"), "data");
      mark(join(upper, "etc"), "user.overlay.opaque", "x");
      mark(join(upper, "etc/white"), "user.overlay.whiteout", "y");
    },
    at: "/etc/white",
    problem: /^marked as a whiteout, and has data$/,
  },
  {
    kind: "a mark that is none",
    damage: (upper) => mark(join(upper, "etc"), "user.imgfs.surprise", "y"),
    at: "/etc",
    problem: /^a mark that imgfs does not make: "user.imgfs.surprise"$/,
  },
  {
    kind: "an override that is none",
    damage: (upper) => {
      mark(upper, "user.containers.override_stat", "0:0:0755:dir");
      mark(join(upper, "renamed"), "user.containers.override_stat", "somebody");
    },
    at: "/renamed",
    problem: /^its override is none: "somebody"$/,
  },
  {
    kind: "an override where none is looked for",
    damage: (upper) => mark(join(upper, "renamed"), "user.containers.override_stat", "1:1:0600:file"),
    at: "/renamed",
    problem: /^an override in an upper directory that is not marked as one that holds any$/,
  },
  {
    kind: "an upper in the upper",
    damage: (upper) => mark(join(upper, "etc"), "user.imgfs.upper", "imgfs upper 1:0123456789abcdef"),
    at: "/etc",
    problem: /^a mark that imgfs does not make/,
  },
  {
    kind: "a mark of the root that is none",
    damage: (upper) => mark(upper, "user.imgfs.upper", "imgfs upper 1:who"),
    at: "",
    problem: /^its mark is none that imgfs writes/,
  },
  {
    kind: "a mark of the image that is none",
    damage: (upper) => mark(upper, "user.imgfs.tree", "md5:0"),
    at: "",
    problem: /^the mark of its image is none/,
  },
  {
    kind: "marks of an image that the upper does not belong to",
    damage: (upper) => mark(upper, "user.imgfs.tree", undefined),
    at: "/etc/motd",
    problem: /names an image, and the upper directory belongs to none$/,
  },
];

const inWork: readonly Damage[] = [
  {
    kind: "a stranger in the workdir",
    damage: (_, work) => writeFileSync(join(work, "notes"), ""),
    at: "/notes",
    problem: /^not a part of a work directory$/,
  },
  {
    kind: "a part of another type",
    damage: (_, work) => {
      rmSync(join(work, "tmp"), { recursive: true });
      symlinkSync("/etc", join(work, "tmp"));
    },
    at: "/tmp",
    problem: /^not of the type that it must be$/,
  },
  {
    kind: "a layout of the future",
    damage: (_, work) => writeFileSync(join(work, "format"), "imgfs upper 9:0123456789abcdef\n"),
    at: "/format",
    problem: /^a layout this version does not know: "imgfs upper 9"$/,
  },
  {
    kind: "a workdir of another upper",
    damage: (_, work) => writeFileSync(join(work, "format"), "imgfs upper 1:0123456789abcdef\n"),
    at: "",
    problem: /^serves another upper directory/,
  },
  {
    kind: "an index entry that is no row",
    damage: (_, work) => writeFileSync(join(work, "index/007"), ""),
    at: "/index/007",
    problem: /^its name is no row$/,
  },
  {
    kind: "an index entry beyond the image",
    damage: (_, work) => writeFileSync(join(work, "index/999999"), ""),
    at: "/index/999999",
    problem: /^there is no row 999999 in the image$/,
  },
  {
    kind: "an index entry of another type",
    damage: (_, work) => symlinkSync("x", join(work, `index/${rows.motd}`)),
    at: () => `/index/${rows.motd}`,
    problem: /^not of the type that row \d+ of the image has$/,
  },
  {
    kind: "a directory in the index",
    damage: (_, work) => mkdirSync(join(work, `index/${rows.motd}`)),
    at: () => `/index/${rows.motd}`,
    problem: /^a directory; the index holds none$/,
  },
  {
    kind: "one object as two rows",
    damage: (_, work) => linkSync(join(work, `index/${rows.a}`), join(work, `index/${rows.motd}`)),
    at: "/index/",
    problem: /^the object of row \d+, too$/,
  },
  {
    kind: "an index entry whose origin says otherwise",
    damage: (_, work) => mark(join(work, `index/${rows.a}`), "user.imgfs.origin", `${rows.motd} ${head()}`),
    at: () => `/index/${rows.a}`,
    problem: /^its origin names row \d+, the index row \d+$/,
  },
  {
    kind: "an index entry without an origin",
    damage: (_, work) => mark(join(work, `index/${rows.a}`), "user.imgfs.origin", undefined),
    at: () => `/index/${rows.a}`,
    problem: /^a file without an origin$/,
  },
  {
    kind: "a record of a move of what is no directory",
    damage: (_, work) => writeFileSync(join(work, `moved/${rows.motd}`), ""),
    at: () => `/moved/${rows.motd}`,
    problem: /^row \d+ is no directory$/,
  },
  {
    kind: "a record of a move with something in it",
    damage: (_, work) => writeFileSync(join(work, `moved/${rows.full}`), "x"),
    at: () => `/moved/${rows.full}`,
    problem: /^not an empty file$/,
  },
  {
    kind: "a note of a rename that says nothing",
    damage: (_, work) => symlinkSync("anything", join(work, "rename")),
    at: "/rename",
    problem: /^says nothing of a rename$/,
  },
];

/** Everything about a tree that a check could change by accident. */
function state(folder: string): string {
  return execFileSync("sh", [
    "-c",
    `cd ${folder} && find . -printf '%p %y %m %s %T@ %C@ %n\\n' | sort`,
  ]).toString();
}

describe("check --upper", () => {
  it("calls sound what a mount wrote, with the image and without, and writes nothing", () => {
    const before = state(used) + state(`${used}.work`);
    for (const given of [image, undefined]) {
      const report: UpperReport = checkUpper({ upper: used, image: given });
      expect(report).toMatchObject({ findings: [], notes: [], leftOut: 0, work: `${used}.work` });
      expect(report.objects).toBeGreaterThan(12);
    }
    expect(state(used) + state(`${used}.work`)).toBe(before);
  });

  it.each([...inUpper.map((d) => ({ ...d, of: "upper" })), ...inWork.map((d) => ({ ...d, of: "work" }))])(
    "finds $kind",
    ({ damage, at, problem, of }) => {
      const pair = copyTogether();
      expect(checkUpper({ ...pair, image }).findings).toEqual([]);
      damage(pair.upper, pair.work);
      const before = state(pair.upper) + state(pair.work);
      const { findings } = checkUpper({ ...pair, image });
      const where = `${of === "upper" ? pair.upper : pair.work}${typeof at === "string" ? at : at()}`;
      const found = findings.filter((f) => f.path.startsWith(where) && problem.test(f.problem));
      expect(found, JSON.stringify(findings)).not.toEqual([]);
      expect(state(pair.upper) + state(pair.work)).toBe(before);
    },
  );

  it("tells what the next mount puts in order as notes", () => {
    const { upper, work } = copyTogether();
    writeFileSync(join(work, "tmp/17"), "");
    for (const name of ["format.new", "usage.new", "usage"]) writeFileSync(join(work, name), "");
    symlinkSync("1 2 3/a/b", join(work, "rename"));
    const { findings, notes } = checkUpper({ upper, work, image });
    expect(findings).toEqual([]);
    expect(notes.map(({ path: where }) => where.slice(work.length)).sort()).toEqual([
      "/format.new",
      "/rename",
      "/tmp",
      "/usage",
      "/usage.new",
    ]);
    expect(mount(path, upper, { work }).read("etc/motd")).toBe("hello\n");
    expect(readdirSync(work).sort()).toEqual(["format", "index", "moved", "tmp"]);
  });

  it("tells what a quota counts as made here, and of the image's", () => {
    const { upper, work } = copyTogether();
    mark(join(upper, "etc"), "user.imgfs.copied", undefined);
    const { findings, notes } = checkUpper({ upper, work, image });
    expect(findings).toEqual([]);
    expect(notes).toEqual([
      {
        path: join(upper, "etc"),
        problem:
          "merged with a directory of the image and not marked as a copy: a quota counts it as made here",
      },
    ]);
  });

  it("tells of a count of another upper, which no mount believes", () => {
    const { upper, work } = copyTogether();
    const boot = "01234567-0123-0123-0123-0123456789ab";
    const text = `imgfs usage 1\nupper 0123456789abcdef 1:2 1:3\nboot ${boot}\nbytes 0\ninodes 0\n`;
    writeFileSync(join(work, "usage"), text);
    expect(checkUpper({ upper, work, image })).toMatchObject({
      findings: [],
      notes: [
        { path: join(work, "usage"), problem: "says what another upper costs; the next mount removes it" },
      ],
    });
  });

  it("tells what has lost its names where the workdir is gone, and asks for one that is named", () => {
    const upper = fresh();
    execFileSync("cp", ["-a", used, upper]);
    const { findings, notes, work } = checkUpper({ upper, image });
    expect([findings, work]).toEqual([[], null]);
    expect(notes.map(({ problem }) => problem).join("\n")).toMatch(/no work directory.*\n.*cut off/s);
    expect(() => checkUpper({ upper, work: `${upper}-none`, image })).toThrow(
      /work directory .*no such file/,
    );
  });

  it("refuses what is in use, what is no upper, and changes to another image", () => {
    const upper = fresh();
    const live = mount(path, upper);
    live.mkdir("made");
    live.setattr("etc/motd", { valid: FATTR_MODE, mode: 0o600 });
    expect(() => checkUpper({ upper, image })).toThrow(`upper directory ${upper} is in use by a mount`);
    live.close();
    const plain = fresh();
    mkdirSync(plain);
    expect(() => checkUpper({ upper: plain, image })).toThrow(`${plain}: not an upper directory of imgfs`);
    expect(() => checkUpper({ upper: `${plain}-none`, image })).toThrow(/no such file/);
    const other = Image.stack([imageOf(directory({ x: file("x") }))]);
    expect(() => checkUpper({ upper, image: other })).toThrow(/holds changes to another image/);
    other.close();
    mark(upper, "user.imgfs.upper", "imgfs upper 9:0123456789abcdef");
    expect(() => checkUpper({ upper, image })).toThrow(/a layout this version does not know: imgfs upper 9/);
  });

  it("goes as deep as a tree is, and follows nothing out of it", () => {
    const { upper, work } = copyTogether();
    execFileSync("python3", [
      "-c",
      "import os,sys\nos.chdir(sys.argv[1])\nfor i in range(1500):\n os.mkdir('d'*200); os.chdir('d'*200)\nos.symlink('/', 'out')",
      upper,
    ]);
    symlinkSync("/", join(upper, "out"));
    chmodSync(join(upper, "etc"), 0);
    const report = checkUpper({ upper, work, image });
    expect([report.findings, report.objects > 1500]).toEqual([[], true]);
    execFileSync("rm", ["-rf", upper]);
  });

  it("lists no more than some of each kind", () => {
    const { upper, work } = copyTogether();
    for (let i = 0; i < 60; i++) {
      writeFileSync(join(upper, `f${i}`), "");
      mark(join(upper, `f${i}`), "user.imgfs.origin", "x".repeat(i + 1));
    }
    const report = checkUpper({ upper, work, image });
    expect([report.findings.length, report.leftOut]).toEqual([20, 40]);
    expect(readFileSync(join(upper, "f0"))).toHaveLength(0);
  });
});
