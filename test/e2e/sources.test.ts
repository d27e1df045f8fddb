// One image in every form that the tools of Debian write: each gives the same blobs and the same index.
import { createHash } from "node:crypto";
import { existsSync, mkdirSync, readdirSync, readFileSync, rmSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { beforeAll, describe, expect, it } from "vitest";
import { type Descriptor, digest, dockerArchive, gzip, Layout, layout } from "../fixtures/oci.js";
import { dir, file, hardlink, sha256Hex, tar, whiteout } from "../fixtures/tar.js";
import { noise } from "./make-image.js";
import {
  build,
  hasCommand,
  imgfs,
  noCommand,
  scratch,
  scratchDirectory,
  shell,
  succeed,
  titleOf,
} from "./mounted.js";

const needs = (...tools: readonly string[]): string | undefined =>
  noCommand ?? tools.map((tool) => (hasCommand(tool) ? undefined : `${tool} is missing`)).find(Boolean);

const layers = [
  tar(dir("etc"), file("etc/a", "a"), file("etc/b", "b"), file("big", noise(1 << 20))),
  tar(whiteout("etc/b"), file("etc/c", "c"), hardlink("etc/link", "etc/a")),
  tar(...Array.from({ length: 300 }, (_, i) => file(`many/f${i}`, `${i}`))),
  tar(file("copy", noise(1 << 20))),
];

/** Digests of the blobs and the index; the config is not everywhere the same bytes. */
function filesOf(image: string): Record<string, string> {
  const names = readdirSync(image).sort();
  expect(names).toContain("config.json");
  return Object.fromEntries(
    names
      .filter((name) => name !== "config.json")
      .map((name) => [name, sha256Hex(readFileSync(join(image, name)))]),
  );
}

describe.skipIf(noCommand)(titleOf("an archive that is compressed as a whole", noCommand), () => {
  const made = (): Buffer => tar(...layout(scratch("layout"), layers, { compress: gzip }).members());
  let expected: Record<string, string>;
  beforeAll(async () => {
    expected = filesOf(await build(`oci:${layout(scratch("layout"), layers).folder}`));
  });

  it.each([
    ["oci-archive", made],
    ["docker-archive", () => dockerArchive(layers)],
    ["docker-archive", () => dockerArchive(layers, { form: "old" })],
  ])("is unpacked once, and nothing of it stays: %s", async (kind, make) => {
    const path = scratch("archive");
    writeFileSync(path, make());
    await shell(`gzip -k '${path}'; zstd -q '${path}'`);
    for (const source of [`${kind}:${path}.gz`, `${kind}:${path}.zst`, `${path}.gz`]) {
      expect(filesOf(await build(source))).toEqual(expected);
    }
  });

  it("that holds a layer is a layer", async () => {
    const path = scratch("layer.tar");
    writeFileSync(path, layers[2] as Buffer);
    await shell(`gzip -k '${path}'; zstd -q '${path}'`);
    const layer = filesOf(await build(`tar:${path}`));
    for (const source of [path, `${path}.gz`, `${path}.zst`])
      expect(filesOf(await build(source))).toEqual(layer);
  });

  it("and damaged, cut, or of another compression is one line, and leaves nothing", async () => {
    const path = scratch("archive.gz");
    const whole = gzip(made());
    const damaged = Buffer.from(whole);
    damaged.fill(0x55, whole.length >> 1, (whole.length >> 1) + 500);
    const xz = Buffer.from("fd377a585a000004", "hex");
    for (const bytes of [damaged, whole.subarray(0, whole.length - 100), gzip(Buffer.from("hello")), xz]) {
      writeFileSync(path, bytes);
      for (const source of [path, `oci-archive:${path}`, `docker-archive:${path}`]) {
        const dest = scratch("image");
        const { code, stderr } = await imgfs("build", source, dest);
        expect([code, stderr]).toEqual([
          1,
          expect.stringMatching(/^imgfs: build [^\n]*archive\.gz[^\n]+\n$/),
        ]);
        expect(existsSync(dest)).toBe(false);
      }
    }
  });
});

describe.skipIf(noCommand)(titleOf("a layout with what is seldom in one", noCommand), () => {
  it("layers by sha512, in their descriptors, empty or twice, gives the blobs of any other", async () => {
    const nothing = Buffer.alloc(0);
    const stack = [layers[0] as Buffer, layers[2] as Buffer, nothing, tar(), tar(), layers[3] as Buffer];
    const plain = await build(`oci:${layout(scratch("layout"), stack).folder}`);
    const folder = scratch("layout");
    const made = new Layout(folder);
    mkdirSync(join(folder, "blobs/sha512"));
    const change = (document: Record<string, unknown>): void => {
      for (const [i, descriptor] of (document["layers"] as Descriptor[]).entries()) {
        const bytes = readFileSync(made.path(descriptor.digest));
        if (i === 1) Object.assign(descriptor, { data: bytes.toString("base64") });
        if (i !== 0 && i !== 5) continue;
        descriptor.digest = `sha512:${createHash("sha512").update(bytes).digest("hex")}`;
        writeFileSync(made.path(descriptor.digest), bytes);
      }
    };
    const compress = (layer: Buffer): Buffer =>
      layer === stack[0] || layer.length === 0 ? layer : gzip(layer);
    made.tag(made.image(stack, { compress, manifest: change }), "x");
    rmSync(made.path(digest(gzip(stack[1] as Buffer))));
    expect(filesOf(await build(folder))).toEqual(filesOf(plain));

    const damaged = readFileSync(made.path(made.manifests[0]?.digest as string), "utf8");
    const name = /sha512:[0-9a-f]{128}/.exec(damaged)?.[0] as string;
    writeFileSync(made.path(name), Buffer.concat([stack[0] as Buffer]).fill(0x20, 100_000, 100_001));
    const { code, stderr } = await imgfs("build", folder, scratch("image"));
    expect([code, stderr]).toEqual([
      1,
      expect.stringMatching(`layer 1 \\(${name}\\): digest mismatch: the bytes are sha512:`),
    ]);
  });
});

const noSkopeo = needs("skopeo");
describe.skipIf(noSkopeo)(titleOf("what skopeo writes", noSkopeo), () => {
  const skopeo = (...args: readonly string[]): Promise<string> =>
    succeed("skopeo", ["--insecure-policy", ...args]);

  it("is one image in all its forms", async () => {
    const source = `oci:${layout(scratch("layout"), layers, { compress: gzip }).folder}:latest`;
    const expected = filesOf(await build(source));
    const place = scratchDirectory("forms");
    const forms: [target: string, source: string, ...options: string[]][] = [
      [`oci:${place}/zstd:x`, `${place}/zstd:x`, "--dest-compress-format", "zstd"],
      [`oci-archive:${place}/oci.tar`, `${place}/oci.tar`],
      [
        `oci-archive:${place}/named.tar:example.com/x/y:1`,
        `oci-archive:${place}/named.tar:example.com/x/y:1`,
      ],
      [`docker-archive:${place}/docker.tar:x:1`, `${place}/docker.tar:x:1`],
      [`docker-archive:${place}/bare.tar`, `docker-archive:${place}/bare.tar`],
      [`dir:${place}/dir`, `${place}/dir`],
      [`dir:${place}/plain`, `dir:${place}/plain`, "--dest-decompress"],
      [`dir:${place}/schema2`, `${place}/schema2`, "--format", "v2s2"],
    ];
    for (const [target, form, ...options] of forms) {
      await skopeo("copy", "-q", ...options, source, target);
      expect([target, filesOf(await build(form))]).toEqual([target, expected]);
    }
  });

  it("keeps all platforms of an index, and each can be chosen", async () => {
    const made = new Layout(scratch("layout"));
    const platform = (architecture: string, layer: Buffer): ReturnType<Layout["image"]> => ({
      ...made.image([layer], { architecture }),
      platform: { os: "linux", architecture },
    });
    made.tag(
      made.index([platform("amd64", layers[0] as Buffer), platform("arm64", layers[2] as Buffer)]),
      "x",
    );
    const place = scratchDirectory("forms");
    for (const target of [`oci-archive:${place}/oci.tar:x`, `dir:${place}/dir`, `oci:${place}/oci:x`]) {
      await skopeo("copy", "-q", "--all", `oci:${made.folder}:x`, target);
      for (const [architecture, layer] of [
        ["amd64", layers[0]],
        ["arm64", layers[2]],
      ] as const) {
        const files = filesOf(await build(target, "--platform", `linux/${architecture}`));
        expect(Object.keys(files)).toContain(`${sha256Hex(layer as Buffer)}.imgfs`);
      }
    }
  });
});

const noBuildah = needs("buildah") ?? (process.getuid?.() === 0 ? undefined : "not root");
describe.skipIf(noBuildah)(titleOf("what buildah writes", noBuildah), () => {
  it("is one image in all its forms", async () => {
    const place = scratchDirectory("buildah");
    await shell(`
      cd '${place}'
      b() { buildah --root "$PWD/root" --runroot "$PWD/run" --storage-driver vfs "$@"; }
      mkdir -p tree/etc; echo hi > tree/etc/hi; ln tree/etc/hi tree/etc/link
      c=$(b from scratch); b copy -q "$c" tree / > copied
      b commit -q "$c" img > id; b rm "$c" > removed
      for target in oci-archive:$PWD/oci.tar:x/y:1 docker-archive:$PWD/docker.tar:x/y:1 dir:$PWD/dir oci:$PWD/layout:t; do
        b push -q img "$target"
      done
      b rmi -a > removed`);
    const expected = filesOf(await build(`oci:${place}/layout:t`));
    for (const bare of ["layout", "oci.tar", "oci.tar:x/y:1", "docker.tar", "docker.tar:x/y:1", "dir"]) {
      expect([bare, filesOf(await build(`${place}/${bare}`))]).toEqual([bare, expected]);
    }
    expect((await imgfs("ls", await build(`${place}/dir`), "etc")).stdout).toBe("hi\nlink\n");
  });
});

const noUmoci = needs("umoci");
describe.skipIf(noUmoci)(titleOf("what umoci writes", noUmoci), () => {
  it("is read, also layers without the end of a tar, as umoci insert makes them", async () => {
    const place = scratchDirectory("umoci");
    await shell(`
      cd '${place}'; mkdir -p tree/etc; echo hi > tree/etc/hi
      umoci init --layout layout; umoci new --image layout:t
      umoci insert --image layout:t tree /s; umoci insert --image layout:t --tag u tree/etc /t`);
    expect((await imgfs("ls", "-R", await build(`${place}/layout:u`))).stdout).toContain("/t:\nhi\n");
    expect((await imgfs("cat", await build(`oci:${place}/layout:t`), "s/etc/hi")).stdout).toBe("hi\n");
    expect((await imgfs("build", `${place}/layout`, scratch("image"))).stderr).toContain(
      "several images, choose one",
    );
  });
});
