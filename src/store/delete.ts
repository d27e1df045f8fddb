// Removing images.
import { renameSync, rmSync } from "node:fs";
import { join } from "node:path";
import { StoreError } from "./errors.js";
import { fault } from "./fault.js";
import { imageLock, imagePath } from "./images.js";
import { type Lease, withLease } from "./lease.js";
import { underLock } from "./locks.js";
import { unmountImage } from "./mounts.js";
import type { Measure, Store } from "./store.js";

/** Unmounts an image and removes it. Rejects with StoreError: in use, or not there. */
export async function deleteImage(
  store: Store,
  id: string,
  { measure }: { measure?: Measure } = {},
): Promise<void> {
  await withLease(store, async (lease) => {
    await underLock(store.path, imageLock(id), "exclusive", { measure }, () => takeOut(store, lease, id));
    fault("delete.remove");
    rmSync(lease.path("deleted"), { recursive: true, force: true });
  });
}

/** Takes an image out of the store, under its lock: what is left of it is the lease's. */
export async function takeOut(store: Store, lease: Lease, id: string): Promise<void> {
  const path = imagePath(store, id);
  await unmountImage(path);
  fault("delete.take");
  try {
    renameSync(path, join(lease.folder, "deleted"));
  } catch (cause) {
    if ((cause as NodeJS.ErrnoException).code !== "ENOENT") throw cause;
    throw new StoreError("absent", `Image \`${id}\` not found.`);
  }
}
