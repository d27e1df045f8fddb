// Whole builds through the compiled program, because the workers run from it.
import { spawn } from "node:child_process";
import { once } from "node:events";
import {
  existsSync,
  mkdirSync,
  mkdtempSync,
  readdirSync,
  readFileSync,
  rmSync,
  statSync,
  writeFileSync,
} from "node:fs";
import { tmpdir } from "node:os";
import { join, resolve } from "node:path";
import { setTimeout as sleep } from "node:timers/promises";
import { gzipSync } from "node:zlib";
import { afterAll, beforeAll, beforeEach, describe, expect, it } from "vitest";
import type { BuildEvent, buildImage as BuildImage } from "../../src/builder/image.js";
import { Image } from "../../src/imgfs/image.js";
import { digest, dockerArchive, gzip, type ImageOptions, Layout, layout } from "../fixtures/oci.js";
import { dir, file, hardlink, sha256Hex, symlink, tar, whiteout } from "../fixtures/tar.js";
import { paths, show } from "./stack.js";

const dist = process.env["IMGFS_DIST"] ?? resolve(import.meta.dirname, "../../dist");
const root = mkdtempSync(join(tmpdir(), "imgfs-image-"));
afterAll(() => rmSync(root, { recursive: true, force: true }));

let buildImage: typeof BuildImage;
beforeAll(async () => {
  const path = join(dist, "builder/image.js");
  if (!existsSync(path)) throw new Error(`${path} is not there: npm run build, or set IMGFS_DIST`);
  ({ buildImage } = (await import(path)) as { buildImage: typeof BuildImage });
});

let folder = "";
let dest = "";
let serial = 0;
beforeEach(() => {
  folder = join(root, `source-${serial}`);
  dest = join(root, `dest-${serial++}`);
});

/** Bytes that do not compress, the same every time. */
function noise(size: number): Buffer {
  const words = new Uint32Array(Math.ceil(size / 4));
  let state = 1;
  for (let i = 0; i < words.length; i++) {
    state = (Math.imul(state, 1664525) + 1013904223) | 0;
    words[i] = state ^ (state >>> 15);
  }
  return Buffer.from(words.buffer, 0, size);
}

const layers = [
  tar(dir("etc"), file("etc/a", "a"), file("etc/b", "b"), file("big", noise(3 << 20))),
  tar(whiteout("etc/b"), file("etc/c", "c"), hardlink("etc/link", "etc/a")),
  tar(symlink("s", "etc"), file("copy", noise(3 << 20))),
  tar(...Array.from({ length: 300 }, (_, i) => file(`many/f${i}`, `${i}`))),
];
const shown = ["big", "copy", "etc/", "etc/a", "etc/c", "etc/link", "many/", "s -> etc"];

const files = (): Record<string, string> =>
  Object.fromEntries(
    readdirSync(dest)
      .sort()
      .map((name) => [name, sha256Hex(readFileSync(join(dest, name)))]),
  );
const refuses = async (source: string, message: RegExp | string): Promise<void> => {
  await expect(buildImage(source, dest)).rejects.toThrow(message);
  expect(existsSync(dest)).toBe(false);
};

