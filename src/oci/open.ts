// From a source as the user wrote it to an image: one row per transport.
import { stat } from "node:fs/promises";
import { displayName } from "../base/bytes.js";
import { errnoText } from "../base/errno.js";
import { openDockerArchive } from "./docker-archive.js";
import { openLayout, openOciArchive } from "./layout.js";
import { formatPlatform, hostPlatform, parsePlatform } from "./platform.js";
import { recognise } from "./recognise.js";
import { parseReference, type Reference, type Transport } from "./reference.js";
import { RegistryError } from "./registry/errors.js";
import { isSkopeoFolder, openSkopeoFolder } from "./skopeo-folder.js";
import type { ImageSource, LayerBytes, SourceOptions } from "./source.js";

type Opener = (reference: Reference, options: SourceOptions) => Promise<ImageSource>;

const openers: Readonly<Record<Transport, Opener>> = {
  oci: openLayout,
  "oci-archive": openOciArchive,
  "docker-archive": openDockerArchive,
  dir: openFolder,
  tar: openTar,
  // Loaded where it is asked for: nothing else needs a client of HTTP.
  docker: async (reference, options) => (await import("./registry/open.js")).openRegistry(reference, options),
};

/** Whether a source is fetched over the network. */
export function isRemote(text: string): boolean {
  return text.startsWith("docker:");
}

/**
 * Opens any source that oci/reference.ts can parse. The manifest and the config are read and checked; no layer is.
 * Throws one-line Errors that name the object.
 */
export async function openSource(text: string, options: SourceOptions = {}): Promise<ImageSource> {
  const parsed = parseReference(text);
  try {
    const reference = parsed.transport === undefined ? await recognise(parsed, options) : parsed;
    const isLayout = reference.transport === "oci";
    return await openers[reference.transport](reference, isLayout ? options : believing(options));
  } catch (cause) {
    // Told apart by its kind, and clean already.
    if (cause instanceof RegistryError || options.signal?.aborted) throw cause;
    const error = cause as NodeJS.ErrnoException;
    // Tags, platforms and names of members stand in messages as the source has them.
    if (error.code === undefined) throw new Error(displayName(Buffer.from(error.message)), { cause });
    if (error.code === "ENOENT") throw new Error(`${parsed.path}: no such file or folder`);
    throw new Error(`${error.path ?? parsed.path}: ${errnoText(error.code)}`);
  }
}

function believing(options: SourceOptions): SourceOptions {
  return { ...options, skipLayerValidation: false };
}

/** A folder that skopeo wrote, or a tree of files. */
async function openFolder(reference: Reference, options: SourceOptions): Promise<ImageSource> {
  const { path } = reference;
  const found = await stat(path);
  if (!found.isDirectory()) throw new Error(`${path}: not a folder`);
  if (await isSkopeoFolder(path)) return openSkopeoFolder(reference, options);
  return bareLayer(reference, { kind: "tree", path, size: 0 }, options);
}

/** An image of the one layer that a tar file is. Nothing is known of it until it has been read. */
async function openTar(reference: Reference, options: SourceOptions): Promise<ImageSource> {
  const { path } = reference;
  const found = await stat(path);
  if (!found.isFile()) throw new Error(`${path}: not a file`);
  return bareLayer(reference, { kind: "file", path, offset: 0, size: found.size }, options);
}

function bareLayer(reference: Reference, bytes: LayerBytes, options: SourceOptions): ImageSource {
  const platform = options.platform === undefined ? hostPlatform() : parsePlatform(options.platform);
  return {
    name: reference.text,
    platform: formatPlatform(platform),
    config: undefined,
    layers: [
      { bytes, mediaType: "application/vnd.oci.image.layer.v1.tar", digest: undefined, diffId: undefined },
    ],
  };
}
