import { mkdtempSync, readFileSync, rmSync, truncateSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { afterAll, beforeEach, describe, expect, it } from "vitest";
import { openSource } from "../../src/oci/open.js";
import {
  amd64,
  type Descriptor,
  digest,
  dockerArchive,
  gzip,
  type ImageOptions,
  Layout,
  layout,
} from "../fixtures/oci.js";
import { file, sha256Hex, tar } from "../fixtures/tar.js";

const root = mkdtempSync(join(tmpdir(), "imgfs-oci-"));
afterAll(() => rmSync(root, { recursive: true, force: true }));
let folder = "";
let serial = 0;
beforeEach(() => {
  folder = join(root, `case-${serial++}`);
});

const one = tar(file("one", "1"));
const two = tar(file("two", "2".repeat(5000)));
const refuses = (source: string, message: RegExp | string, platform?: string): Promise<void> =>
  expect(openSource(source, { platform })).rejects.toThrow(message);
const at = (path: string, offset: number, size: number): Buffer =>
  readFileSync(path).subarray(offset, offset + size);

describe("an OCI layout", () => {
  it("gives config, platform and layers in order", async () => {
    const made = layout(folder, [one, two], {
      compress: gzip,
      mediaType: "application/vnd.oci.image.layer.v1.tar+gzip",
    });
    const image = await openSource(`oci:${folder}:latest`);
    expect(image.platform).toBe(`linux/${amd64}`);
    expect(image.layers.map((layer) => layer.diffId)).toEqual([digest(one), digest(two)]);
    const [first] = image.layers;
    expect(first).toMatchObject({
      digest: digest(gzip(one)),
      mediaType: "application/vnd.oci.image.layer.v1.tar+gzip",
    });
    expect(first?.bytes).toEqual({
      kind: "file",
      path: made.path(digest(gzip(one))),
      offset: 0,
      size: gzip(one).length,
    });
    expect(JSON.parse(Buffer.from(image.config as Uint8Array).toString()).architecture).toBe(amd64);
    expect((await openSource(`oci:${folder}`)).layers).toHaveLength(2);
  });

  it("that is none, or not there, says so", async () => {
    await refuses(`oci:${folder}`, `${folder}: not an OCI layout: there is no oci-layout`);
    const made = layout(folder, [one]);
    writeFileSync(join(folder, "oci-layout"), '{"imageLayoutVersion":"2.0.0"}');
    await refuses(`oci:${made.folder}`, 'layout version "2.0.0" is not supported');
  });

  it("names the tags when the one asked for is missing, or none is chosen among several", async () => {
    const made = new Layout(folder);
    await refuses(`oci:${folder}`, `${folder}: the layout has no image`);
    made.tag(made.image([one]), "a").tag(made.image([two]), "b");
    await refuses(`oci:${folder}:c`, `${folder}: no tag "c"; it has a, b`);
    await refuses(`oci:${folder}`, `${folder}: several images, choose one by oci:DIR:TAG; it has a, b`);
    expect((await openSource(`oci:${folder}:b`)).layers[0]?.diffId).toBe(digest(two));
  });

  const platforms = (made: Layout): Descriptor[] => [
    { ...made.image([one], { architecture: "amd64" }), platform: { os: "linux", architecture: "amd64" } },
    {
      ...made.image([two], { architecture: "arm64", variant: "v8" }),
      platform: { os: "linux", architecture: "arm64", variant: "v8" },
    },
    {
      ...made.image([one, two], { architecture: "riscv64" }),
      platform: { os: "linux", architecture: "riscv64" },
    },
    { ...made.image([]), platform: { os: "unknown", architecture: "unknown" } },
  ];

  it("chooses by platform from an index inside the index, and from index.json itself", async () => {
    for (const nested of [true, false]) {
      const made = new Layout(`${folder}-${nested}`);
      const images = platforms(made);
      if (nested) made.tag(made.index(images), "multi");
      else for (const image of images) made.tag(image);
      const open = async (platform?: string): Promise<number | string> => {
        const image = await openSource(`oci:${made.folder}`, { platform });
        return `${image.platform} ${image.layers.length}`;
      };
      expect(await open("linux/arm64")).toBe("linux/arm64 1");
      expect(await open("linux/riscv64")).toBe("linux/riscv64 2");
      expect(await open()).toBe(`linux/${amd64} 1`);
      await refuses(
        `oci:${made.folder}`,
        /nothing for platform linux\/s390x; it has linux\/amd64, linux\/arm64/,
        "linux/s390x",
      );
    }
  });

  it("refuses an image of one platform when another is asked for, and takes it when none is", async () => {
    layout(folder, [one], { architecture: "s390x" });
    expect((await openSource(`oci:${folder}`)).platform).toBe("linux/s390x");
    await refuses(`oci:${folder}`, /the image is for linux\/s390x, not for linux\/arm64/, "linux/arm64");
  });

  it("names the blob that is missing, cut or changed", async () => {
    const made = layout(folder, [one]);
    const manifest = made.manifests[0] as Descriptor;
    truncateSync(made.path(digest(one)), 100);
    await refuses(
      `oci:${folder}`,
      `layer 1 (${digest(one)}): the blob has 100 bytes, the descriptor says ${one.length}`,
    );
    rmSync(made.path(digest(one)));
    await refuses(`oci:${folder}`, `${folder}: layer 1 (${digest(one)}): the blob is missing`);
    const bytes = readFileSync(made.path(manifest.digest));
    bytes[10] = (bytes[10] as number) ^ 1;
    writeFileSync(made.path(manifest.digest), bytes);
    await refuses(
      `oci:${folder}`,
      `${folder}: manifest ${manifest.digest}: digest mismatch: the bytes are sha256:`,
    );
    rmSync(made.path(manifest.digest));
    await refuses(`oci:${folder}`, `manifest ${manifest.digest}: the blob is missing`);
  });

  const manifest = (change: object): ImageOptions => ({ manifest: (m) => void Object.assign(m, change) });
  const config = (change: object): ImageOptions => ({ config: (c) => void Object.assign(c, change) });
  const layers = (...list: object[]): ImageOptions => manifest({ layers: list });
  it.each([
    ["a schema version of 1", manifest({ schemaVersion: 1 }), /schemaVersion: schema version 1 is not supp/],
    ["a manifest without layers", manifest({ layers: undefined }), /manifest sha256:\w+: layers: missing$/],
    [
      "a digest that is none",
      layers({ digest: "md5:00", size: 1 }),
      /layers\.0\.digest: not a sha256 or sha512 digest: "m/,
    ],
    [
      "a digest that is a path",
      layers({ digest: "sha256:../../x", size: 1 }),
      /not a sha256 or sha512 digest/,
    ],
    ["a negative size", layers({ digest: digest(one), size: -1 }), /layers\.0\.size: invalid value/],
    ["too few diffIDs", config({ rootfs: { type: "layers", diff_ids: [] } }), /0 diff_ids for 1 layers/],
    ["a config without rootfs", config({ rootfs: undefined }), /config sha256:\w+: rootfs: missing$/],
  ])("refuses %s in one line", async (_, options, message) => {
    layout(folder, [one], options);
    const error = await openSource(`oci:${folder}`).catch((cause: Error) => cause);
    expect((error as Error).message).toMatch(message);
    expect((error as Error).message).not.toContain("\n");
  });

  it("refuses what is no image, is too large, or is no JSON", async () => {
    const made = new Layout(folder);
    made.tag(
      made.image([one], {
        manifest: (m) =>
          void Object.assign(m["config"] as object, {
            mediaType: "application/vnd.cncf.helm.config.v1+json",
          }),
      }),
    );
    await refuses(
      `oci:${folder}`,
      /manifest sha256:\w+: not an image: its config is of type "application\/vnd.cncf.helm/,
    );
    const large = new Layout(`${folder}-large`);
    large.tag({ ...large.image([one]), size: 5 << 20 });
    await refuses(`oci:${large.folder}`, /5242880 bytes, at most 4194304 are accepted/);
    const text = new Layout(`${folder}-text`);
    text.tag(text.blob(Buffer.from("hello"), "application/vnd.oci.image.manifest.v1+json"));
    await refuses(`oci:${text.folder}`, /manifest sha256:\w+: not valid JSON/);
    const control = new Layout(`${folder}-control`);
    control.tag(control.image([one]), "a\u001b[31m\nb");
    await refuses(`oci:${control.folder}:c`, /no tag "c"; it has a\\x1b\[31m\\x0ab$/);
    const long = new Layout(`${folder}-long`);
    writeFileSync(join(long.folder, "index.json"), JSON.stringify({ schemaVersion: "x".repeat(5000) }));
    await refuses(`oci:${long.folder}`, /^.{1,500}$/);
    const odd = new Layout(`${folder}-odd`);
    odd.tag(odd.blob(Buffer.from("{}"), "text/plain"));
    await refuses(`oci:${odd.folder}`, /is of unknown type "text\/plain"/);
  });

  it("does not follow indexes for ever", async () => {
    const made = new Layout(folder);
    let at = made.image([one]);
    for (let i = 0; i < 10; i++) at = made.index([at]);
    made.tag(at);
    await refuses(`oci:${folder}`, /more than 8 indexes inside one another/);
  });
});

describe("a docker archive", () => {
  const archive = (data: Buffer): string => {
    const path = `${folder}.tar`;
    writeFileSync(path, data);
    return path;
  };

  it.each(["old", "skopeo", "new"] as const)("of the %s form gives the range of each layer", async (form) => {
    const path = archive(dockerArchive([one, two, one], { form }));
    const image = await openSource(`docker-archive:${path}`);
    expect(image.layers.map((layer) => layer.diffId)).toEqual([one, two, one].map(digest));
    const layers = image.layers.map(({ bytes }) => {
      if (bytes.kind !== "file") throw new Error(bytes.kind);
      return sha256Hex(at(bytes.path, bytes.offset, bytes.size));
    });
    expect(layers).toEqual([one, two, one].map(sha256Hex));
    expect(image.layers[0]?.digest).toBe(form === "new" ? digest(one) : undefined);
  });

  it("finds an image by any way to write its name, and by its place", async () => {
    const path = archive(
      dockerArchive([one], { tags: ["docker.io/library/debian:latest", "localhost:5000/x/y:1"] }),
    );
    for (const name of [
      "debian",
      "debian:latest",
      "docker.io/library/debian",
      "localhost:5000/x/y:1",
      "@0",
    ]) {
      expect((await openSource(`docker-archive:${path}:${name}`)).layers).toHaveLength(1);
    }
    await refuses(
      `docker-archive:${path}:alpine`,
      `${path}: no image "alpine"; it has docker.io/library/debian:latest`,
    );
    await refuses(`docker-archive:${path}:@1`, 'no image "@1"');
  });

  it("asks which image when there are several", async () => {
    const manifest = JSON.stringify([1, 2].map((i) => ({ Config: "c", RepoTags: [`x:${i}`], Layers: [] })));
    const path = archive(tar(file("manifest.json", manifest)));
    await refuses(
      `docker-archive:${path}`,
      `${path}: several images, choose one by docker-archive:FILE:REF; it has x:1, x:2`,
    );
  });

  it("that is none, is compressed, cut, or lacks a layer, says so", async () => {
    await refuses(`docker-archive:${folder}.tar`, `${folder}.tar: no such file or folder`);
    const whole = dockerArchive([one, two]);
    const path = archive(whole);
    archive(tar(file("other")));
    await refuses(
      `docker-archive:${path}`,
      `${path}: not a docker archive: the archive has no "manifest.json"`,
    );
    archive(gzip(whole));
    await refuses(`docker-archive:${path}`, "it is compressed (gzip): decompress it first");
    archive(Buffer.alloc(5000, 65));
    await refuses(`docker-archive:${path}`, `${path}: not a readable tar archive`);
    archive(whole.subarray(0, 2000));
    await refuses(`docker-archive:${path}`, /it ends inside a member/);
    archive(
      tar(
        file("manifest.json", '[{"Config":"c","Layers":["gone.tar"]}]'),
        file(
          "c",
          JSON.stringify({
            os: "linux",
            architecture: amd64,
            rootfs: { type: "layers", diff_ids: [digest(one)] },
          }),
        ),
      ),
    );
    await refuses(`docker-archive:${path}`, `${path}: layer 1: the archive has no "gone.tar"`);
    archive(tar(file("manifest.json", '[{"Config":7}]')));
    await refuses(`docker-archive:${path}`, `${path}: manifest.json: 0.Config: invalid type`);
  });
});

describe("a bare tar", () => {
  it("is an image of one layer of which nothing is known yet", async () => {
    writeFileSync(`${folder}.tar`, one);
    const image = await openSource(`tar:${folder}.tar`);
    expect(image.config).toBeUndefined();
    expect(image.layers).toHaveLength(1);
    expect(image.layers[0]).toMatchObject({
      digest: undefined,
      diffId: undefined,
      bytes: { size: one.length },
    });
    await refuses(`tar:${root}`, "not a file");
    await refuses(`tar:${folder}.none`, `${folder}.none: no such file or folder`);
  });
});
