// An image from source to folder: a blob for each layer, named by its diffID and codec, `index.imgfs`, and `config.json`
// as it came.
// Invariants: nothing gets its name before every layer has been converted and checked and the index is made; the
// index is named last; a build that fails leaves the folder as it found it. The files depend on the image only, not
// on the number of jobs, the clock or the machine.
import { existsSync, realpathSync } from "node:fs";
import { availableParallelism } from "node:os";
import { basename, dirname, join, resolve } from "node:path";
import { type Digest, type SourceDigest, sha256 } from "../base/digest.js";
import { type Codec, noCodec } from "../imgfs/codec.js";
import { blobFile, CONFIG_FILE, INDEX_FILE } from "../imgfs/folder.js";
import { Image } from "../imgfs/image.js";
import { layerKey } from "../imgfs/layer-key.js";
import { checkBases } from "../imgfs/lower-directory.js";
import { mergeLayers } from "../imgfs/merge.js";
import type { LayerSummary } from "../imgfs/writer.js";
import { makeConfig } from "../oci/config.js";
import { isRemote, openSource } from "../oci/open.js";
import type { RegistryOptions } from "../oci/registry/options.js";
import type { ImageSource, LayerSource } from "../oci/source.js";
import type { ConvertedLayer } from "./layer.js";
import { builtLayer, convertChosen, ofLayer, reusedLayer, summaryOfBlob } from "./layers.js";
import { type PoolOptions, Threads } from "./pool.js";
import { Staging } from "./staging.js";
import { createUnpacking } from "./unpacking.js";

export type { Login } from "../oci/registry/credentials.js";
export { RegistryError, type RegistryFailure } from "../oci/registry/errors.js";
export type { RegistryOptions } from "../oci/registry/options.js";

/** Workers unless the caller says otherwise: with gzip each keeps two cores busy, and each holds a layer's tree. */
const maxDefaultJobs = 4;
/** Workers for a registry at least; they are started before it is known how many layers there are. */
const minRemoteJobs = 2;

export interface BuildOptions {
  /** Layers converted at the same time; the number of cores, at most 4, unless given; from a registry at least 2. */
  readonly jobs?: number | undefined;
  /** `os/arch[/variant]`; this machine's unless given. */
  readonly platform?: string | undefined;
  /** How the blobs store data; none unless given. */
  readonly codec?: Codec | undefined;
  /** How registries are reached; as docker and podman are configured unless given. */
  readonly registry?: Omit<RegistryOptions, "onRetry"> | undefined;
  readonly onEvent?: ((event: BuildEvent) => void) | undefined;
  /** Ends the build; nothing is left behind and the promise rejects with the signal's reason. */
  readonly signal?: AbortSignal | undefined;
}

/**
 * What happens during a build. `layer` counts from 0, the lowest; `size` and `done` are bytes in the source, `size` 0
 * where it is not known.
 */
export type BuildEvent =
  | {
      readonly type: "start";
      readonly layers: readonly { readonly digest: SourceDigest | undefined; readonly size: number }[];
    }
  | { readonly type: "layer-start"; readonly layer: number; readonly size: number }
  | { readonly type: "layer-progress"; readonly layer: number; readonly done: number; readonly size: number }
  | { readonly type: "warning"; readonly layer: number; readonly message: string }
  /** A request to a registry has failed, and is made again. */
  | { readonly type: "retry"; readonly message: string }
  | { readonly type: "layer-done"; readonly layer: number; readonly result: BuiltLayer }
  | { readonly type: "merge"; readonly layers: number }
  | { readonly type: "done"; readonly result: BuildResult };

/** One layer of the result. Numbers of `summary` are those of the blob. */
export interface BuiltLayer {
  readonly diffId: Digest;
  /** Digest in the source, as the manifest has it or as the bytes are; undefined when a blob was reused unread. */
  readonly digest: SourceDigest | undefined;
  readonly mediaType: string;
  /** What the bytes showed: none, gzip, zstd; undefined when a blob was reused unread. */
  readonly compression: string | undefined;
  /** The blob. */
  readonly path: string;
  /** The blob was there already. */
  readonly reused: boolean;
  /** Bytes in the source. */
  readonly size: number;
  readonly summary: BlobSummary;
  /** Time of the conversion; 0 for a blob that was reused. */
  readonly milliseconds: number;
}

export interface BlobSummary extends Omit<LayerSummary, "contents"> {
  /** `none` or `zstd:LEVEL`. */
  readonly codec: string;
}

