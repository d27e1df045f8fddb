// What the content of a store takes, and whose it is.
import { lstatSync, readdirSync } from "node:fs";
import { join } from "node:path";
import { Image } from "../imgfs/image.js";
import { StoreError, wordsOf } from "./errors.js";
import { isFile } from "./files.js";
import { eachImage, exclusiveLimit, type StoredImage } from "./images.js";
import type { Store } from "./store.js";

/** What lies in STORE/content, and the lengths of what are files. */
export function contentSizes(store: Store): Map<string, number> {
  const sizes = new Map<string, number>();
  const folder = join(store.path, "content");
  for (const name of readdirSync(folder)) {
    const stat = lstatSync(join(folder, name), { throwIfNoEntry: false });
    if (stat !== undefined) sizes.set(name, stat.isFile() ? stat.size : 0);
  }
  return sizes;
}

/**
 * Files of STORE/content that images need. One that does not say what it needs may need anything: then a StoreError names it,
 * and how to be rid of it.
 */
export function usedContent(store: Store): Set<string> {
  const used = new Set<string>();
  for (const image of eachImage(store)) {
    if (!("state" in image)) {
      const { damage, id } = image;
      const way = `nothing is removed that it may need; \`imgfs delete ${id}\` removes the image`;
      throw new StoreError("damaged", `${damage.message} (${way})`);
    }
    used.add(image.state.index);
    for (const blob of image.state.blobs) used.add(blob);
  }
  return used;
}

/** All in bytes. */
export interface StoreSizes {
  /** Of content that images need. */
  readonly usedBytes: number;
  readonly unusedBytes: number;
  /** What images may still come to write, by their limits. */
  readonly committedQuotaBytes: number;
  readonly diskBytes: number;
}

/** Of images that can be read; what another may need counts as unused. */
export function storeSizes(store: Store): StoreSizes {
  const images = [...eachImage(store)].filter((image): image is StoredImage => "state" in image);
  const used = new Set(images.flatMap(({ state }) => [state.index, ...state.blobs]));
  let usedBytes = 0;
  let unusedBytes = 0;
  for (const [name, size] of contentSizes(store)) {
    if (used.has(name)) usedBytes += size;
    else unusedBytes += size;
  }
  const committedQuotaBytes = images.reduce((sum, { state }) => sum + (exclusiveLimit(state) ?? 0), 0);
  return { usedBytes, unusedBytes, committedQuotaBytes, diskBytes: usedBytes + unusedBytes };
}

/** Reads the sizes of all layers again. They are kept in the blobs themselves: one that cannot be read is a StoreError. */
export async function measureVolumes(store: Store): Promise<void> {
  for (const name of contentSizes(store).keys()) {
    const path = join(store.path, "content", name);
    if (!isFile(path)) throw new StoreError("damaged", `${path}: not a regular file`);
    try {
      Image.open(path).close();
    } catch (cause) {
      throw new StoreError("damaged", wordsOf(cause), { cause });
    }
  }
}
