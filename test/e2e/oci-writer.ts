// Puts layer tars into the forms an image comes in: an OCI layout (gzip or plain layers, one or
// several platforms) and a docker archive. Deterministic: no clock, no host.
import { createHash } from "node:crypto";
import { mkdirSync, readFileSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { gzipSync } from "node:zlib";
import { layerTar, type TarEntry } from "./tar-writer.js";

/** Layers from the lowest up, as plain tars. */
export type Layers = readonly Buffer[];

export interface LayoutOptions {
  readonly tag?: string;
  readonly compression?: "gzip" | "none";
}

/** This machine's platform, in the words of an image index. */
export const hostPlatform = {
  os: "linux",
  architecture: process.arch === "x64" ? "amd64" : process.arch,
};

const types = {
  index: "application/vnd.oci.image.index.v1+json",
  manifest: "application/vnd.oci.image.manifest.v1+json",
  config: "application/vnd.oci.image.config.v1+json",
  layer: "application/vnd.oci.image.layer.v1.tar",
};

export const sha256 = (data: Buffer): string => createHash("sha256").update(data).digest("hex");

interface Descriptor {
  readonly mediaType: string;
  readonly digest: string;
  readonly size: number;
  readonly annotations?: Readonly<Record<string, string>>;
  readonly platform?: { readonly os: string; readonly architecture: string };
}

function imageConfig(layers: Layers, architecture: string): Buffer {
  const config = {
    created: "2020-01-01T00:00:00Z",
    architecture,
    os: "linux",
    config: { Env: ["PATH=/bin"], Cmd: ["/bin/sh"] },
    rootfs: { type: "layers", diff_ids: layers.map((layer) => `sha256:${sha256(layer)}`) },
    history: layers.map((_, i) => ({ created: "2020-01-01T00:00:00Z", created_by: `layer ${i + 1}` })),
  };
  return Buffer.from(JSON.stringify(config));
}

function putBlob(folder: string, mediaType: string, data: Buffer): Descriptor {
  const hex = sha256(data);
  writeFileSync(join(folder, "blobs/sha256", hex), data);
  return { mediaType, digest: `sha256:${hex}`, size: data.length };
}

function putManifest(folder: string, layers: Layers, architecture: string, gzip: boolean): Descriptor {
  const manifest = {
    schemaVersion: 2,
    mediaType: types.manifest,
    config: putBlob(folder, types.config, imageConfig(layers, architecture)),
    layers: layers.map((tar) =>
      gzip
        ? putBlob(folder, `${types.layer}+gzip`, gzipSync(tar, { level: 1 }))
        : putBlob(folder, types.layer, tar),
    ),
  };
  return putBlob(folder, types.manifest, Buffer.from(JSON.stringify(manifest)));
}

function startLayout(folder: string): void {
  mkdirSync(join(folder, "blobs/sha256"), { recursive: true });
  writeFileSync(join(folder, "oci-layout"), JSON.stringify({ imageLayoutVersion: "1.0.0" }));
}

function putIndex(folder: string, manifests: readonly Descriptor[]): void {
  writeFileSync(
    join(folder, "index.json"),
    JSON.stringify({ schemaVersion: 2, mediaType: types.index, manifests }),
  );
}

const tagged = (descriptor: Descriptor, tag: string): Descriptor => ({
  ...descriptor,
  annotations: { "org.opencontainers.image.ref.name": tag },
});

/** An OCI layout of one image, for this machine's platform. */
export function writeLayout(folder: string, layers: Layers, options: LayoutOptions = {}): void {
  startLayout(folder);
  const gzip = (options.compression ?? "gzip") === "gzip";
  const manifest = putManifest(folder, layers, hostPlatform.architecture, gzip);
  putIndex(folder, [tagged(manifest, options.tag ?? "latest")]);
}

/** The parts of a manifest and a config that tests change. */
export interface Editable {
  readonly manifest: { layers: Array<{ mediaType: string; digest: string; size: number }> };
  readonly config: { rootfs: { diff_ids: string[] } };
  /** Stores a blob and returns what a manifest says of it. */
  put(mediaType: string, data: Buffer): { mediaType: string; digest: string; size: number };
}

/** Changes the one image of a layout: every digest on the way to it is right afterwards. */
export function editLayout(folder: string, edit: (image: Editable) => void): void {
  const read = (path: string) => JSON.parse(readFileSync(join(folder, path), "utf8"));
  const blob = ({ digest }: Descriptor): string => `blobs/sha256/${digest.slice(7)}`;
  const put = (mediaType: string, data: Buffer): Descriptor => putBlob(folder, mediaType, data);
  const index = read("index.json");
  const manifest = read(blob(index.manifests[0]));
  const config = read(blob(manifest.config));
  edit({ manifest, config, put });
  Object.assign(manifest.config, put(types.config, Buffer.from(JSON.stringify(config))));
  Object.assign(index.manifests[0], put(types.manifest, Buffer.from(JSON.stringify(manifest))));
  writeFileSync(join(folder, "index.json"), JSON.stringify(index));
}

/** An OCI layout whose tag names an index of several platforms; the keys are architectures. */
export function writeMultiPlatformLayout(folder: string, images: Readonly<Record<string, Layers>>): void {
  startLayout(folder);
  const manifests = Object.entries(images).map(([architecture, layers]) => ({
    ...putManifest(folder, layers, architecture, true),
    platform: { os: "linux", architecture },
  }));
  const index = Buffer.from(JSON.stringify({ schemaVersion: 2, mediaType: types.index, manifests }));
  putIndex(folder, [tagged(putBlob(folder, types.index, index), "latest")]);
}

/** What `docker save` writes: plain layers, one folder each, and manifest.json at the end. */
export function writeDockerArchive(file: string, layers: Layers, reference = "e2e/image:latest"): void {
  const config = imageConfig(layers, hostPlatform.architecture);
  const configName = `${sha256(config)}.json`;
  const names = layers.map((layer) => `${sha256(layer)}/layer.tar`);
  const members: TarEntry[] = [...new Map(layers.map((data, i) => [names[i] as string, data]))].flatMap(
    ([name, data]) => [
      { name: name.replace("layer.tar", ""), type: "dir" },
      { name: name.replace("layer.tar", "VERSION"), data: Buffer.from("1.0") },
      { name, data },
    ],
  );
  const manifest = [{ Config: configName, RepoTags: [reference], Layers: names }];
  members.push({ name: configName, data: config });
  members.push({ name: "manifest.json", data: Buffer.from(JSON.stringify(manifest)) });
  writeFileSync(file, layerTar(members));
}
