// Layers that are placed under a directory: by the tree that comes of them, by their keys, and by what is refused.
import { existsSync, mkdtempSync, readdirSync, rmSync, writeFileSync } from "node:fs";
import { createServer } from "node:http";
import type { AddressInfo } from "node:net";
import { tmpdir } from "node:os";
import { join, resolve } from "node:path";
import { afterAll, beforeAll, beforeEach, describe, expect, it } from "vitest";
import type { Name } from "../../src/base/bytes.js";
import type { Digest } from "../../src/base/digest.js";
import type { flatten as Flatten } from "../../src/builder/flatten.js";
import type { buildImage as BuildImage, BuildResult } from "../../src/builder/image.js";
import { checkImage } from "../../src/imgfs/check.js";
import { Image } from "../../src/imgfs/image.js";
import { isLayerOf, layerKey } from "../../src/imgfs/layer-key.js";
import { baseDirectoryKey, baseDirectoryOf } from "../../src/oci/base-directory.js";
import { digest, gzip, layout } from "../fixtures/oci.js";
import { dir, file, hardlink, opaque, sha256Hex, symlink, tar, whiteout } from "../fixtures/tar.js";
import { paths, type Shown, show } from "./stack.js";

const dist = process.env["IMGFS_DIST"] ?? resolve(import.meta.dirname, "../../dist");
const root = mkdtempSync(join(tmpdir(), "imgfs-base-"));
afterAll(() => rmSync(root, { recursive: true, force: true }));

let buildImage: typeof BuildImage;
let flatten: typeof Flatten;
beforeAll(async () => {
  ({ buildImage } = (await import(join(dist, "builder/image.js"))) as { buildImage: typeof BuildImage });
  ({ flatten } = (await import(join(dist, "builder/flatten.js"))) as { flatten: typeof Flatten });
});

let dest = "";
let serial = 0;
beforeEach(() => {
  dest = join(root, `dest-${serial}`);
});

type Placed = readonly [layer: Buffer, base?: string];

/** A layout of layers, each with its base directory. */
function made(
  layers: readonly Placed[],
  change: (layer: Record<string, unknown>, i: number) => void = () => {},
) {
  return layout(
    join(root, `layout-${serial++}`),
    layers.map(([layer]) => layer),
    {
      compress: gzip,
      manifest: (manifest) => {
        (manifest["layers"] as Record<string, unknown>[]).forEach((layer, i) => {
          const base = layers[i]?.[1];
          if (base !== undefined) layer["annotations"] = { [baseDirectoryKey]: base };
          change(layer, i);
        });
      },
    },
  );
}

const build = (...layers: Placed[]): Promise<BuildResult> => buildImage(`oci:${made(layers).folder}`, dest);
const shown = async (...layers: Placed[]): Promise<Map<string, Shown>> =>
  show(Image.open((await build(...layers)).index));

const below = tar(
  dir("home", { mode: 0o711, uid: 5, mtime: 100 }),
  dir("home/me", { mode: 0o700, uid: 1000, gid: 1001, mtime: 200 }),
  file("home/me/a", "lower a"),
  file("home/me/b", "lower b"),
  file("etc/passwd", "root"),
);

