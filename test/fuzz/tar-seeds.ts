// Layer tars to start from: between them every form that the reader knows, each small.
import { layerTar, type TarEntry } from "../e2e/tar-writer.js";
import * as t from "../fixtures/tar.js";

const noise = (length: number): Buffer =>
  Buffer.from(Array.from({ length }, (_, i) => (i * 167 + (i >> 3)) & 0xff));

const everyKind: TarEntry[] = [
  { name: "etc/", type: "dir", mode: 0o1777, uid: 3_000_000, gid: 70_000 },
  { name: "etc/passwd", data: Buffer.from("root:x:0:0"), time: "1577836800.123456789" },
  { name: "etc/shadow", type: "link", link: "etc/passwd" },
  { name: "etc/later", type: "link", link: "etc/comes-later" },
  { name: "etc/comes-later", data: noise(700), time: "-315446215.5" },
  { name: "bin", type: "symlink", link: "usr/bin" },
  { name: "dev/null", type: "char", rdev: [1, 3] },
  { name: "dev/disk", type: "block", rdev: [259, 70_000] },
  { name: "dev/pipe", type: "fifo" },
  {
    name: "ping",
    data: noise(600),
    xattrs: { "security.capability": noise(20), "user.empty": Buffer.alloc(0) },
  },
  { name: `${"long/".repeat(30)}name`, data: Buffer.from("x") },
  { name: "l", type: "symlink", link: "t".repeat(150) },
  { name: Buffer.from([0xff, 0xfe, 0x41]), data: Buffer.from("bytes") },
];

const gnu: TarEntry[] = everyKind
  .filter(({ xattrs }) => xattrs === undefined)
  .map((entry) => ({ ...entry, form: "gnu", time: "-5" }));

const extents = [
  [4096, Buffer.from("middle")],
  [10_000, noise(512)],
  [20_000, noise(3)],
  [30_000, noise(3)],
  [40_000, noise(3)],
  [50_000, noise(3)],
] as const;

const sparse = (form: "gnu" | "0.0" | "0.1" | "1.0"): TarEntry => ({
  name: `sparse-${form}`,
  sparse: { size: 100_000, extents, form },
});

/** Archives by name. */
export const tarSeeds: ReadonlyMap<string, Buffer> = new Map([
  ["kinds", layerTar(everyKind)],
  ["gnu", layerTar(gnu)],
  [
    "sparse",
    layerTar([sparse("gnu"), sparse("0.0"), sparse("0.1"), sparse("1.0"), { name: "end", data: noise(5) }]),
  ],
  [
    "whiteouts",
    t.tar(
      t.dir("a"),
      t.file("a/b", "b"),
      t.whiteout("a/c"),
      t.opaque("a"),
      t.whiteout("gone"),
      t.file("a/b/c", "", { type: "5" }),
      t.dir("gone"),
      t.file("x/.wh..wh.plnk/1.2", "hidden"),
      t.hardlink("seen", "x/.wh..wh.plnk/1.2"),
      t.symlink("up", "../../a"),
      t.hardlink("through", "up/b"),
      t.file("/abs/../../over", "o"),
    ),
  ],
  [
    "pax",
    t.tar(
      t.paxHeader({ comment: "x", uid: "7", mtime: "9.5" }, "g"),
      { ...t.file("b", "B".repeat(511)), pax: { path: "long".repeat(50), mtime: "-1.5", gid: "4294967294" } },
      {
        ...t.file("c", "four"),
        pax: { size: "4", "LIBARCHIVE.xattr.user.%41": "AAEC", "SCHILY.xattr.user.a": "\0\n=" },
      },
      t.gnuLong("K", "target".repeat(30)),
      t.gnuLong("L", "gnu".repeat(60)),
      t.symlink("cut", "cut"),
      t.paxHeader({ uid: "8" }, "g"),
      t.file("v7", "old", { format: "v7", type: "\0" }),
      t.file("p", "prefixed", { prefix: "some/prefix" }),
      t.file("n", "256", { uid: t.base256(70_000, 8), mtime: t.base256(-1n, 12), size: t.base256(3n, 12) }),
    ),
  ],
]);