describe("a build", () => {
  it("makes a blob for each layer, the index and the config", async () => {
    const made = layout(folder, layers, { compress: gzip });
    const result = await buildImage(`oci:${folder}`, dest);
    const blobs = layers.map((layer) => `${sha256Hex(layer)}.imgfs`);
    expect(readdirSync(dest).sort()).toEqual([...blobs, "config.json", "index.imgfs"].sort());
    expect(result).toMatchObject({
      index: join(dest, "index.imgfs"),
      entries: 308,
      platform: expect.stringMatching("linux/"),
    });
    expect(digest(readFileSync(join(dest, "config.json")))).toBe(result.configDigest);
    expect(existsSync(made.path(result.configDigest))).toBe(true);
    for (const [i, layer] of result.layers.entries()) {
      const { rootDigest, fileSize } = layer.summary;
      expect(layer).toMatchObject({
        diffId: digest(layers[i] as Buffer),
        compression: "gzip",
        reused: false,
      });
      expect(layer.digest).toBe(digest(gzip(layers[i] as Buffer)));
      const blob = Image.open(layer.path);
      expect([blob.rootDigest, blob.source, blob.fileSize]).toEqual([rootDigest, layer.diffId, fileSize]);
      blob.close();
    }
    const tree = show(Image.open(result.index));
    expect(paths(tree).filter((path) => !path.startsWith("many/f"))).toEqual(shown);
    expect(tree.get("etc/a")).toMatchObject({ nlink: 2, text: "a" });
    expect(tree.get("copy")?.text).toBe(noise(65536).toString("latin1"));
  });

  it("gives the same bytes with any number of jobs and from any kind of source", async () => {
    const seen = new Set<string>();
    const build = async (source: string, jobs: number): Promise<void> => {
      await buildImage(source, dest, { jobs });
      const { "config.json": _, ...rest } = files();
      seen.add(JSON.stringify(rest));
      rmSync(dest, { recursive: true });
    };
    layout(folder, layers);
    layout(`${folder}-gzip`, layers, { compress: gzip });
    writeFileSync(`${folder}.tar`, dockerArchive(layers));
    writeFileSync(`${folder}-new.tar`, dockerArchive(layers, { form: "new", compress: gzip }));
    await build(`oci:${folder}`, 1);
    await build(`oci:${folder}`, 4);
    await build(`oci:${folder}-gzip`, 4);
    await build(`docker-archive:${folder}.tar`, 2);
    await build(`docker-archive:${folder}-new.tar`, 2);
    expect(seen.size).toBe(1);
  });

  it("goes by the bytes, not by the media type", async () => {
    const wrong: ImageOptions[] = [
      { mediaType: "application/vnd.oci.image.layer.v1.tar+gzip" },
      { mediaType: "application/vnd.oci.image.layer.v1.tar", compress: gzip },
      { mediaType: "application/vnd.oci.image.layer.v1.tar+zstd", compress: gzip },
    ];
    for (const [i, options] of wrong.entries()) {
      layout(`${folder}-${i}`, layers, options);
      const result = await buildImage(`oci:${folder}-${i}`, dest);
      expect(result.layers[0]?.compression).toBe(options.compress === undefined ? "none" : "gzip");
      rmSync(dest, { recursive: true });
    }
  });

  it("of a bare tar makes a config of its own, the same each time", async () => {
    writeFileSync(`${folder}.tar.gz`, gzip(layers[0] as Buffer));
    const result = await buildImage(`tar:${folder}.tar.gz`, dest, { platform: "linux/arm/v7" });
    expect(JSON.parse(readFileSync(join(dest, "config.json"), "utf8"))).toEqual({
      architecture: "arm",
      os: "linux",
      variant: "v7",
      config: {},
      rootfs: { type: "layers", diff_ids: [digest(layers[0] as Buffer)] },
    });
    expect(result.layers[0]).toMatchObject({ diffId: digest(layers[0] as Buffer), compression: "gzip" });
    expect(result.platform).toBe("linux/arm/v7");
  });

  it("converts a layer that occurs twice once", async () => {
    const empty = tar();
    layout(folder, [empty, layers[0] as Buffer, empty]);
    const result = await buildImage(`oci:${folder}`, dest);
    expect(result.layers.map((layer) => layer.diffId)).toEqual(
      [empty, layers[0] as Buffer, empty].map(digest),
    );
    expect(readdirSync(dest)).toHaveLength(4);
  });

  it("tells what it does as it goes", async () => {
    layout(folder, layers, { compress: gzip });
    const events: BuildEvent[] = [];
    await buildImage(`oci:${folder}`, dest, { jobs: 2, onEvent: (event) => events.push(event) });
    expect(events[0]?.type).toBe("start");
    expect(events.slice(-2).map((event) => event.type)).toEqual(["merge", "done"]);
    for (let layer = 0; layer < layers.length; layer++) {
      const own = events
        .filter((event) => "layer" in event && event.layer === layer)
        .map((event) => event.type);
      expect([own[0], own.at(-1)]).toEqual(["layer-start", "layer-done"]);
    }
  });
});

