// The tar reader by itself: what it must not depend on, what it must refuse, and archives of other programs.
import { spawnSync } from "node:child_process";
import { mkdirSync, mkdtempSync, openSync, rmSync, symlinkSync, writeFileSync, writeSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import fc from "fast-check";
import { afterAll, describe, expect, it } from "vitest";
import { HeaderLayout } from "../../src/builder/tar/header.js";
import { paxTime } from "../../src/builder/tar/pax.js";
import { TarReader } from "../../src/builder/tar/reader.js";
import {
  base256,
  type Entry,
  file,
  gnuLong,
  header,
  padded,
  paxHeader,
  tar,
  tarWithoutEnd,
} from "../fixtures/tar.js";

/** Everything the reader reports, as text, with holes marked. */
function read(archive: Uint8Array, cuts: readonly number[] = []): string[] {
  const said: string[] = [];
  let body: Buffer[] = [];
  const reader = new TarReader({
    member: ({ type, path, target, size, mtimeSec, mtimeNsec, uid, xattrs }) =>
      said.push(
        `${type} ${path.toString("latin1")} ${target.toString("latin1")} ${size} ${mtimeSec}.${mtimeNsec} ${uid} ${xattrs.length}`,
      ),
    body: (bytes) => body.push(Buffer.from(bytes)),
    hole: (length) => body.push(Buffer.from(`<${length}>`)),
    end: () => {
      said.push(Buffer.concat(body).toString("latin1"));
      body = [];
    },
  });
  let from = 0;
  for (const cut of [...cuts, archive.length]) {
    // Overwritten after the call: nothing may be kept of a chunk.
    const chunk = Uint8Array.from(archive.subarray(from, cut));
    reader.write(chunk);
    chunk.fill(0xff);
    from = cut;
  }
  reader.finish();
  return said;
}

const sparse: Entry = {
  name: "GNUSparseFile.0/s",
  body: Buffer.concat([padded(Buffer.from("2\n0\n3\n900\n4\n")), Buffer.from("abcdefg")]),
  pax: {
    "GNU.sparse.major": "1",
    "GNU.sparse.minor": "0",
    "GNU.sparse.name": "s",
    "GNU.sparse.realsize": "1000",
  },
};
const mixed = tar(
  paxHeader({ comment: "x" }, "g"),
  file("a", "A".repeat(1300)),
  {
    ...file("b", "B".repeat(511)),
    pax: { path: "long".repeat(100), mtime: "-1.5", "SCHILY.xattr.user.x": "\0\n=" },
  },
  gnuLong("L", "gnu".repeat(60)),
  file("cut", "G"),
  sparse,
  file("empty"),
  file("last", "z".repeat(512)),
);

describe("the reader", () => {
  it("knows a header's layout", () => {
    expect(HeaderLayout.byteLength).toBe(512);
    expect([HeaderLayout.checksum, HeaderLayout.type, HeaderLayout.magic, HeaderLayout.prefix]).toEqual([
      148, 156, 257, 345,
    ]);
  });

  it("reports the same whatever the pieces the archive comes in", () => {
    const whole = read(mixed);
    expect(whole).toHaveLength(12);
    expect(whole.slice(6, 8)).toEqual([expect.stringMatching(/^file s {2}1000 /), "abc<897>defg<96>"]);
    expect(
      read(
        mixed,
        Array.from({ length: mixed.length }, (_, i) => i),
      ),
    ).toEqual(whole);
    fc.assert(
      fc.property(fc.array(fc.nat(mixed.length), { maxLength: 40 }), (cuts) => {
        expect(
          read(
            mixed,
            cuts.sort((a, b) => a - b),
          ),
        ).toEqual(whole);
      }),
      { numRuns: 200 },
    );
  });

  it("ends with members or with an error, never otherwise, whatever byte is changed", () => {
    const source = Uint8Array.from(mixed);
    fc.assert(
      fc.property(fc.nat(source.length - 1), fc.nat(255), fc.nat(source.length), (at, value, length) => {
        const changed = Uint8Array.from(source);
        changed[at] = value;
        try {
          read(changed.subarray(0, length));
        } catch (cause) {
          expect((cause as Error).constructor).toBe(Error);
          expect((cause as Error).message).toMatch(/ at offset \d+$/);
          expect((cause as Error).message).not.toContain("\n");
        }
      }),
      { numRuns: 3000 },
    );
  });

  it("takes times exactly", () => {
    const time = (text: string): unknown => paxTime("mtime", Buffer.from(text));
    expect(time("0")).toEqual({ sec: 0, nsec: 0 });
    expect(time("-0")).toEqual({ sec: 0, nsec: 0 });
    expect(time("-0.000000001")).toEqual({ sec: -1, nsec: 999_999_999 });
    expect(time("9007199254740991.999999999")).toEqual({ sec: 2 ** 53 - 1, nsec: 999_999_999 });
    for (const bad of ["-9007199254740991.5", "", "x", "1e9", "1.-5", "9007199254740993", " 1", "+1"])
      expect(() => time(bad)).toThrow("not a time");
  });

  it("lets a local record take back a global one, and a later global one replace an earlier", () => {
    const [first, , second] = read(
      tarWithoutEnd(
        paxHeader({ uid: "5", path: "global" }, "g"),
        { ...file("own"), pax: { path: "" } },
        paxHeader({ uid: "6" }, "g"),
        file("x"),
      ),
    );
    expect(first).toMatch(/^file own {2}0 0\.0 5 /);
    expect(second).toMatch(/^file global {2}0 0\.0 6 /);
  });
});

describe("what no archive may do", () => {
  const refuses = (archive: Uint8Array, message: RegExp | string): void =>
    expect(() => read(archive)).toThrow(message);
  const pax = (body: string): Uint8Array =>
    Buffer.concat([header({ name: "p", type: "x", body }), padded(Buffer.from(body)), tar(file("f"))]);
  const sparseMap = (map: string, stored = 4, realSize = "100"): Uint8Array =>
    tar({ name: "s", body: "x".repeat(stored), pax: { "GNU.sparse.map": map, "GNU.sparse.size": realSize } });
  const text = (map: string, more = ""): Uint8Array =>
    tar({ ...sparse, body: Buffer.concat([padded(Buffer.from(map)), Buffer.from(more)]) });

  it.each([
    ["a changed header", Buffer.from(tar(file("f"))).fill(0x41, 0, 1), "bad header checksum at offset 0"],
    [
      "a number that is none",
      tar(file("f", "", { uid: Buffer.from("12x4567\0") })),
      "uid is not an octal number at offset 0",
    ],
    ["a number beyond 53 bits", tar(file("f", "", { size: base256(2n ** 60n, 12) })), "size is out of range"],
    ["a negative size", tar(file("f", "", { size: base256(-1, 12) })), "entry f: negative size"],
    ["a negative size by PAX", tar({ ...file("f"), pax: { size: "-1" } }), "entry f: negative size"],
    [
      "an extension header of 2 MiB",
      header({ name: "p", type: "x", size: 2 << 20 }),
      "extension header of 2097152 bytes, at most 1048576 are accepted",
    ],
    [
      "a long name of 2 MiB",
      header({ name: "p", type: "L", size: 2 << 20 }),
      "extension header of 2097152 bytes",
    ],
    ["a record longer than its header", pax("99 path=x\n"), "malformed pax record"],
    ["a record without a length", pax("path=x\n"), "malformed pax record"],
    ["a record of length 0", pax("0 a=b\n"), "malformed pax record"],
    ["a record without a newline", pax("8 path=xy"), "malformed pax record"],
    ["a record without a key", pax("6 =xy\n"), "pax record without a key"],
    ["a NUL in a name", tar({ ...file("f"), pax: { path: "a\0b" } }), "the name holds a NUL byte"],
    [
      "a value that is no number",
      tar({ ...file("f"), pax: { uid: "ten" } }),
      "entry f: pax uid is not a number",
    ],
    [
      "an attribute of 65537 bytes",
      tar({ ...file("f"), pax: { "SCHILY.xattr.user.x": "x".repeat(65537) } }),
      "extended attribute of 65537 bytes",
    ],
    [
      "an attribute without a name",
      tar({ ...file("f"), pax: { "SCHILY.xattr.": "x" } }),
      "extended attribute name",
    ],
    [
      "an extension header at the end",
      tar(paxHeader({ path: "x" })),
      "an extension header without a member at offset 0",
    ],
    ["a header after one zero block", tar(file("f"), Buffer.alloc(512), file("g")), "one zero block alone"],
    [
      "global headers without end",
      Buffer.concat(Array.from({ length: 40 }, (_, i) => paxHeader({ [`k${i}`]: "v".repeat(30000) }, "g"))),
      "global headers of",
    ],
    ["a sparse map out of order", sparseMap("50,2,10,2"), "sparse map out of order or range"],
    ["a sparse map beyond the size", sparseMap("98,4"), "sparse map out of order or range"],
    [
      "a sparse map of other bytes than are stored",
      sparseMap("0,3"),
      "sparse map of 3 bytes for 4 stored bytes",
    ],
    ["a sparse map with words", sparseMap("0,x"), "something else than numbers"],
    ["a sparse map of odd length", sparseMap("0,4,5"), "sparse map of an odd length"],
    ["a sparse size beyond 53 bits", sparseMap("0,4", 4, "99999999999999999"), "is not a number"],
    ["a 1.0 map of a million pieces", text("1000000\n0\n1\n"), "sparse map of more than 262144 pieces"],
    ["a 1.0 map without end", text("9\n0\n1\n".padEnd(512, "1")), "something else than numbers"],
    ["a 1.0 map longer than its body", text("9\n0\n0\n"), "something else than numbers"],
    [
      "sparse format 2.0",
      tar({ ...sparse, pax: { ...(sparse.pax as object), "GNU.sparse.major": "2" } }),
      "unknown sparse format 2.0",
    ],
  ])("%s is refused", (_, archive, message) => refuses(archive, message));
});

describe("archives of GNU tar", () => {
  const folder = mkdtempSync(join(tmpdir(), "imgfs-tar-"));
  afterAll(() => rmSync(folder, { recursive: true, force: true }));
  const long = "l".repeat(150);
  mkdirSync(join(folder, long));
  writeFileSync(join(folder, long, "file"), "in a long folder");
  symlinkSync("t".repeat(200), join(folder, "link"));
  const fd = openSync(join(folder, "sparse"), "w");
  for (const [text, at] of [
    ["begin", 0],
    ["middle", 1 << 20],
    ["end", (4 << 20) - 3],
  ] as const)
    writeSync(fd, text, at);

  it.each(["gnu", "oldgnu", "pax", "posix"])("of format %s, sparse file included, are read", (format) => {
    const run = spawnSync(
      "tar",
      [`--format=${format}`, "--sparse", "-cf", "-", "-C", folder, long, "link", "sparse"],
      { maxBuffer: 1 << 26 },
    );
    const said = read(run.stdout);
    expect(said[0]).toMatch(new RegExp(`^directory ${long}/ `));
    expect(said.slice(1, 3)).toEqual([
      expect.stringMatching(new RegExp(`^file ${long}/file `)),
      "in a long folder",
    ]);
    expect(said[3]).toMatch(new RegExp(`^symlink link ${"t".repeat(200)} `));
    expect(said[4]).toMatch(/^file sparse {2}4194304 /);
    const body = said[5] as string;
    expect(body.startsWith("begin")).toBe(true);
    expect(body.endsWith("end")).toBe(true);
    expect(body).toContain("middle");
    expect(body).toMatch(/<\d{6,}>/);
  });

  it.each(["0.0", "0.1", "1.0"])("of sparse version %s are read", (version) => {
    const run = spawnSync(
      "tar",
      ["--format=pax", "--sparse", `--sparse-version=${version}`, "-cf", "-", "-C", folder, "sparse"],
      { maxBuffer: 1 << 26 },
    );
    const said = read(run.stdout);
    expect(said[0]).toMatch(/^file sparse {2}4194304 /);
    expect(said[1]).toMatch(/^begin\0*<\d+>\0*middle\0*<\d+>\0*end$/);
  });
});

describe("archives of Python", () => {
  it.each(["PAX_FORMAT", "GNU_FORMAT", "USTAR_FORMAT"])("of %s are read", (format) => {
    const script = `import io, sys, tarfile
t = tarfile.open(fileobj=sys.stdout.buffer, mode="w|", format=tarfile.${format})
for name, size, uid, mtime in (("a", 3, 7, 12), ("d" * 90 + "/" + "e" * 60, 513, 8, 13)):
    i = tarfile.TarInfo(name); i.size = size; i.uid = uid; i.mtime = mtime
    t.addfile(i, io.BytesIO(b"x" * size))
t.close()`;
    const run = spawnSync("python3", ["-c", script]);
    expect(read(run.stdout)).toEqual([
      "file a  3 12.0 7 0",
      "xxx",
      `file ${"d".repeat(90)}/${"e".repeat(60)}  513 13.0 8 0`,
      "x".repeat(513),
    ]);
  });
});
