// The bytes of known layers and of their index, pinned. A change here is a change of the format: see FORMAT.md,
// "Versions". Never regenerate the digests without one.
import { readFileSync } from "node:fs";
import { join } from "node:path";
import { describe, expect, it } from "vitest";
import { sha256 } from "../../src/base/digest.js";
import { flattenImage } from "../../src/imgfs/flatten.js";
import { Image } from "../../src/imgfs/image.js";
import { mergeLayers } from "../../src/imgfs/merge.js";
import { InodeType } from "../../src/imgfs/tree.js";
import {
  device,
  directory,
  file,
  implied,
  link,
  symlink,
  temporary,
  whiteout,
  writeLayer,
  xattr,
} from "./support.js";

const golden = JSON.parse(readFileSync(join(import.meta.dirname, "../golden/format.json"), "utf8")) as object;

describe("the format", () => {
  it("gives the bytes it always gave", async () => {
    const shared = file(Buffer.alloc(5000, "shared "));
    const lower = writeLayer(
      directory({
        etc: directory({
          passwd: file("root:x:0:0::/root:/bin/sh\n"),
          "os-release": symlink("../usr/lib/os-release"),
        }),
        usr: directory(
          {
            lib: directory({ "libc.so.6": shared, "libm.so.6": shared, sparse: file([8192, "data", 4096]) }),
          },
          { uid: 1, gid: 2, mtimeSec: -1, mtimeNsec: 5 },
        ),
        dev: implied({ null: device(InodeType.char, 0x103, { mode: 0o666 }) }),
        ping: file("ping", {
          mode: 0o755,
          xattrs: [xattr("security.capability", Buffer.from([1, 0, 0, 2, 255]))],
        }),
        old: file("old", { mtimeSec: 2 ** 34 }),
      }),
      undefined,
      sha256(Buffer.from("lower")),
    );
    const upper = writeLayer(
      directory({
        etc: implied({ passwd: whiteout, shadow: file("root:*\n", { mode: 0o600 }) }),
        usr: directory({ again: file(Buffer.alloc(5000, "shared ")) }, { opaque: true }),
        hard: link("ping"),
      }),
      undefined,
      sha256(Buffer.from("upper")),
    );
    const images = [lower, upper].map(({ path }) => Image.open(path));
    const index = mergeLayers(images);
    const stacked = Image.stack([lower.path, upper.path]);
    const flat = temporary();
    const { rootDigest, treeRoot } = await flattenImage(stacked, flat, {
      config: Buffer.from('{"os":"linux"}'),
    });
    expect(treeRoot).toBe(stacked.treeRoot);
    stacked.close();
    const actual = {
      lower: { file: sha256(readFileSync(lower.path)), ...lower.summary },
      upper: { file: sha256(readFileSync(upper.path)), ...upper.summary },
      index: { file: sha256(index), length: index.length },
      flat: { file: sha256(readFileSync(flat)), rootDigest, treeRoot },
    };
    expect(actual).toEqual(golden);
    for (const image of images) image.close();
  });
});
