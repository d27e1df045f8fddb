// What files of a built image are called in their folder.
import { statSync } from "node:fs";
import { join } from "node:path";
import { type Digest, digestHex } from "../base/digest.js";
import type { Codec } from "./codec.js";

/** The merged index of the image in a folder. */
export const INDEX_FILE = "index.imgfs";
/** The OCI image config, its bytes as they came. */
export const CONFIG_FILE = "config.json";

/** The file name of a layer blob. Blobs of one layer with different codecs lie side by side. */
export function blobFile(diffId: Digest, codec: Codec): string {
  const suffix = codec.name === "none" ? "" : `.${codec.name}-${codec.level}`;
  return `${digestHex(diffId)}${suffix}.imgfs`;
}

/** The file to open for `path`: the index of an image folder, or the file itself. Throws ENOENT as stat(2) does. */
export function imageFile(path: string): string {
  const file = statSync(path).isDirectory() ? join(path, INDEX_FILE) : path;
  statSync(file);
  return file;
}
