// Layers of an image to blobs: those that are chosen, each under a path of the caller's, and what is told of them. Where the
// blobs then go is the caller's: a folder (image.ts), or a store.
import { existsSync } from "node:fs";
import type { Digest } from "../base/digest.js";
import { type Codec, codecText } from "../imgfs/codec.js";
import { Image } from "../imgfs/image.js";
import { MissingBase } from "../imgfs/lower-directory.js";
import { RegistryError } from "../oci/registry/errors.js";
import type { ImageSource, LayerSource } from "../oci/source.js";
import type { BlobSummary, BuildEvent, BuiltLayer } from "./image.js";
import type { ConvertedLayer } from "./layer.js";
import { convertAll, LayerDamage, type PoolOptions } from "./pool.js";

export interface ChosenLayers {
  /** Numbers of layers, 0 the lowest. */
  readonly layers: readonly number[];
  /** Path of the blob to make of a layer; must not exist. */
  readonly target: (layer: number) => string;
  readonly codec: Codec;
}

export interface ConvertHooks extends Pick<PoolOptions, "jobs" | "signal" | "threads"> {
  readonly onEvent: (event: BuildEvent) => void;
  readonly onDone: (layer: number, converted: ConvertedLayer) => void;
  /** Called with a layer whose bytes have come and are not what they should be, before everything ends for it. */
  readonly onDamage?: ((layer: number, cause: Error) => void) | undefined;
}

/** Converts the chosen layers. Throws one-line Errors that name the layer. */
export async function convertChosen(
  image: ImageSource,
  { layers, target, codec }: ChosenLayers,
  { jobs, signal, threads, onEvent, onDone, onDamage = () => {} }: ConvertHooks,
): Promise<void> {
  const numberOf = (task: number): number => layers[task] as number;
  const layerAt = (task: number): LayerSource => image.layers[numberOf(task)] as LayerSource;
  const tasks = layers.map((layer, task) => ({ source: layerAt(task), target: target(layer), codec }));
  const fault = (task: number, cause: Error): Error => {
    const { digest, claim, diffId } = layerAt(task);
    const id = digest ?? claim?.digest ?? diffId;
    const place = image.place === undefined ? "" : `${image.place}: `;
    const subject = `${place}layer ${numberOf(task) + 1}${id === undefined ? "" : ` (${id})`}`;
    if (cause instanceof RegistryError) return cause.within(subject);
    const failure = new Error(`${subject}: ${cause.message}`);
    if (cause instanceof LayerDamage) onDamage(numberOf(task), failure);
    return failure;
  };
  await convertAll(tasks, fault, {
    jobs,
    signal,
    fetch: image.fetch,
    threads,
    onStart: (task) =>
      onEvent({ type: "layer-start", layer: numberOf(task), size: layerAt(task).bytes.size }),
    onProgress: (task, done) =>
      onEvent({ type: "layer-progress", layer: numberOf(task), done, size: layerAt(task).bytes.size }),
    onWarning: (task, message) => onEvent({ type: "warning", layer: numberOf(task), message }),
    onDone: (task, converted) => onDone(numberOf(task), converted),
  });
}

/** What is told of a layer that has been converted to the blob at `path`. */
export function builtLayer(
  layer: LayerSource,
  converted: ConvertedLayer,
  codec: Codec,
  path: string,
): BuiltLayer {
  const { diffId, digest, compression, summary, milliseconds, tarSize } = converted;
  return {
    diffId,
    digest,
    mediaType: layer.mediaType,
    compression,
    path,
    reused: false,
    size: layer.bytes.kind === "tree" ? tarSize : layer.bytes.size,
    summary: { ...summary, codec: codecText(codec) },
    milliseconds,
  };
}

/** What is told of a layer whose blob is there already. */
export function reusedLayer(
  layer: LayerSource,
  diffId: Digest,
  path: string,
  summary: BlobSummary,
): BuiltLayer {
  return {
    diffId,
    digest: layer.digest,
    mediaType: layer.mediaType,
    compression: undefined,
    path,
    reused: true,
    size: layer.bytes.size,
    summary,
    milliseconds: 0,
  };
}

/**
 * An error of merging layers, lowest first: one that names a blob's file, or a layer by its number, is made to name the layer
 * as the image does.
 */
export function ofLayer(cause: Error, files: readonly string[], names: readonly string[]): Error {
  const named = files.findIndex((file) => cause.message.startsWith(`${file}: `));
  const layer = cause instanceof MissingBase ? cause.layer : named;
  if (layer < 0) return cause;
  const skip = named < 0 ? 0 : (files[named] as string).length + 2;
  return new Error(`layer ${layer + 1} (${names[layer]}): ${cause.message.slice(skip)}`);
}

/**
 * What a blob says of itself; undefined where there is none, or none that is sound and of this layer, by its key, and of this
 * codec.
 */
export function summaryOfBlob(path: string, key: Digest, codec: Codec): BlobSummary | undefined {
  if (!existsSync(path)) return undefined;
  let blob: Image;
  try {
    blob = Image.open(path);
  } catch {
    return undefined;
  }
  try {
    const isIt = blob.kind === "layer" && blob.source === key && codecText(blob.codec) === codecText(codec);
    return isIt ? summaryOf(blob) : undefined;
  } finally {
    blob.close();
  }
}

function summaryOf(blob: Image): BlobSummary {
  return {
    rootDigest: blob.rootDigest,
    treeRoot: blob.treeRoot,
    inodes: blob.inodeCount,
    entries: blob.entryTotal,
    fileSize: blob.fileSize,
    logicalBytes: blob.logicalBytes,
    uniqueBytes: blob.uniqueBytes,
    rawSize: blob.dataSizes.raw,
    dataSize: blob.dataSizes.stored,
    codec: codecText(blob.codec),
  };
}
