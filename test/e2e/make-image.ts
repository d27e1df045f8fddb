// The images of the end-to-end tests, made from bytes: no network, no root, the same on every
// machine. `oddLayers` holds every oddity real layers were found to hold; `manyLayers` is a tall
// stack; `userland` is the one that depends on the machine: programs copied from it.
import { execFileSync } from "node:child_process";
import { existsSync, readFileSync, realpathSync } from "node:fs";
import type { Layers } from "./oci-writer.js";
import { layerTar, type Sparse, type TarEntry } from "./tar-writer.js";

const text = (value: string): Buffer => Buffer.from(value);
const raw = (latin1: string): Buffer => Buffer.from(latin1, "latin1");
const file = (name: string | Buffer, content: string, more: Partial<TarEntry> = {}): TarEntry => ({
  name,
  data: text(content),
  ...more,
});
const folder = (name: string, more: Partial<TarEntry> = {}): TarEntry => ({ name, type: "dir", ...more });
const times = <T>(count: number, make: (i: number) => T): T[] =>
  Array.from({ length: count }, (_, i) => make(i));

/** Bytes that do not compress and never change (xorshift). */
export function noise(size: number, seed = 1): Buffer {
  const out = Buffer.alloc(size);
  let state = seed * 2_654_435_761 || 1;
  for (let i = 0; i < size; i++) {
    state ^= state << 13;
    state ^= state >>> 17;
    state ^= state << 5;
    out[i] = state & 0xff;
  }
  return out;
}

/** VFS_CAP_REVISION_2 with one permitted bit and the effective flag: 20 bytes with many zeros. */
const capability = Buffer.from("0100000200240000000000000000000000000000", "hex");

/** Layer 1: an ordinary tree for the layers above to change. */
function baseLayer(): Buffer {
  const sizes = [0, 1, 511, 512, 513, 4095, 4096, 4097, 131_071, 131_072, 131_073, 1_500_000];
  return layerTar([
    folder("./", { mode: 0o755, time: "1600000000" }),
    folder("etc/"),
    file("etc/motd", "hello\n"),
    file("etc/issue", "an ordinary file\n"),
    file("etc/passwd", "root:x:0:0:root:/root:/bin/sh\n", { time: "1500000000" }),
    file("etc/hostname", "base\n"),
    file("etc/debian_version", "12.0\n"),
    file("etc/os-release", "NAME=e2e\n"),
    { name: "etc/localtime", type: "symlink", link: "/usr/share/zoneinfo/UTC" },
    { name: "dev/", type: "dir" },
    { name: "proc/", type: "dir", mode: 0o555 },
    { name: "tmp/", type: "dir", mode: 0o1777 },
    folder("usr/share/doc/curl"),
    file("usr/share/doc/curl/copyright", "free\n"),
    file("usr/share/doc/git/README", "no entry describes the folder of this file\n"),
    folder("usr/share/licenses", { mode: 0o750, uid: 7, gid: 8, time: "1400000000.5" }),
    file("usr/share/licenses/GPL-3", "long\n"),
    folder("app/lodash", { time: "1300000000" }),
    file("app/lodash/lodash.js", "module.exports = {}\n"),
    file("app/lodash/fp/deep.js", "deep\n"),
    ...times(5, (d) => times(30, (f) => file(`srv/many/d${d}/f${f}.txt`, `file ${d}/${f}\n`))).flat(),
    ...times(2500, (i) => file(`srv/wide/entry-${i}`, i % 10 === 0 ? "the same content\n" : `entry ${i}\n`)),
    ...sizes.map((size) => ({ name: `data/size-${size}`, data: noise(size, size + 1) })),
    { name: "data/text", data: text("some text that compresses well\n".repeat(40_000)) },
    { name: "data/copy-of-131073", data: noise(131_073, 131_074) },
    file("opt/linked-below", "two names below\n"),
    { name: "opt/other-name", type: "link", link: "opt/linked-below" },
  ]);
}

const deepPath = times(5, (i) => `deep${i + 1}-`.repeat(30)).join("/");

