// What the content of a store takes, and whose it is.
import { readdirSync, statSync } from "node:fs";
import { join } from "node:path";
import { Image } from "../imgfs/image.js";
import { StoreError } from "./errors.js";
import { eachImage, exclusiveLimit, type StoredImage } from "./images.js";
import type { Store } from "./store.js";

/** Files of STORE/content and their lengths. */
export function contentSizes(store: Store): Map<string, number> {
  const sizes = new Map<string, number>();
  const folder = join(store.path, "content");
  for (const name of readdirSync(folder)) {
    const stat = statSync(join(folder, name), { throwIfNoEntry: false });
    if (stat !== undefined) sizes.set(name, stat.size);
  }
  return sizes;
}

/** Files of STORE/content that images need. Throws StoreError where an image does not say what it needs. */
export function usedContent(store: Store): Set<string> {
  const used = new Set<string>();
  for (const image of eachImage(store)) {
    if (!("state" in image)) throw image.damage;
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

/** Throws StoreError. */
export function storeSizes(store: Store): StoreSizes {
  const used = usedContent(store);
  let usedBytes = 0;
  let unusedBytes = 0;
  for (const [name, size] of contentSizes(store)) {
    if (used.has(name)) usedBytes += size;
    else unusedBytes += size;
  }
  const images = [...eachImage(store)].filter((image): image is StoredImage => "state" in image);
  const committedQuotaBytes = images.reduce((sum, { state }) => sum + (exclusiveLimit(state) ?? 0), 0);
  return { usedBytes, unusedBytes, committedQuotaBytes, diskBytes: usedBytes + unusedBytes };
}

/** Reads the sizes of all layers again. They are kept in the blobs themselves: one that cannot be read is a StoreError. */
export async function measureVolumes(store: Store): Promise<void> {
  for (const name of contentSizes(store).keys()) {
    try {
      Image.open(join(store.path, "content", name)).close();
    } catch (cause) {
      throw new StoreError("damaged", cause instanceof Error ? cause.message : String(cause), { cause });
    }
  }
}
