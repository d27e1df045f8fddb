// Removing images.
import { join } from "node:path";
import { syncFolder } from "../base/durable.js";
import { type Aside, takeAside } from "./aside.js";
import { StoreError, wordsOf } from "./errors.js";
import { fault } from "./fault.js";
import { isFolder } from "./files.js";
import { imageLock, imagePath } from "./images.js";
import { sweep } from "./lease.js";
import { underLock } from "./locks.js";
import { deletionFailed, unmountImage } from "./mounts.js";
import { mountWithin } from "./remove.js";
import type { Measure, Store } from "./store.js";

/**
 * Unmounts an image and removes it, whatever is left of it: nothing that is noted in it is read. Needs no room on the disk.
 * Rejects with StoreError: in use, or not there.
 */
export async function deleteImage(
  store: Store,
  id: string,
  { measure }: { measure?: Measure } = {},
): Promise<void> {
  sweep(store);
  const aside = await underLock(store.path, imageLock(id), "exclusive", { measure }, () =>
    takeOut(store, id),
  );
  discard(store, aside);
}

/** Takes an image out of the store, under its lock. Rejects with StoreError; then the image is whole. */
export async function takeOut(store: Store, id: string): Promise<Aside> {
  const path = imagePath(store, id);
  const absent = (): StoreError => new StoreError("absent", `Image \`${id}\` not found.`);
  if (!isFolder(path)) throw absent();
  await unmountImage(path);
  const mount = mountWithin(path);
  if (mount !== undefined) throw deletionFailed(path, new Error(`${mount} is mounted in it`));
  fault("delete.take");
  let aside: Aside;
  try {
    aside = takeAside(store, path, "gone");
  } catch (cause) {
    throw (cause as NodeJS.ErrnoException).code === "ENOENT" ? absent() : cause;
  }
  // Who was killed over making it may have left a process that has mounted it only now.
  await unmountImage(aside.path);
  syncFolder(join(store.path, "images"));
  return aside;
}

/** Removes what was taken out. The image is gone in any case: what cannot be removed is left to the next one that sweeps. */
export function discard(store: Store, aside: Aside): void {
  try {
    fault("delete.remove");
    aside.remove();
  } catch (cause) {
    store.warn?.(wordsOf(cause));
  }
}
