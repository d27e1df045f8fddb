// From a source as the user wrote it to an image: one row per transport.
import { stat } from "node:fs/promises";
import { openDockerArchive } from "./docker-archive.js";
import { openLayout } from "./layout.js";
import { formatPlatform, hostPlatform, parsePlatform } from "./platform.js";
import { parseReference, type Reference, type Transport } from "./reference.js";
import type { ImageSource, SourceOptions } from "./source.js";

type Opener = (reference: Reference, options: SourceOptions) => Promise<ImageSource>;

const openers: Readonly<Record<Transport, Opener>> = {
  oci: openLayout,
  "docker-archive": openDockerArchive,
  tar: openTar,
};

/**
 * Opens `oci:DIR[:TAG]`, `docker-archive:FILE[:REF]` or `tar:FILE`. The manifest and the config are read and checked;
 * no layer is. Throws one-line Errors that name the object.
 */
export async function openSource(text: string, options: SourceOptions = {}): Promise<ImageSource> {
  const reference = parseReference(text);
  try {
    return await openers[reference.transport](reference, options);
  } catch (cause) {
    const error = cause as NodeJS.ErrnoException;
    if (error.code === undefined) throw cause;
    if (error.code === "ENOENT") throw new Error(`${reference.path}: no such file or folder`);
    throw new Error(`${reference.path}: ${error.message}`);
  }
}

/** An image of the one layer that a tar file is. Nothing is known of it until it has been read. */
async function openTar(reference: Reference, options: SourceOptions): Promise<ImageSource> {
  const path = reference.path;
  const found = await stat(path);
  if (!found.isFile()) throw new Error(`${path}: not a file`);
  const platform = options.platform === undefined ? hostPlatform() : parsePlatform(options.platform);
  return {
    name: reference.text,
    platform: formatPlatform(platform),
    config: undefined,
    layers: [
      {
        bytes: { kind: "file", path, offset: 0, size: found.size },
        mediaType: "application/vnd.oci.image.layer.v1.tar",
        digest: undefined,
        diffId: undefined,
      },
    ],
  };
}
