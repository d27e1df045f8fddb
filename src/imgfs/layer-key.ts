// What a layer blob is of: the diffID of its tar, or where the tar's entries are placed under a directory both of them. A layer
// with a base directory has another tree than the plain one of the same tar, so it must never be taken for it.
import { createHash } from "node:crypto";
import { bytesOf, type Name, nameOf } from "../base/bytes.js";
import { type Digest, digestBytes, digestOf } from "../base/digest.js";
import type { Image } from "./image.js";
import { EntryType } from "./layout.js";
import type { DirectoryEntry } from "./tree-reader.js";

const prefix = "imgfs base directory\0";

/** The `source` of a layer blob, FORMAT.md section 2. `baseDirectory` is `a/b/c`; the root where it is undefined. */
export function layerKey(diffId: Digest, baseDirectory: Name | undefined): Digest {
  if (baseDirectory === undefined) return diffId;
  const hash = createHash("sha256").update(prefix).update(digestBytes(diffId));
  return digestOf(hash.update(bytesOf(baseDirectory)).digest());
}

/**
 * Whether a layer is of the tar with this diffID, wherever its entries are placed: where that is it does not say, but there is
 * nothing else on the way there.
 */
export function isLayerOf(layer: Image, diffId: Digest): boolean {
  const entry: DirectoryEntry = { row: 0, type: 0, bytes: layer.metadata.bytes, start: 0, end: 0 };
  let path: Name | undefined;
  for (let at = 0; layerKey(diffId, path) !== layer.source; at = entry.row) {
    if (layer.entryCount(at) !== 1) return false;
    layer.entry(at, 0, entry);
    if (entry.type !== EntryType.directory) return false;
    const name = nameOf(entry.bytes, entry.start, entry.end);
    path = (path === undefined ? name : `${path}/${name}`) as Name;
  }
  return true;
}
