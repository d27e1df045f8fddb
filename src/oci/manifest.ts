// From descriptors to an image: down through indexes to the one manifest for the platform, its config and its layers.
// The same for every place that keeps manifests. What a document is, is told by what it holds, not by its media type.
import type { Digest } from "../base/digest.js";
import { type Blobs, claimedLayer, layerSource, readBlob } from "./blobs.js";
import { checkClaimedConfig, checkConfig } from "./config.js";
import { choosePlatform, hostPlatform, type Platform, parsePlatform, platformOf } from "./platform.js";
import {
  ClaimedManifest,
  configTypes,
  type Descriptor,
  Index,
  IndexOrManifest,
  Manifest,
  parseJson,
} from "./schema.js";
import type { ImageSource, SourceOptions } from "./source.js";

/** Indexes that may lie in one another. */
const maxDepth = 8;

/** A manifest or an index, and what to call it in messages. */
interface Document {
  readonly subject: string;
  readonly bytes: Uint8Array;
  /** As its descriptor says; it counts only where the document does not tell. */
  readonly mediaType?: string | undefined;
}

/** Opens the image among `candidates`; `subject` names the object that lists them. */
export async function openDescriptors(
  blobs: Blobs,
  subject: string,
  candidates: readonly Descriptor[],
  name: string,
  options: SourceOptions,
): Promise<ImageSource> {
  const asked = options.platform === undefined ? undefined : parsePlatform(options.platform);
  const first = await follow(blobs, subject, candidates, asked ?? hostPlatform());
  return openDocument(blobs, first, name, options);
}

/** Opens the image that a document, which is a manifest or leads to one, describes. */
export async function openDocument(
  blobs: Blobs,
  document: Document,
  name: string,
  options: SourceOptions,
): Promise<ImageSource> {
  const asked = options.platform === undefined ? undefined : parsePlatform(options.platform);
  let at = document;
  for (let depth = 0; isIndex(at); depth++) {
    if (depth === maxDepth)
      throw new Error(`${at.subject}: more than ${maxDepth} indexes inside one another`);
    const { manifests } = parseJson(at.subject, at.bytes, Index);
    if (manifests.length === 0) throw new Error(`${at.subject}: it lists no manifest`);
    at = await follow(blobs, at.subject, manifests, asked ?? hostPlatform());
  }
  const { subject } = at;
  const readConfig = (config: Descriptor): Promise<Uint8Array> => {
    const { mediaType } = config;
    if (mediaType !== undefined && !configTypes.includes(mediaType)) {
      throw new Error(`${subject}: not an image: its config is of type ${JSON.stringify(mediaType)}`);
    }
    return readBlob(blobs, "config", `config ${config.digest}`, config);
  };
  if (blobs.findClaimed !== undefined) {
    const manifest = parseJson(subject, at.bytes, ClaimedManifest);
    const config = await readConfig(manifest.config);
    const configName = `config ${manifest.config.digest}`;
    const platform = checkClaimedConfig(configName, config, manifest.layers.length, asked);
    const layers = await Promise.all(manifest.layers.map((layer, i) => claimedLayer(blobs, layer, i)));
    return { name, platform, config, layers };
  }
  const manifest = parseJson(subject, at.bytes, Manifest);
  const config = await readConfig(manifest.config);
  const configName = `config ${manifest.config.digest}`;
  const { platform, diffIds } = checkConfig(configName, config, manifest.layers.length, asked);
  const layers = await Promise.all(
    manifest.layers.map((layer, i) => layerSource(blobs, layer, i, diffIds[i] as Digest)),
  );
  return { name, platform, config, layers };
}

/** One that is both would be read differently by different tools. */
function isIndex({ subject, bytes, mediaType }: Document): boolean {
  const { manifests, layers } = parseJson(subject, bytes, IndexOrManifest);
  if (manifests !== undefined && layers !== undefined) {
    throw new Error(`${subject}: it is an index and a manifest at once`);
  }
  if (manifests === undefined && layers === undefined && !/manifest|index/.test(mediaType ?? "manifest")) {
    throw new Error(`${subject}: it is of unknown type ${JSON.stringify(mediaType)}`);
  }
  return manifests !== undefined;
}

async function follow(
  blobs: Blobs,
  subject: string,
  candidates: readonly Descriptor[],
  platform: Platform,
): Promise<Document> {
  const chosen = chooseManifest(subject, candidates, platform);
  const kind = chosen.mediaType !== undefined && /index|manifest\.list/.test(chosen.mediaType);
  const name = `${kind ? "index" : "manifest"} ${chosen.digest}`;
  return {
    subject: name,
    bytes: await readBlob(blobs, "manifest", name, chosen),
    mediaType: chosen.mediaType,
  };
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
