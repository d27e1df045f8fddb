// Merged indexes in the store, each by the layers it is of.
import { renameSync } from "node:fs";
import { basename, join } from "node:path";
import type { Name } from "../base/bytes.js";
import { digestHex } from "../base/digest.js";
import { syncFolder, writeSynced } from "../base/durable.js";
import { Image } from "../imgfs/image.js";
import { checkBases } from "../imgfs/lower-directory.js";
import { indexSource, mergeLayers } from "../imgfs/merge.js";
import { clearPlace } from "./aside.js";
import { fault } from "./fault.js";
import { isFile } from "./files.js";
import type { Lease } from "./lease.js";
import type { Store } from "./store.js";

/** How an index is called in STORE/content. */
export const INDEX_SUFFIX = ".index.imgfs";

/** A blob of STORE/content, and where its entries are placed. */
export interface IndexedLayer {
  readonly path: string;
  readonly baseDirectory: Name | undefined;
}

/**
 * The path of the index over blobs, lowest first, made where it is not there. The lease keeps it. Throws MissingBase, and what
 * merging throws, which names the blob.
 */
export async function ensureIndex(
  store: Store,
  lease: Lease,
  blobs: readonly IndexedLayer[],
): Promise<string> {
  const layers: Image[] = [];
  try {
    for (const { path } of blobs) layers.push(Image.open(path));
    checkBases(layers.map((image, i) => ({ image, baseDirectory: blobs[i]?.baseDirectory })));
    const name = `${digestHex(indexSource(layers))}${INDEX_SUFFIX}`;
    await lease.need([name]);
    const path = join(store.path, "content", name);
    if (isSound(path)) return path;
    const made = lease.path(basename(path));
    fault("index.write");
    writeSynced(made, mergeLayers(layers), "wx", 0o600);
    fault("index.publish");
    clearPlace(store, path);
    renameSync(made, path);
    syncFolder(join(store.path, "content"));
    return path;
  } finally {
    for (const layer of layers) layer.close();
  }
}

function isSound(path: string): boolean {
  if (!isFile(path)) return false;
  try {
    Image.open(path).close();
    return true;
  } catch {
    return false;
  }
}