describe("blobs that are there", () => {
  it("are used again", async () => {
    layout(folder, layers);
    await buildImage(`oci:${folder}`, dest);
    const before = files();
    const times = readdirSync(dest)
      .filter((name) => /^[0-9a-f]{64}/.test(name))
      .map((name) => statSync(join(dest, name)).mtimeMs);
    const again = await buildImage(`oci:${folder}`, dest);
    expect(again.layers.every((layer) => layer.reused)).toBe(true);
    expect(files()).toEqual(before);
    expect(
      readdirSync(dest)
        .filter((name) => /^[0-9a-f]{64}/.test(name))
        .map((name) => statSync(join(dest, name)).mtimeMs),
    ).toEqual(times);
  });

  it("are made anew when they are damaged, cut, or another layer's", async () => {
    layout(folder, layers);
    await buildImage(`oci:${folder}`, dest);
    const before = files();
    const [first, second, third] = layers.map((layer) => join(dest, `${sha256Hex(layer)}.imgfs`)) as [
      string,
      string,
      string,
    ];
    const damaged = readFileSync(first);
    damaged[100] = (damaged[100] as number) ^ 1;
    writeFileSync(first, damaged);
    writeFileSync(second, readFileSync(third));
    writeFileSync(third, readFileSync(third).subarray(0, 6000));
    const again = await buildImage(`oci:${folder}`, dest);
    expect(again.layers.map((layer) => layer.reused)).toEqual([false, false, false, true]);
    expect(files()).toEqual(before);
  });
});