/** Layer 2: what a builder's overlay diff holds: deletes, overrides, and every special file. */
function specialLayer(): Buffer {
  const s = (name: string): string => `special/${name}`;
  return layerTar([
    file("usr/share/doc/.wh.git", ""),
    file("etc/.wh.motd", ""),
    folder("app/lodash", { mode: 0o700, time: "1650000000.000000001" }),
    file("app/lodash/.wh..wh..opq", ""),
    file("app/lodash/index.js", "module.exports = { replaced: true }\n"),
    folder("usr/share/licenses", { mode: 0o755 }),
    file("usr/share/licenses/.wh..wh..opq", ""),
    file("usr/share/doc/curl", "was a directory\n"),
    file("etc/.wh.issue", ""),
    folder("etc/issue"),
    file("etc/issue/text", "inside\n"),
    file("etc/localtime", "not a link any more\n"),
    file("etc/hostname", "special\n"),
    file("etc/passwd", "root:x:0:0:root:/root:/bin/sh\n", { time: "1000000000", uid: 33, gid: 33 }),
    folder("special/", { time: "1650000000" }),
    file(s("capbin"), "#!/bin/sh\n", { mode: 0o755, xattrs: { "security.capability": capability } }),
    file(s("xattrs"), "x\n", {
      xattrs: {
        "user.comment": text("hello xattr"),
        "user.bin": Buffer.from("00ff00410a3d", "hex"),
        "user.empty": Buffer.alloc(0),
      },
    }),
    folder(s("xattrdir"), { xattrs: { "user.dir": text("yes") } }),
    file(s("hl-a"), "hard\n"),
    { name: s("hl-b"), type: "link", link: s("hl-a") },
    folder(s("sub")),
    { name: s("sub/hl-c"), type: "link", link: `./${s("hl-a")}` },
    { name: s("hl-to-lower"), type: "link", link: "etc/debian_version" },
    { name: s("hl-to-lower-abs"), type: "link", link: "/opt/other-name" },
    file(s("suid"), "s\n", { mode: 0o4755, uid: 1000 }),
    file(s("sgid"), "s\n", { mode: 0o2755, gid: 1000 }),
    folder(s("sticky"), { mode: 0o1777 }),
    folder(s("sgiddir"), { mode: 0o2775, gid: 50 }),
    folder(s("empty")),
    file(s("empty-deep/a/b/c/.keep"), ""),
    file(s("empty-file"), ""),
    file(s("mode000"), "no\n", { mode: 0 }),
    { name: s("abs"), type: "symlink", link: "/etc/os-release" },
    { name: s("rel"), type: "symlink", link: "../etc/os-release", time: "1111111111.111111111" },
    { name: s("dangling"), type: "symlink", link: "nowhere" },
    { name: s("loop"), type: "symlink", link: "loop" },
    { name: s("longtarget"), type: "symlink", link: "x".repeat(1000) },
    { name: s("rawtarget"), type: "symlink", link: raw("to/\xff\xfe"), uid: 5, gid: 6 },
    { name: s("mode-of-symlink"), type: "symlink", link: "rel", mode: 0o640 },
    { name: s("hl-symlink"), type: "link", link: s("rel"), time: "1111111111.111111111" },
    { name: s("null"), type: "char", rdev: [1, 3], mode: 0o666 },
    { name: s("blk"), type: "block", rdev: [7, 99], mode: 0o660, gid: 6 },
    { name: s("bigdev"), type: "char", rdev: [300, 70_000] },
    { name: s("zero-zero"), type: "char", rdev: [0, 0], mode: 0o600 },
    { name: s("fifo"), type: "fifo", mode: 0o622 },
    file(s("n".repeat(255)), "l\n"),
    file(`${s(deepPath)}/file`, "deep\n"),
    file(raw("special/caf\xe9-latin1"), "1\n"),
    file(raw("special/\xff\xfe\x80"), "2\n"),
    file(s("caf\u00e9-utf8"), "3\n"),
    file(s("new\nline"), "4\n"),
    file(s("back\\slash"), "5\n"),
    file(s(" lead and trail "), "6\n"),
    file(s("-dash"), "7\n"),
    file(s("\"quote'"), "8\n"),
    file(raw("special/nfd-e\xcc\x81"), "9\n"),
    file(Buffer.concat([text("special/"), Buffer.alloc(255, 0xe9)]), "a long name that is no text\n"),
    folder(s("own"), { uid: 100_000, gid: 100_000 }),
    file(s("own/u100000"), "u\n", { uid: 100_000, gid: 100_000 }),
    file(s("own/u3000000"), "u\n", { uid: 3_000_000, gid: 3_000_001 }),
    file(s("own/umax"), "u\n", { uid: 4_294_967_294, gid: 4_294_967_294 }),
    file(s("t-old"), "t\n", { time: "-315446215" }),
    file(s("t-older"), "t\n", { time: "-315446215.000000001" }),
    file(s("t-new"), "t\n", { time: "4294967296.123456789" }),
    file(s("t-2446"), "t\n", { time: "15032385535.999999999" }),
    file(s("t-nano"), "t\n", { time: "1577836800.123456789" }),
    file(s("t-zero"), "t\n", { time: "0" }),
    folder(s("ro"), { mode: 0o555 }),
    file(s("ro/f"), "f\n"),
    file(s("twice"), "the first is forgotten\n"),
    file(s("twice"), "the second stays\n", { mode: 0o600 }),
    file(s(".wh"), "no whiteout: the prefix is longer\n"),
    file(s("wh.plain"), "a plain name\n"),
  ]);
}