export interface BuildResult {
  /** Path of the index. */
  readonly index: string;
  readonly rootDigest: Digest;
  readonly treeRoot: Digest;
  /** Path of the config, and its digest. */
  readonly config: string;
  readonly configDigest: Digest;
  readonly platform: string;
  /** Of the manifest or index that the reference names in a registry; left out for any other source. */
  readonly sourceDigest?: SourceDigest;
  /** Lowest first; a layer that occurs twice in the image is listed twice. */
  readonly layers: readonly BuiltLayer[];
  /** Of the merged tree. */
  readonly entries: number;
  readonly inodes: number;
  /** Sum of file sizes of the merged tree, each inode once. */
  readonly logicalBytes: number;
  readonly milliseconds: number;
}

/**
 * Builds the image `source` (a reference, see oci/reference.ts) into the folder `dest`, which is made if needed.
 * Throws one-line Errors, outer to inner, that name the object: `layer 2 (sha256:ab12...): entry a/b: ...`.
 */
export async function buildImage(
  source: string,
  dest: string,
  options: BuildOptions = {},
): Promise<BuildResult> {
  const start = performance.now();
  const { jobs, platform, codec = noCodec, onEvent = () => {}, signal } = options;
  if (jobs !== undefined && !(Number.isInteger(jobs) && jobs > 0))
    throw new Error(`not a number of jobs: ${jobs}`);
  signal?.throwIfAborted();
  let made: Staging | undefined;
  let opened: ImageSource | undefined;
  const cores = Math.min(availableParallelism(), maxDefaultJobs);
  // What comes over a network waits for it now and then, also on one core.
  const count = jobs ?? (isRemote(source) ? Math.max(cores, minRemoteJobs) : cores);
  const threads = isRemote(source) ? new Threads(Math.min(count, minRemoteJobs)) : undefined;
  const stage = (): Staging => (made ??= new Staging(dest));
  try {
    let archives = 0;
    const temporary = (): string => stage().temporary(`archive-${archives++}`);
    const image = await openSource(source, {
      platform,
      unpacking: createUnpacking(temporary, signal),
      registry: { ...options.registry, onRetry: (message) => onEvent({ type: "retry", message }) },
      signal,
    });
    opened = image;
    signal?.throwIfAborted();
    checkDestination(image, dest);
    onEvent({
      type: "start",
      layers: image.layers.map(({ digest, bytes }) => ({ digest, size: bytes.size })),
    });
    const staging = stage();
    const layers = await convertLayers(image, staging, { jobs: count, threads }, { codec, onEvent, signal });
    signal?.throwIfAborted();
    onEvent({ type: "merge", layers: layers.length });
    const config =
      image.config ??
      makeConfig(
        image.platform,
        layers.map((layer) => layer.diffId),
      );
    staging.write(INDEX_FILE, mergeIndex(layers));
    staging.write(CONFIG_FILE, config);
    const merged = indexNumbers(staging.pathOf(INDEX_FILE), staging.folder);
    const built = publishLayers(layers, codec, staging);
    const configPath = staging.publish(CONFIG_FILE);
    const index = staging.publish(INDEX_FILE);
    staging.sync();
    const result: BuildResult = {
      index,
      ...merged,
      config: configPath,
      configDigest: sha256(config),
      platform: image.platform,
      ...(image.digest === undefined ? {} : { sourceDigest: image.digest }),
      layers: built,
      milliseconds: performance.now() - start,
    };
    onEvent({ type: "done", result });
    return result;
  } finally {
    made?.discard();
    await threads?.end();
    await opened?.close?.();
  }
}

/** A tree that the build itself changes could not be read. */
function checkDestination(image: ImageSource, dest: string): void {
  for (const { bytes } of image.layers) {
    if (bytes.kind !== "tree") continue;
    const root = realpathSync(bytes.path);
    const target = realPlace(resolve(dest));
    if (`${target}/`.startsWith(root === "/" ? root : `${root}/`)) {
      throw new Error(`${dest}: inside the tree that the image is made of`);
    }
  }
}

/** The real path of what may not exist yet. */
function realPlace(path: string): string {
  if (existsSync(path) || dirname(path) === path) return realpathSync(path);
  return join(realPlace(dirname(path)), basename(path));
}

/** A layer of the image and the file that holds its blob for now. */
type StagedLayer = BuiltLayer & {
  readonly current: string;
  readonly staged: string | undefined;
  readonly source: LayerSource;
};

interface Hooks {
  readonly codec: Codec;
  readonly onEvent: (event: BuildEvent) => void;
  readonly signal: AbortSignal | undefined;
}

