// A bare path is what is there, whatever its name; and what layouts may hold beside the ordinary.
import { execFileSync } from "node:child_process";
import { cpSync, mkdirSync, mkdtempSync, renameSync, rmSync, symlinkSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { afterAll, beforeEach, describe, expect, it } from "vitest";
import { openSource } from "../../src/oci/open.js";
import type { LayerSource } from "../../src/oci/source.js";
import {
  type Descriptor,
  digest,
  dockerArchive,
  gzip,
  type ImageOptions,
  Layout,
  layout,
} from "../fixtures/oci.js";
import { dir, file, sha256Hex, tar } from "../fixtures/tar.js";
import { readLayer } from "./support.js";

const root = mkdtempSync(join(tmpdir(), "imgfs-recognise-"));
afterAll(() => rmSync(root, { recursive: true, force: true }));
let at = "";
let serial = 0;
beforeEach(() => {
  at = join(root, `case-${serial++}`);
});

const one = tar(file("one", "1"));
const two = tar(file("two", "2".repeat(5000)));
const layersOf = async (source: string): Promise<readonly LayerSource[]> => (await openSource(source)).layers;
const opens = async (source: string): Promise<string[]> =>
  (await layersOf(source)).map((layer) => sha256Hex(readLayer(layer)));
const refuses = (source: string, message: RegExp | string): Promise<void> =>
  expect(openSource(source)).rejects.toThrow(message);
const both = [one, two].map(sha256Hex);

/** What skopeo writes to `dir:`. */
function skopeoFolder(path: string): void {
  const made = layout(`${path}-layout`, [one, two]);
  mkdirSync(path);
  for (const { name, body } of made.members()) {
    const hex = /blobs\/sha256\/(.*)/.exec(String(name))?.[1];
    if (hex === undefined) continue;
    const isManifest = made.manifests[0]?.digest.endsWith(hex) === true;
    writeFileSync(join(path, isManifest ? "manifest.json" : hex), body ?? "");
  }
  writeFileSync(join(path, "version"), "Directory Transport Version: 1.1\n");
}

describe("a bare path", () => {
  it("to a layout, a skopeo folder, an archive or a link to one is an image", async () => {
    layout(`${at}.tar`, [one, two]);
    expect(await opens(`${at}.tar`)).toEqual(both);
    expect(await opens(`${at}.tar:latest`)).toEqual(both);
    symlinkSync(`${at}.tar`, `${at}-link`);
    expect(await opens(`${at}-link:latest`)).toEqual(both);
    skopeoFolder(`${at}-skopeo`);
    expect(await opens(`${at}-skopeo`)).toEqual(both);
    expect(await opens(`dir:${at}-skopeo`)).toEqual(both);
    writeFileSync(`${at}.img`, dockerArchive([one, two], { form: "old" }));
    expect(await opens(`${at}.img`)).toEqual(both);
    expect(await opens(`${at}.img:test:latest`)).toEqual(both);
  });

  it("to any other folder is a tree, also to one that only looks like skopeo's", async () => {
    mkdirSync(at);
    expect((await layersOf(at))[0]?.bytes).toEqual({ kind: "tree", path: at, size: 0 });
    writeFileSync(join(at, "manifest.json"), "{}");
    writeFileSync(join(at, "version"), "1.0\n");
    expect((await layersOf(at))[0]?.bytes.kind).toBe("tree");
    rmSync(join(at, "version"));
    execFileSync("mkfifo", [join(at, "version")]);
    expect((await layersOf(at))[0]?.bytes.kind).toBe("tree");
    await refuses(`${at}:tag`, `${at}: a folder without an OCI layout: there is no "tag" to choose in it`);
  });

  it("to another tar is a layer, whatever files it holds", async () => {
    const many = Array.from({ length: 100 }, (_, i) => file(`usr/f${i}`, "x"));
    const layers = [
      tar(),
      one,
      tar(...many, file("manifest.json", "[]")),
      tar(dir("./"), ...many, file("x")),
    ];
    for (const layer of layers) {
      writeFileSync(at, layer);
      expect((await layersOf(at))[0]?.bytes).toEqual({
        kind: "file",
        path: at,
        offset: 0,
        size: layer.length,
      });
    }
    await refuses(`${at}:tag`, `${at}: a layer: there is no "tag" to choose in it`);
  });

  it("to nothing of the kind says what was looked for", async () => {
    const looked =
      "looked for an OCI layout, a skopeo folder, a tree of files, and an OCI archive, docker archive or";
    for (const bytes of ["", "hello\n", "x".repeat(100_000), '{"schemaVersion":2}']) {
      writeFileSync(at, bytes);
      await refuses(at, `${at}: not a readable tar archive: `);
      await refuses(at, looked);
    }
    await refuses(`${at}/none`, /none: (no such file or folder|not a directory)$/);
    execFileSync("mkfifo", [`${at}-fifo`]);
    await refuses(`${at}-fifo`, `${at}-fifo: neither a file nor a folder`);
    await refuses(`oci-archive:${at}-fifo`, `${at}-fifo: not a file`);
    await refuses(`docker-archive:${at}-fifo`, `${at}-fifo: not a file`);
    await refuses(`tar:${at}-fifo`, `${at}-fifo: not a file`);
  });
});

describe("a layout", () => {
  const manifest = (
    change: (layers: Descriptor[], manifest: Record<string, unknown>) => void,
  ): ImageOptions => ({
    manifest: (document) => change(document["layers"] as Descriptor[], document),
  });

  it("may embed objects in their descriptors, which are checked like any other", async () => {
    const embed = (layers: Descriptor[]): void => {
      for (const [i, tar] of [one, two].entries())
        Object.assign(layers[i] as Descriptor, { data: tar.toString("base64") });
    };
    const made = layout(at, [one, two], manifest(embed));
    for (const layer of [one, two]) rmSync(made.path(digest(layer)));
    expect(await opens(at)).toEqual(both);
    expect((await layersOf(at))[0]?.bytes.kind).toBe("embedded");
    layout(
      `${at}-short`,
      [one],
      manifest(([layer]) => void Object.assign(layer as object, { data: "AAAA" })),
    );
    await refuses(
      `${at}-short`,
      `layer 1 (${digest(one)}): the blob has 3 bytes, the descriptor says ${one.length}`,
    );
    const config = (wrong: string): ImageOptions =>
      manifest((_, document) => void Object.assign(document["config"] as object, { data: wrong, size: 3 }));
    layout(`${at}-config`, [one], config("AAAA"));
    await refuses(`${at}-config`, /config sha256:\w+: digest mismatch/);
  });

  it("may name blobs by sha512, but no diffID", async () => {
    const made = new Layout(at);
    const hash = execFileSync("sha512sum", { input: one, encoding: "utf8" }).slice(0, 128);
    mkdirSync(join(at, "blobs/sha512"));
    const change = ([layer]: Descriptor[]): void => {
      (layer as Descriptor).digest = `sha512:${hash}`;
    };
    made.tag(made.image([one], manifest(change)));
    renameSync(made.path(digest(one)), made.path(`sha512:${hash}`));
    expect(await opens(at)).toEqual([both[0]]);
    expect((await layersOf(at))[0]?.digest).toBe(`sha512:${hash}`);
    const other = new Layout(`${at}-id`);
    const rootfs = { type: "layers", diff_ids: [`sha512:${hash}`] };
    other.tag(other.image([one], { config: (config) => void Object.assign(config, { rootfs }) }));
    await refuses(other.folder, /diff_ids\.0: not a sha256 digest: "sha512:/);
  });

  it("with a foreign layer is used when it is there, and says where it is when it is not", async () => {
    const foreign = ([, layer]: Descriptor[]): void =>
      void Object.assign(layer as object, {
        mediaType: "application/vnd.docker.image.rootfs.foreign.diff.tar.gzip",
        urls: ["https://example.com/layer"],
      });
    const made = layout(at, [one, two], manifest(foreign));
    expect(await opens(at)).toEqual(both);
    rmSync(made.path(digest(two)));
    const { layers } = await openSource(at);
    expect(layers[1]).toMatchObject({
      bytes: { kind: "remote", digest: digest(two), size: two.length, urls: ["https://example.com/layer"] },
      digest: digest(two),
    });
  });

  it("with a layer that is nowhere, or where nobody goes for it, is refused without telling a login", async () => {
    const urls = ["file:///etc/passwd", "ftp://h/x", "https://ann:s3cret@h/x", "nonsense"];
    for (const where of [urls, []]) {
      const made = layout(
        `${at}-${where.length}`,
        [one, two],
        manifest(([, layer]) => void Object.assign(layer as object, { urls: where })),
      );
      rmSync(made.path(digest(two)));
      const why =
        where.length === 0
          ? "the blob is missing"
          : "the blob is missing, and none of its URLs is fetched: that needs http or https, and no login in it";
      await refuses(made.folder, new RegExp(`: layer 2 \\(${digest(two)}\\): ${why}$`));
    }
  });

  it("of docker's media types, or of wrong ones, or of none, is told by what documents hold", async () => {
    const docker = "application/vnd.docker.distribution.manifest";
    for (const [inner, outer] of [
      [`${docker}.v2+json`, `${docker}.list.v2+json`],
      [`${docker}.list.v2+json`, `${docker}.v2+json`],
      ["application/octet-stream", "text/plain"],
      [undefined, undefined],
    ]) {
      const made = new Layout(`${at}-${inner?.length}-${outer?.length}`);
      const index = made.index([{ ...made.image([one, two]), mediaType: inner } as Descriptor]);
      made.tag({ ...index, mediaType: outer } as Descriptor, "x");
      expect(await opens(made.folder)).toEqual(both);
    }
  });

  it("whose document is an index and a manifest at once is refused", async () => {
    layout(
      at,
      [one],
      manifest((_, document) => {
        document["manifests"] = [];
      }),
    );
    await refuses(at, /manifest sha256:\w+: it is an index and a manifest at once$/);
  });

  it("is chosen from by full names, digests and places", async () => {
    const made = new Layout(at);
    const first = {
      ...made.image([one]),
      annotations: { "io.containerd.image.name": "docker.io/library/x:1" },
    };
    made.tag(first, "1").tag(made.image([two]), "example.com/y:latest");
    // Layout.tag writes the tag's annotation over others.
    Object.assign((made.manifests[0] as Descriptor).annotations as object, first.annotations);
    made.tag(made.image([one, two]), "both");
    for (const name of [
      "1",
      "x:1",
      "library/x:1",
      "docker.io/library/x:1",
      "@0",
      `@${first.digest}`,
      `1@${first.digest}`,
    ]) {
      expect(await opens(`oci:${at}:${name}`)).toEqual([both[0]]);
    }
    expect(await opens(`oci:${at}:example.com/y`)).toEqual([both[1]]);
    await refuses(`oci:${at}:x`, 'no tag "x"; it has 1, example.com/y:latest, both');
    await refuses(`oci:${at}:both@${first.digest}`, "no tag");
  });

  it("compressed with another form than its label says, or empty, keeps its bytes as they are", async () => {
    const nothing = Buffer.alloc(0);
    layout(at, [nothing, one, one], { compress: (layer) => (layer.length === 0 ? layer : gzip(layer)) });
    expect((await layersOf(at)).map(({ bytes }) => bytes.size)).toEqual([
      0,
      gzip(one).length,
      gzip(one).length,
    ]);
  });

  it("copied by skopeo's rules names its manifests in an index by .manifest.json", async () => {
    const made = new Layout(`${at}-layout`);
    const image = made.image([one, two]);
    const index = made.index([image]);
    cpSync(join(made.folder, "blobs/sha256"), at, { recursive: true });
    renameSync(join(at, index.digest.slice(7)), join(at, "manifest.json"));
    renameSync(join(at, image.digest.slice(7)), join(at, `${image.digest.slice(7)}.manifest.json`));
    writeFileSync(join(at, "version"), "Directory Transport Version: 1.1\n");
    expect(await opens(at)).toEqual(both);
    rmSync(join(at, sha256Hex(two)));
    await refuses(at, `${at}: layer 2 (${digest(two)}): the blob is missing`);
  });
});