const sparse = (form: Sparse["form"], seed: number): Sparse => ({
  size: 4 << 20,
  form,
  extents: [0, 1000, 1010, 1012, 1020, 1022].map(
    (block) => [block * 4096, noise(4096, seed + block)] as const,
  ),
});

/** Layer 3: what GNU tar and hand-written builders do: sparse files, markers out of order, both dialects. */
function gnuLayer(): Buffer {
  const entry = (name: string, more: Partial<TarEntry>): TarEntry => ({ name, form: "gnu", ...more });
  return layerTar([
    file("srv/many/.wh.d0", ""),
    file("srv/many/d1/only", "new, and before the marker\n"),
    file("srv/many/d1/.wh..wh..opq", ""),
    file("special/.wh.sgid", ""),
    file("etc/.wh.never-existed", ""),
    file("special/.wh.hl-b", ""),
    { name: "special/sparse-gnu", sparse: sparse("gnu", 10) },
    { name: "special/sparse-0.0", sparse: sparse("0.0", 20) },
    { name: "special/sparse-0.1", sparse: sparse("0.1", 30) },
    { name: "special/sparse-1.0", sparse: sparse("1.0", 40) },
    { name: "special/all-hole", sparse: { size: 8 << 20, form: "1.0", extents: [] } },
    {
      name: "special/hole-then-byte",
      sparse: { size: (1 << 20) + 1, form: "1.0", extents: [[1 << 20, text("!")]] },
    },
    file("special/xa/f", "x\n", {
      xattrs: { "user.pax": text("v".repeat(1500)), "trusted.keep": text("secret") },
    }),
    file("special/capbin2", "#!/bin/sh\n", { mode: 0o755, xattrs: { "security.capability": capability } }),
    entry(`special/${"gnu-long-name-".repeat(15)}`, { data: text("L record\n") }),
    entry("special/gnu-long-link", { type: "symlink", link: "K".repeat(300) }),
    entry("special/gnu-uid", { data: text("u\n"), uid: 3_000_000_000, gid: 2_097_152, time: "-1" }),
    { name: "special/hl-late", type: "link", link: "data/size-4097" },
    { name: "/special/../special/./clamped", data: text("clean path\n") },
    file("etc/hostname", "gnu\n"),
  ]);
}

/** Every oddity, in three layers. */
export const oddLayers = (): Layers => [baseLayer(), specialLayer(), gnuLayer()];

/** A stack of `count` layers in which every one adds, replaces, hides and links. */
export function manyLayers(count: number): Layers {
  return times(count, (i) => {
    const entries: TarEntry[] = [
      file(`stack/layer-${i}`, `made by layer ${i}\n`, { time: String(1_600_000_000 + i) }),
      file("stack/top", `last written by layer ${i}\n`),
      file(`stack/shared/${i % 7}/${i}`, "the same content in every layer\n"),
    ];
    if (i >= 3 && i % 3 === 0) entries.push(file(`stack/.wh.layer-${i - 3}`, ""));
    if (i >= 1 && i % 5 === 1) {
      entries.push({ name: `stack/link-${i}`, type: "link", link: `stack/layer-${i - 1}` });
    }
    if (i % 40 === 39) entries.push(file("stack/shared/3/.wh..wh..opq", ""));
    if (i % 10 === 9) entries.push(folder("stack/shared", { mode: 0o700 + (i % 8), time: `${i}.5` }));
    return layerTar(entries);
  });
}

/** A program of this machine and the libraries it asks for, under the paths it asks for them. */
function programFiles(path: string): Map<string, string> {
  const found = new Map([[path, realpathSync(path)]]);
  const listed = execFileSync("ldd", [realpathSync(path)], { encoding: "utf8" });
  for (const [library] of listed.matchAll(/\/[^\s()]+/g)) {
    if (existsSync(library)) found.set(library, realpathSync(library));
  }
  return found;
}

/** Enough of a userland for `chroot MOUNT /bin/sh -c ...`. */
export function userland(programs: readonly string[]): Buffer {
  const files = new Map(programs.flatMap((path) => [...programFiles(path)]));
  const entries = [...files].map(([path, source]) => ({
    name: path.slice(1),
    data: readFileSync(source),
    mode: 0o755,
  }));
  return layerTar([...entries, { name: "dev/null", type: "char", rdev: [1, 3], mode: 0o666 }]);
}
