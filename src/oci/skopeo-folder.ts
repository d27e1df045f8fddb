// `dir:PATH` where PATH is what `skopeo copy ... dir:PATH` and `buildah push ... dir:PATH` write (containers-image,
// directory transport): `version`, `manifest.json` and the blobs, each named by the hex of its digest.
import { open } from "node:fs/promises";
import { join } from "node:path";
import { digestAlgorithm, digestHex } from "../base/digest.js";
import { type Blobs, readSmall, wholeFile } from "./blobs.js";
import { openDocument } from "./manifest.js";
import type { Reference } from "./reference.js";
import type { ImageSource, SourceOptions } from "./source.js";

const marker = "Directory Transport Version: ";

/** Whether the folder is one of skopeo's, and not a tree of files. */
export async function isSkopeoFolder(folder: string): Promise<boolean> {
  try {
    const version = await wholeFile(join(folder, "version"));
    if (version === undefined || (await wholeFile(join(folder, "manifest.json"))) === undefined) return false;
    const file = await open(version.path, "r");
    try {
      const { buffer, bytesRead } = await file.read(Buffer.alloc(marker.length), 0, marker.length, 0);
      return buffer.toString("latin1", 0, bytesRead) === marker;
    } finally {
      await file.close();
    }
  } catch {
    return false;
  }
}

/** Opens the image of a folder that {@link isSkopeoFolder} has found to be one. */
export async function openSkopeoFolder(reference: Reference, options: SourceOptions): Promise<ImageSource> {
  const { path, text } = reference;
  const find: Blobs["find"] = async (digest) => {
    const algorithm = digestAlgorithm(digest);
    const name = algorithm === "sha256" ? digestHex(digest) : `${algorithm}-${digestHex(digest)}`;
    return (await wholeFile(join(path, name))) ?? (await wholeFile(join(path, `${name}.manifest.json`)));
  };
  const bytes = await readSmall(path, "manifest.json", "a skopeo folder");
  return openDocument({ place: path, find }, { subject: `${path}/manifest.json`, bytes }, text, options);
}
