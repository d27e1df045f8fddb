// What files of a built image are called in their folder.
import { statSync } from "node:fs";
import { join } from "node:path";
import { type Digest, digestHex } from "../base/digest.js";

/** The merged index of the image in a folder. */
export const INDEX_FILE = "index.imgfs";
/** The OCI image config, its bytes as they came. */
export const CONFIG_FILE = "config.json";

/** The file name of a layer blob. */
export function blobFile(diffId: Digest): string {
  return `${digestHex(diffId)}.imgfs`;
}

/** The file to open for `path`: the index of an image folder, or the file itself. Throws ENOENT as stat(2) does. */
export function imageFile(path: string): string {
  const file = statSync(path).isDirectory() ? join(path, INDEX_FILE) : path;
  statSync(file);
  return file;
}
