// `oci:DIR[:TAG]`: an OCI image layout (image-spec, image-layout.md). Manifest and config are read and checked here by
// size and digest; of a layer only its presence and length are looked at.
// Invariant: every blob path is built from a checked digest, so nothing in the layout can name a file outside of it.
import { readFile, stat } from "node:fs/promises";
import { join } from "node:path";
import { type Digest, digestHex } from "../base/digest.js";
import { checkConfig, checkDigest } from "./config.js";
import { choosePlatform, hostPlatform, type Platform, parsePlatform, platformOf } from "./platform.js";
import type { Reference } from "./reference.js";
import {
  configTypes,
  type Descriptor,
  Index,
  indexTypes,
  LayoutMarker,
  Manifest,
  manifestTypes,
  maxJsonBytes,
  parseJson,
} from "./schema.js";
import type { ImageSource, LayerSource, SourceOptions } from "./source.js";

const refName = "org.opencontainers.image.ref.name";

/** Indexes that may lie in one another. */
const maxDepth = 8;

/** Opens the image that `reference` names in an OCI layout. Errors name the layout and the object. */
export async function openLayout(reference: Reference, options: SourceOptions): Promise<ImageSource> {
  const folder = reference.path;
  const asked = options.platform === undefined ? undefined : parsePlatform(options.platform);
  parseJson(`${folder}/oci-layout`, await readSmall(folder, "oci-layout"), LayoutMarker);
  const index = parseJson(`${folder}/index.json`, await readSmall(folder, "index.json"), Index);
  const tagged = chooseTag(reference, index.manifests);
  const descriptor = await resolve(folder, tagged, asked ?? hostPlatform());

  const subject = `manifest ${descriptor.digest}`;
  const manifest = parseJson(subject, await readBlob(folder, subject, descriptor), Manifest);
  const configType = manifest.config.mediaType;
  if (configType !== undefined && !configTypes.includes(configType)) {
    throw new Error(`${subject}: not an image: its config is of type ${JSON.stringify(configType)}`);
  }
  const configName = `config ${manifest.config.digest}`;
  const config = await readBlob(folder, configName, manifest.config);
  const { platform, diffIds } = checkConfig(configName, config, manifest.layers.length, asked);
  const layers = await Promise.all(
    manifest.layers.map((layer, i) => layerSource(folder, layer, i, diffIds[i] as Digest)),
  );
  return { name: reference.text, platform, config, layers };
}

/** The descriptors that the tag chooses: one, or several that differ by platform only. */
function chooseTag(reference: Reference, descriptors: readonly Descriptor[]): readonly Descriptor[] {
  const tagOf = (descriptor: Descriptor): string | undefined => descriptor.annotations?.[refName];
  const tags = [...new Set(descriptors.map(tagOf).filter((tag) => tag !== undefined))];
  const list = tags.length === 0 ? "it has none" : `it has ${tags.join(", ")}`;
  if (reference.selector !== undefined) {
    const chosen = descriptors.filter((descriptor) => tagOf(descriptor) === reference.selector);
    if (chosen.length > 0) return chosen;
    throw new Error(`${reference.path}: no tag ${JSON.stringify(reference.selector)}; ${list}`);
  }
  if (descriptors.length === 0) throw new Error(`${reference.path}: the layout has no image`);
  if (tags.length > 1 || (tags.length === 1 && descriptors.some((d) => tagOf(d) === undefined))) {
    throw new Error(`${reference.path}: several images, choose one by oci:DIR:TAG; ${list}`);
  }
  return descriptors;
}

/** Goes down from indexes to the one manifest for the platform. */
async function resolve(folder: string, from: readonly Descriptor[], platform: Platform): Promise<Descriptor> {
  let candidates = from;
  let subject = `${folder}/index.json`;
  for (let depth = 0; depth < maxDepth; depth++) {
    const descriptor = chooseManifest(subject, candidates, platform);
    const type = descriptor.mediaType ?? manifestTypes[0];
    if (manifestTypes.includes(type as string)) return descriptor;
    if (!indexTypes.includes(type as string)) {
      throw new Error(`${subject}: ${descriptor.digest} is of unknown type ${JSON.stringify(type)}`);
    }
    subject = `index ${descriptor.digest}`;
    candidates = parseJson(subject, await readBlob(folder, subject, descriptor), Index).manifests;
    if (candidates.length === 0) throw new Error(`${subject}: it lists no manifest`);
  }
  throw new Error(`${subject}: more than ${maxDepth} indexes inside one another`);
}

/** One descriptor alone is taken as it is; several are told apart by platform. */
function chooseManifest(subject: string, candidates: readonly Descriptor[], platform: Platform): Descriptor {
  const only = candidates[0];
  if (candidates.length === 1 && only !== undefined && !only.platform) return only;
  const offers = candidates.flatMap((descriptor) => {
    const p = descriptor.platform;
    return p ? [{ descriptor, platform: platformOf(p.os, p.architecture, p.variant) }] : [];
  });
  if (offers.length === 0)
    throw new Error(`${subject}: ${candidates.length} manifests without a platform or a tag`);
  return choosePlatform<{ readonly descriptor: Descriptor }>(subject, platform, offers).descriptor;
}

async function layerSource(
  folder: string,
  layer: Descriptor,
  index: number,
  diffId: Digest,
): Promise<LayerSource> {
  const subject = `layer ${index + 1} (${layer.digest})`;
  const mediaType = layer.mediaType ?? "application/vnd.oci.image.layer.v1.tar";
  if (mediaType.includes("encrypted")) throw new Error(`${subject}: encrypted layers are not supported`);
  const path = blobPath(folder, layer.digest);
  await checkSize(folder, subject, path, layer);
  return {
    bytes: { kind: "file", path, offset: 0, size: layer.size },
    mediaType,
    digest: layer.digest,
    diffId,
  };
}

function blobPath(folder: string, digest: Digest): string {
  return join(folder, "blobs", "sha256", digestHex(digest));
}

async function checkSize(folder: string, subject: string, path: string, blob: Descriptor): Promise<void> {
  const found = await stat(path).catch((cause: NodeJS.ErrnoException) => {
    if (cause.code === "ENOENT") throw new Error(`${folder}: ${subject}: the blob is missing`);
    throw cause;
  });
  if (!found.isFile()) throw new Error(`${folder}: ${subject}: the blob is not a file`);
  if (found.size !== blob.size) {
    throw new Error(
      `${folder}: ${subject}: the blob has ${found.size} bytes, the descriptor says ${blob.size}`,
    );
  }
}

async function readBlob(folder: string, subject: string, blob: Descriptor): Promise<Uint8Array> {
  if (blob.size > maxJsonBytes) {
    throw new Error(`${folder}: ${subject}: ${blob.size} bytes, at most ${maxJsonBytes} are accepted`);
  }
  const path = blobPath(folder, blob.digest);
  await checkSize(folder, subject, path, blob);
  const bytes = await readFile(path);
  checkDigest(`${folder}: ${subject}`, bytes, blob.digest);
  return bytes;
}

async function readSmall(folder: string, name: string): Promise<Uint8Array> {
  const path = join(folder, name);
  const found = await stat(path).catch((cause: NodeJS.ErrnoException) => {
    if (cause.code !== "ENOENT" && cause.code !== "ENOTDIR") throw cause;
    throw new Error(`${folder}: not an OCI layout: there is no ${name}`);
  });
  if (found.size > maxJsonBytes) {
    throw new Error(`${path}: ${found.size} bytes, at most ${maxJsonBytes} are accepted`);
  }
  return readFile(path);
}