describe("a layer with a base directory", () => {
  it("has its entries, whiteouts and links there; the way there is as the layers below have it", async () => {
    const tree = await shown(
      [below],
      [
        tar(
          whiteout("b"),
          file("c", "c"),
          hardlink("to-c", "c"),
          hardlink("to-a", "/a"),
          hardlink("before", "sub/after"),
          file("sub/after", "after"),
          symlink("out", "/etc"),
          hardlink("through", "out/passwd"),
          file("../../../../up", "up"),
        ),
        "/home/me",
      ],
    );
    expect(paths(tree)).toEqual(
      [
        "etc/",
        "etc/passwd",
        "home/",
        ...["", "a", "before", "c", "out -> /etc", "sub/", "sub/after", "through", "to-a", "to-c", "up"].map(
          (name) => `home/me/${name}`,
        ),
      ].sort(),
    );
    const of = (path: string): Shown => tree.get(path) as Shown;
    expect(of("home")).toMatchObject({ mode: 0o711, uid: 5, sec: 100 });
    expect(of("home/me")).toMatchObject({ mode: 0o700, uid: 1000, gid: 1001, sec: 200 });
    for (const [one, other, text] of [
      ["to-c", "c", "c"],
      ["to-a", "a", "lower a"],
      ["before", "sub/after", "after"],
    ]) {
      expect(of(`home/me/${one}`)).toMatchObject({ row: of(`home/me/${other}`).row, text, nlink: 2 });
    }
    // A symlink in the layer means what it means in the container.
    expect(of("home/me/through").row).toBe(of("etc/passwd").row);
  });

  it("describes the directory by its own root, and hides what was there by its own marker", async () => {
    const described = await shown(
      [below],
      [tar(dir(".", { mode: 0o755, uid: 7 }), opaque("."), file("x")), "home/me"],
    );
    expect(paths(described)).toEqual(["etc/", "etc/passwd", "home/", "home/me/", "home/me/x"]);
    expect(described.get("home/me")).toMatchObject({ mode: 0o755, uid: 7 });
    const hidden = await shown([below], [tar(opaque(".")), "home/me"]);
    expect(paths(hidden)).toEqual(["etc/", "etc/passwd", "home/", "home/me/"]);
    expect(hidden.get("home/me")).toMatchObject({ mode: 0o700, uid: 1000 });
  });

  it("may be empty, may lie above others like it, and is plain where the directory is the root", async () => {
    const plain = paths(await shown([below]));
    expect(paths(await shown([below], [tar(), "home/me"]))).toEqual(plain);
    const three = await shown([below], [tar(dir("d")), "home/me"], [tar(file("f")), "home/me/d"]);
    expect(paths(three)).toContain("home/me/d/f");
    const [, top] = (await build([below], [tar(file("f")), "/./x/.."])).layers;
    expect(top?.path).toBe(join(dest, `${sha256Hex(tar(file("f")))}.imgfs`));
  });

  it("has a blob of its own beside the plain one's, and the files are sound, also as one", async () => {
    const layer = tar(file("f", "f"), dir("d"));
    const { layers, index } = await build(
      [below],
      [layer],
      [layer, "home/me"],
      [layer, "home"],
      [layer, "home/me"],
    );
    const names = layers.map(({ path }) => path);
    expect(new Set(names).size).toBe(4);
    expect(names[2]).toBe(names[4]);
    for (const { diffId } of layers.slice(1)) expect(diffId).toBe(digest(layer));
    expect(readdirSync(dest).length).toBe(6);
    expect(checkImage(index, { data: true }).findings).toEqual([]);
    for (const path of names) expect(checkImage(path, { data: true }).findings).toEqual([]);
    expect(paths(show(Image.open(index)))).toEqual(
      expect.arrayContaining(["f", "home/f", "home/me/f", "home/me/d/"]),
    );
    await flatten(index, join(dest, "flat"));
    expect(paths(show(Image.open(join(dest, "flat"))))).toEqual(paths(show(Image.open(index))));
    const again = await build([below], [layer], [layer, "home/me"], [layer, "home"], [layer, "home/me"]);
    expect(again.layers.every(({ reused }) => reused)).toBe(true);

    const at = (path: string): Image => Image.open(path);
    for (const [i, path] of names.entries()) {
      const image = at(path as string);
      const isIt = isLayerOf(image, digest(layer) as Digest);
      image.close();
      expect(isIt).toBe(i > 0);
    }
    // The config of another image, whose layer is another one.
    writeFileSync(
      join(dest, "config.json"),
      JSON.stringify({
        os: "linux",
        architecture: "amd64",
        rootfs: { type: "layers", diff_ids: [below, layer, tar(), layer, layer].map(digest) },
      }),
    );
    await expect(flatten(index, join(dest, "other"))).rejects.toThrow(
      `config.json: layer 3 is ${digest(tar())}, in the index `,
    );
  });

  it("is refused without the directory below it, naming the layer, and leaves nothing", async () => {
    const links = tar(symlink("link", "home"), file("plain"), dir("away"), dir("away/x"));
    const layer = tar(file("f"));
    const fails = async (base: string, ...lower: Placed[]): Promise<void> => {
      const number = lower.length + 1;
      await expect(build(...lower, [layer, base])).rejects.toThrow(
        new RegExp(
          `^layer ${number} \\(${digest(gzip(layer))}\\): base directory not found in parent layer: ${base}$`,
        ),
      );
      expect(existsSync(dest)).toBe(false);
    };
    await fails("home");
    await fails("home/you", [below]);
    await fails("link/me", [below], [links]);
    await fails("link", [below], [links]);
    await fails("plain", [links]);
    await fails("away/x", [links], [tar(whiteout("away"))]);
    await fails("away/x", [links], [tar(opaque("away"))]);
    await fails("etc", [tar(dir("home"))], [below, "home"]);
  });

  it("has a path that is no path refused when the image is opened", async () => {
    const of = (text: string): Name | undefined =>
      baseDirectoryOf({ annotations: { [baseDirectoryKey]: text } });
    expect(["", "/", "..", "//./", "a/../.."].map(of)).toEqual([
      undefined,
      undefined,
      undefined,
      undefined,
      undefined,
    ]);
    expect(["/a/b/", "a//b", "../a/./b", "a/x/../b"].map(of)).toEqual(["a/b", "a/b", "a/b", "a/b"]);
    expect(of("ä")).toBe("\xc3\xa4");
    expect(() => of("a/.wh.b")).toThrow(
      "base directory a/.wh.b: the name of a whiteout is that of no directory",
    );
    expect(() => of("a\0\n")).toThrow("base directory a\\x00\\x0a: a name with a NUL");
    expect(() => of(`a/${"b".repeat(256)}`)).toThrow("name of 256 bytes, at most 255 are accepted");
    expect(() => of("a/".repeat(2100))).toThrow("path of 4199 bytes, at most 4095 are accepted");
    await expect(build([below], [tar(), "x/.wh.y"])).rejects.toThrow(
      /^layer 2 \(sha256:\w+\): base directory x/,
    );
    const deep = "d/".repeat(2000);
    await expect(build([tar(dir(deep))], [tar(file("e/".repeat(100))), deep])).rejects.toThrow(
      /^layer 2 \(sha256:\w+\): entry .*: path of \d+ bytes, at most 4095 are accepted/,
    );
  });

  it("has a key that is of the diffID and the path, and pinned", () => {
    const diffId = `sha256:${"ab".repeat(32)}` as Digest;
    expect(layerKey(diffId, undefined)).toBe(diffId);
    const key = sha256Hex(
      Buffer.concat([Buffer.from("imgfs base directory\0"), Buffer.alloc(32, 0xab), Buffer.from("a/b")]),
    );
    expect(layerKey(diffId, "a/b" as Name)).toBe(`sha256:${key}`);
  });
});

