// An image as one self-contained file: built from a source, or from what a build has made.
// Invariants: the file gets its name when it is complete, by one rename; what fails or is stopped leaves nothing behind;
// only a file of ours is ever replaced.
import { closeSync, existsSync, openSync, readFileSync, readSync, statSync } from "node:fs";
import { basename, dirname, join, resolve } from "node:path";
import { type Digest, sha256 } from "../base/digest.js";
import { type Codec, codecText, noCodec } from "../imgfs/codec.js";
import { type FlatSummary, flattenImage } from "../imgfs/flatten.js";
import { blobFile, CONFIG_FILE } from "../imgfs/folder.js";
import { Image } from "../imgfs/image.js";
import { isLayerOf } from "../imgfs/layer-key.js";
import { MAGIC } from "../imgfs/layout.js";
import { checkConfig } from "../oci/config.js";
import { type BuildOptions, type BuildResult, buildImage } from "./image.js";
import { Staging } from "./staging.js";

export interface FlattenResult extends FlatSummary {
  readonly path: string;
  readonly codec: string;
  /** Digest of the embedded config; undefined where the image has none. */
  readonly configDigest: Digest | undefined;
  readonly entries: number;
  readonly inodes: number;
  /** Sum of file sizes, each inode once. */
  readonly logicalBytes: number;
  readonly milliseconds: number;
}

/** What `build --flatten` has made: of its layers what does not speak of blobs, which are gone. */
export interface FlatBuildResult extends FlattenResult {
  readonly platform: string;
  readonly sourceDigest?: BuildResult["sourceDigest"];
  readonly layers: readonly Omit<BuildResult["layers"][number], "path" | "reused">[];
}

export interface FlattenOptions {
  readonly codec?: Codec | undefined;
  readonly signal?: AbortSignal | undefined;
}

/**
 * Builds the image `source` into the one file `dest`. Its layers lie in a temporary folder beside it meanwhile. Throws
 * as buildImage and {@link flatten} do.
 */
export async function buildFlat(
  source: string,
  dest: string,
  { codec = noCodec, ...options }: BuildOptions = {},
): Promise<FlatBuildResult> {
  const start = performance.now();
  checkDestination(dest);
  const staging = new Staging(dirname(resolve(dest)));
  try {
    // Stored as they are, because frames of layers are not those of the whole.
    const folder = staging.temporary("layers");
    const { index, platform, sourceDigest, layers } = await buildImage(source, folder, options);
    const result = await write(index, dest, staging, { codec, signal: options.signal });
    return {
      ...result,
      platform,
      ...(sourceDigest === undefined ? {} : { sourceDigest }),
      layers: layers.map(({ path: _, reused: __, ...layer }) => layer),
      milliseconds: performance.now() - start,
    };
  } finally {
    staging.discard();
  }
}

/**
 * Makes the one file `dest` of an image that is there: an index beside its blobs and config, or a flattened file.
 * Throws one-line Errors that name the object.
 */
export async function flatten(
  index: string,
  dest: string,
  options: FlattenOptions = {},
): Promise<FlattenResult> {
  const start = performance.now();
  checkDestination(dest);
  const staging = new Staging(dirname(resolve(dest)));
  try {
    const result = await write(index, dest, staging, options);
    return { ...result, milliseconds: performance.now() - start };
  } finally {
    staging.discard();
  }
}

async function write(
  index: string,
  dest: string,
  staging: Staging,
  { codec = noCodec, signal }: FlattenOptions,
): Promise<Omit<FlattenResult, "milliseconds">> {
  const image = Image.open(index);
  try {
    image.openBlobs();
    const config = configOf(index, image);
    if (config !== undefined && !image.isFlat) checkLayers(index, image, config);
    const summary = await flattenImage(image, staging.temporary("flat"), { codec, config, signal });
    checkDestination(dest);
    const path = staging.publish("flat", basename(resolve(dest)));
    staging.sync();
    return {
      path,
      codec: codecText(codec),
      ...summary,
      configDigest: config && sha256(config),
      entries: image.entryTotal,
      inodes: image.inodeCount,
      logicalBytes: image.logicalBytes,
    };
  } finally {
    image.close();
  }
}

/** The OCI config of an image: inside a flattened file, else beside the index. */
export function configOf(index: string, image: Image): Buffer | undefined {
  if (image.isFlat) return image.config;
  const path = join(dirname(index), CONFIG_FILE);
  return image.kind === "index" && existsSync(path) ? readFileSync(path) : undefined;
}

/** Throws when a config that lies beside an index is another image's. */
function checkLayers(index: string, image: Image, bytes: Buffer): void {
  const path = join(dirname(index), CONFIG_FILE);
  const { diffIds } = checkConfig(path, bytes, image.blobs.length, undefined);
  const layer = image.blobs.findIndex(
    ({ source, codec }, i) =>
      source !== diffIds[i] && !isPlaced(join(dirname(index), blobFile(source, codec)), diffIds[i] as Digest),
  );
  if (layer < 0) return;
  throw new Error(
    `${path}: layer ${layer + 1} is ${diffIds[layer]}, in the index ${image.blobs[layer]?.source}`,
  );
}

/** Whether the layer at `path` is that of a diffID, its entries placed under a directory. */
function isPlaced(path: string, diffId: Digest): boolean {
  const layer = Image.open(path);
  try {
    return isLayerOf(layer, diffId);
  } finally {
    layer.close();
  }
}

/** Refuses to replace what is not ours. */
function checkDestination(dest: string): void {
  const stat = statSync(dest, { throwIfNoEntry: false });
  if (stat === undefined) return;
  if (stat.isDirectory()) throw new Error(`${dest}: is a folder, and a file is to be made`);
  const start = Buffer.alloc(MAGIC.length);
  if (stat.isFile()) {
    const fd = openSync(dest, "r");
    try {
      readSync(fd, start, 0, start.length, 0);
    } finally {
      closeSync(fd);
    }
  }
  if (!start.equals(MAGIC)) throw new Error(`${dest}: is there and no imgfs file, so it is not replaced`);
}
