// The image of the conformance tests: small enough to be compared whole many times a second, with one of everything
// that merging and copy-up treat in a way of its own.

import { noise } from "../e2e/make-image.js";
import type { Layers } from "../e2e/oci-writer.js";
import { layerTar, type TarEntry } from "../e2e/tar-writer.js";

const file = (name: string | Buffer, data: string | Buffer, more: Partial<TarEntry> = {}): TarEntry => ({
  name,
  data: typeof data === "string" ? Buffer.from(data) : data,
  time: "1400000000.5",
  ...more,
});
const folder = (name: string, more: Partial<TarEntry> = {}): TarEntry => ({
  name,
  type: "dir",
  time: "1300000000.000000001",
  ...more,
});
const range = (count: number): number[] => Array.from({ length: count }, (_, i) => i);
const capability = Buffer.from("0100000200240000000000000000000000000000", "hex");

/** The layers; without `owners` everything is root's and no device, for a namespace that has no other ids. */
export function conformanceLayers(owners = true): Layers {
  return entries().map((layer) =>
    layerTar(
      owners
        ? layer
        : layer.flatMap(({ uid: _uid, gid: _gid, ...entry }) => (entry.type === "char" ? [] : [entry])),
    ),
  );
}

const entries = (): TarEntry[][] => [
  [
    folder("./", { mode: 0o755 }),
    folder("etc", { mode: 0o750, uid: 1, gid: 2 }),
    file("etc/motd", "hello\n", { mode: 0o640, uid: 7, gid: 8 }),
    file("etc/gone", "whited out above\n"),
    folder("etc/deep/er", {}),
    file("etc/deep/er/file", "deep\n"),
    folder("opaque"),
    file("opaque/below", "hidden\n"),
    folder("opaque/sub"),
    file("opaque/sub/file", "hidden too\n"),
    folder("wide"),
    ...range(150).map((i) => file(`wide/wide-${String(i).padStart(4, "0")}`, `entry ${i}\n`)),
    folder("open", { mode: 0o1777 }),
    file("open/a", "in a sticky folder\n", { uid: 1000, gid: 1000 }),
    file("open/b", "of root\n", { mode: 0o666 }),
    folder("user", { mode: 0o755, uid: 1000, gid: 1000 }),
    file("user/f1", "mine\n", { uid: 1000, gid: 1000, mode: 0o600 }),
    folder("user/d", { uid: 1000, gid: 1000 }),
    folder("setgid", { mode: 0o2775, gid: 1000 }),
    file("setgid/f", "x\n", { gid: 1000, mode: 0o2775 }),
    folder("links"),
    file("links/one", "two names in one layer\n"),
    { name: "links/two", type: "link", link: "links/one" },
    file("links/three", "to be linked from above\n", { mode: 0o755 }),
    folder("data"),
    ...[0, 1, 4095, 4096, 4097, 131_073].map((size) => file(`data/${size}`, noise(size, size + 1))),
    file("data/large", noise(5_000_000, 5)),
    folder("empty"),
  ],
  [
    file("etc/.wh.gone", ""),
    folder("opaque", { mode: 0o711 }),
    file("opaque/.wh..wh..opq", ""),
    file("opaque/above", "shown\n"),
    { name: "links/from-above", type: "link", link: "links/three" },
    folder("other"),
    { name: "other/far", type: "link", link: "links/three" },
    { name: "links/sym", type: "symlink", link: "one", time: "1200000000.25" },
    { name: "links/hard-sym", type: "link", link: "links/sym" },
    { name: "links/dangling", type: "symlink", link: "nowhere", uid: 5 },
    { name: "links/to-folder", type: "symlink", link: "../etc" },
    { name: "fifo", type: "fifo", mode: 0o622 },
    { name: "other/fifo", type: "link", link: "fifo" },
    { name: "null", type: "char", rdev: [1, 3], mode: 0o666 },
    file("suid", "s\n", { mode: 0o4755 }),
    file("sgid", "s\n", { mode: 0o2755, gid: 1000 }),
    file("capable", "c\n", { mode: 0o755, xattrs: { "security.capability": capability } }),
    file("noted", "n\n", { xattrs: { "user.note": Buffer.from("kept"), "user.empty": Buffer.alloc(0) } }),
    folder("marked", { xattrs: { "user.dir": Buffer.from("yes") } }),
    file("marked/f", "f\n"),
  ],
  [
    {
      name: "data/sparse",
      time: "1100000000",
      sparse: {
        size: 1 << 20,
        form: "1.0",
        extents: [
          [65_536, noise(4096, 9)],
          [524_288, noise(8192, 10)],
        ],
      },
    },
    { name: "data/hole", sparse: { size: 200_000, form: "1.0", extents: [] } },
    folder("odd"),
    file(Buffer.from("odd/caf\xe9", "latin1"), "1\n"),
    file(Buffer.from("odd/\xff\xfe", "latin1"), "2\n"),
    file(`odd/${"n".repeat(255)}`, "3\n"),
    file("odd/new\nline", "4\n"),
    file("odd/ lead", "5\n"),
    file("odd/.wh", "6\n"),
    file("odd/mode000", "7\n", { mode: 0 }),
    file("odd/negative", "8\n", { time: "-315446215.5" }),
    file("odd/future", "9\n", { time: "4294967296.123456789" }),
    file("odd/owner", "10\n", { uid: 3_000_000_000, gid: 3_000_000_001 }),
    folder("ro", { mode: 0o555 }),
    file("ro/f", "f\n", { mode: 0o444 }),
  ],
];