describe("a layer that a layout leaves to its URLs", () => {
  const layer = tar(file("f", "fetched"));
  const bytes = gzip(layer);
  let at = "";
  const server = createServer((request, response) => {
    if (request.url === "/good") response.end(bytes);
    else if (request.url === "/bad") response.end(Buffer.from(bytes).fill(7, 9, 10));
    else if (request.url === "/short") response.end(bytes.subarray(1));
    else response.writeHead(404).end();
  });
  beforeAll(async () => {
    await new Promise<void>((listening) => server.listen(0, "127.0.0.1", listening));
    at = `http://127.0.0.1:${(server.address() as AddressInfo).port}`;
  });
  afterAll(() => {
    server.closeAllConnections();
    server.close();
  });

  const left = async (...urls: string[]): Promise<BuildResult> => {
    const image = made(
      [[below], [layer, "home"]],
      (each, i) => void (i === 1 && Object.assign(each, { urls })),
    );
    rmSync(image.path(digest(bytes)));
    return buildImage(`oci:${image.folder}`, dest);
  };

  it("comes from the first that has it, and is checked", async () => {
    const { index } = await left("file:///etc/passwd", `${at}/none`, `${at}/good`);
    expect(show(Image.open(index)).get("home/f")?.text).toBe("fetched");
  });

  it("is refused with another digest or size, or where it is nowhere, and leaves nothing", async () => {
    const subject = `layer 2 \\(${digest(bytes)}\\): `;
    await expect(left(`${at}/bad`)).rejects.toThrow(new RegExp(`^${subject}digest mismatch: the bytes are `));
    await expect(left(`${at}/short`)).rejects.toThrow(
      new RegExp(
        `^${subject}${at}/short: size mismatch: it has ${bytes.length - 1} bytes, the manifest says ${bytes.length}$`,
      ),
    );
    await expect(left(`${at}/none`, `${at}/gone`)).rejects.toThrow(
      new RegExp(`^${subject}${at}/gone: not found$`),
    );
    expect(existsSync(dest)).toBe(false);
  });
});