describe("a build that fails", () => {
  it("leaves nothing behind when a digest, a diffID or a size is wrong", async () => {
    const made = layout(folder, layers, { compress: gzip });
    const blob = made.path(digest(gzip(layers[1] as Buffer)));
    const bytes = readFileSync(blob);
    bytes[4] = (bytes[4] as number) ^ 1; // the time in gzip's header: the content stays the same
    writeFileSync(blob, bytes);
    await refuses(
      `oci:${folder}`,
      /^layer 2 \(sha256:[0-9a-f]{64}\): digest mismatch: the bytes are sha256:/,
    );
    const other = digest(tar());
    layout(`${folder}-id`, layers, {
      config: (config) =>
        Object.assign(config["rootfs"] as object, { diff_ids: [other, other, other, other] }),
    });
    await refuses(`oci:${folder}-id`, /^layer \d .*diffID mismatch: the uncompressed bytes are sha256:/);
  });

  it("names the layer and the entry", async () => {
    layout(folder, [layers[0] as Buffer, tar(file("ok"), hardlink("h", "ok/x"))]);
    await refuses(
      `oci:${folder}`,
      /^layer 2 \(sha256:\w+\): entry h: hard link target ok\/x is removed by this layer$/,
    );
    layout(`${folder}-link`, [layers[0] as Buffer, tar(hardlink("h", "never"))]);
    await refuses(
      `oci:${folder}-link`,
      /^layer 2 \(sha256:\w+\): hard link h to never: the target does not exist/,
    );
    const broken = tar(file("a", "1"), file("b", "2"));
    broken[1024 + 3] = 0x58;
    layout(`${folder}-sum`, [broken]);
    await refuses(`oci:${folder}-sum`, /^layer 1 \(sha256:\w+\): bad header checksum at offset 1024$/);
  });

  it("says which compression it cannot read", async () => {
    const xz = Buffer.from([0xfd, 0x37, 0x7a, 0x58, 0x5a, 0x00]);
    layout(folder, [layers[0] as Buffer], { compress: () => xz });
    await refuses(`oci:${folder}`, /^layer 1 \(sha256:\w+\): xz compression is not supported$/);
  });

  it("names damaged and cut gzip data", async () => {
    const packed = gzip(layers[0] as Buffer);
    const damaged = Buffer.from(packed);
    damaged.fill(0x55, 1000, 1200);
    layout(folder, [layers[0] as Buffer], { compress: () => damaged });
    await refuses(`oci:${folder}`, /^layer 1 \(sha256:\w+\): (damaged gzip data|bad header|entry )/);
    layout(`${folder}-cut`, [layers[0] as Buffer], {
      compress: () => packed.subarray(0, packed.length - 100),
    });
    await refuses(`oci:${folder}-cut`, /damaged gzip data: unexpected end of file/);
  });

  it("leaves an older image and foreign files as they were", async () => {
    layout(folder, layers);
    await buildImage(`oci:${folder}`, dest);
    writeFileSync(join(dest, "notes"), "mine");
    const before = files();
    layout(`${folder}-bad`, [tar(file("new")), tar(hardlink("h", "never"))]);
    await expect(buildImage(`oci:${folder}-bad`, dest)).rejects.toThrow("h to never");
    expect(files()).toEqual(before);
  });

  it("removes the folders it made, and no others", async () => {
    mkdirSync(dest);
    layout(folder, [tar(hardlink("h", "never"))]);
    await expect(buildImage(`oci:${folder}`, join(dest, "a/b"))).rejects.toThrow();
    expect(readdirSync(dest)).toEqual([]);
    writeFileSync(`${dest}-file`, "");
    await expect(buildImage(`oci:${folder}`, `${dest}-file`)).rejects.toThrow(`${dest}-file: not a folder`);
  });

  it("by a signal, stops its workers and leaves nothing behind", async () => {
    const large = tar(file("large", noise(48 << 20)));
    layout(folder, [large, layers[0] as Buffer], { compress: (layer) => gzipSync(layer, { level: 1 }) });
    const controller = new AbortController();
    const reason = new Error("interrupted");
    const building = buildImage(`oci:${folder}`, dest, {
      signal: controller.signal,
      onEvent: (event) => event.type === "layer-start" && setTimeout(() => controller.abort(reason), 60),
    });
    await expect(building).rejects.toBe(reason);
    expect(existsSync(dest)).toBe(false);
  });

  it("by SIGKILL, leaves temporaries that the next build removes, and none of a live process", async () => {
    const large = tar(file("large", noise(48 << 20)));
    layout(folder, [large]);
    const script = `import { buildImage } from ${JSON.stringify(join(dist, "builder/image.js"))};
      await buildImage(${JSON.stringify(`oci:${folder}`)}, ${JSON.stringify(dest)}, { onEvent: (e) => console.log(e.type) });`;
    const child = spawn(process.execPath, ["--input-type=module", "-e", script], {
      stdio: ["ignore", "pipe", "inherit"],
    });
    child.stdout.once("data", () => {});
    while (!(existsSync(dest) && readdirSync(dest).some((name) => name.startsWith(".tmp-")))) {
      if (child.exitCode !== null) throw new Error("the build ended too early for this test");
      await sleep(2);
    }
    child.kill("SIGKILL");
    await once(child, "exit");
    expect(readdirSync(dest).filter((name) => !name.startsWith(".tmp-"))).toEqual([]);
    const live = join(dest, `.tmp-${process.ppid}-abcd-other`);
    writeFileSync(live, "");
    layout(`${folder}-next`, [layers[0] as Buffer]);
    await buildImage(`oci:${folder}-next`, dest);
    expect(readdirSync(dest).filter((name) => name.startsWith(".tmp-"))).toEqual([
      live.slice(dest.length + 1),
    ]);
  });
});

describe("gzip as it is found", () => {
  const layer = layers[0] as Buffer;
  const half = layer.length >> 1;
  it.each([
    ["several members", Buffer.concat([gzip(layer.subarray(0, half)), gzip(layer.subarray(half))])],
    [
      "an empty member between",
      Buffer.concat([gzip(layer.subarray(0, half)), gzip(Buffer.alloc(0)), gzip(layer.subarray(half))]),
    ],
    ["zeros after it", Buffer.concat([gzip(layer), Buffer.alloc(3 << 20)])],
  ])("with %s is read, and its digest covers every byte", async (_, packed) => {
    const made = new Layout(folder);
    made.tag(made.image([layer], { compress: () => packed }));
    const result = await buildImage(`oci:${folder}`, dest);
    expect(result.layers[0]).toMatchObject({
      digest: digest(packed),
      diffId: digest(layer),
      compression: "gzip",
    });
  });

  it("with other bytes after it is refused", async () => {
    layout(folder, [layer], {
      compress: (tarBytes) => Buffer.concat([gzip(tarBytes), Buffer.from("garbage")]),
    });
    await refuses(`oci:${folder}`, /damaged gzip data: incorrect header check/);
  });
});