/** Converts what is not there yet. A diffID that occurs twice is converted once. */
async function convertLayers(
  image: ImageSource,
  staging: Staging,
  { jobs, threads }: Pick<PoolOptions, "jobs" | "threads">,
  { codec, onEvent, signal }: Hooks,
): Promise<StagedLayer[]> {
  const staged: (StagedLayer | undefined)[] = image.layers.map((layer) => reusable(layer, codec, staging));
  staged.forEach((result, layer) => {
    if (result !== undefined) onEvent({ type: "layer-done", layer, result });
  });
  const keys = image.layers.map(keyOf);
  const firstOf = new Map<Digest, number>();
  const todo: number[] = [];
  keys.forEach((key, i) => {
    if (staged[i] !== undefined || (key !== undefined && firstOf.has(key))) return;
    if (key !== undefined) firstOf.set(key, i);
    todo.push(i);
  });
  const name = (layer: number): string => `layer-${layer}`;
  const chosen = { layers: todo, target: (layer: number) => staging.temporary(name(layer)), codec };
  await convertChosen(image, chosen, {
    jobs,
    signal,
    threads,
    onEvent,
    onDone: (layer, converted) => {
      const source = image.layers[layer] as LayerSource;
      const result = stagedLayer(source, converted, codec, staging, name(layer));
      staged[layer] = result;
      onEvent({ type: "layer-done", layer, result });
    },
  });
  return keys.map((key, i) => {
    const result = staged[i] ?? staged[firstOf.get(key as Digest) as number];
    return result as StagedLayer;
  });
}

/** What the layer's blob is of; undefined where its diffID is not known before it has been read. */
function keyOf({ diffId, baseDirectory }: LayerSource): Digest | undefined {
  return diffId && layerKey(diffId, baseDirectory);
}

/** The blob of an earlier build when there is a sound one: its header and page digests are read, not its data. */
function reusable(layer: LayerSource, codec: Codec, staging: Staging): StagedLayer | undefined {
  const key = keyOf(layer);
  if (layer.diffId === undefined || key === undefined) return undefined;
  const path = join(staging.folder, blobFile(key, codec));
  const summary = summaryOfBlob(path, key, codec);
  if (summary === undefined) return undefined;
  return {
    ...reusedLayer(layer, layer.diffId, path, summary),
    current: path,
    staged: undefined,
    source: layer,
  };
}

function stagedLayer(
  layer: LayerSource,
  converted: ConvertedLayer,
  codec: Codec,
  staging: Staging,
  name: string,
): StagedLayer {
  const path = join(staging.folder, blobFile(layerKey(converted.diffId, layer.baseDirectory), codec));
  return {
    ...builtLayer(layer, converted, codec, path),
    current: staging.pathOf(name),
    staged: name,
    source: layer,
  };
}

/** The index over the layers. An error that names a blob's file is made to name the layer. */
function mergeIndex(layers: readonly StagedLayer[]): Uint8Array {
  const blobs: Image[] = [];
  try {
    for (const { current } of layers) blobs.push(Image.open(current));
    checkBases(
      layers.map(({ source }, i) => ({
        image: blobs[i] as Image,
        baseDirectory: source.baseDirectory,
      })),
    );
    return mergeLayers(blobs);
  } catch (cause) {
    throw ofLayer(
      cause as Error,
      layers.map(({ current }) => current),
      layers.map(({ digest, diffId }) => digest ?? diffId),
    );
  } finally {
    for (const blob of blobs) blob.close();
  }
}

function indexNumbers(
  path: string,
  blobDirectory: string,
): Pick<BuildResult, "rootDigest" | "treeRoot" | "entries" | "inodes" | "logicalBytes"> {
  const index = Image.open(path, { blobDirectory });
  try {
    const { rootDigest, treeRoot, entryTotal, inodeCount, logicalBytes } = index;
    return { rootDigest, treeRoot, entries: entryTotal, inodes: inodeCount, logicalBytes };
  } finally {
    index.close();
  }
}

/** Names the blobs, each once however often its layer occurs. */
function publishLayers(layers: readonly StagedLayer[], codec: Codec, staging: Staging): BuiltLayer[] {
  const done = new Set<string>();
  return layers.map(({ current: _, staged, source, ...layer }) => {
    if (staged !== undefined && !done.has(staged)) {
      staging.publish(staged, blobFile(layerKey(layer.diffId, source.baseDirectory), codec));
      done.add(staged);
    }
    return layer;
  });
}
