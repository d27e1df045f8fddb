// What an image takes.
import { join } from "node:path";
import { nameFromText } from "../base/bytes.js";
import { openControl } from "../daemon/control-client.js";
import type { QuotaFigures } from "../daemon/control-protocol.js";
import { isOurs } from "../daemon/place.js";
import { costOfUpper } from "../overlay/quota/offline.js";
import { readMounts } from "../sys/mountinfo.js";
import { StoreError } from "./errors.js";
import { isFolder } from "./files.js";
import { exclusiveLimit, readImage, type StoredImage } from "./images.js";
import { mountpointOf } from "./mounts.js";
import type { Store } from "./store.js";

/** All in bytes. */
export interface ImageStats {
  /** The image's layers, and what was written. */
  readonly totalBytes: number;
  readonly exclusiveBytes: number;
  /** What may be written; 0 without a limit. */
  readonly quotaBytes: number;
  readonly committedBytes: number;
}

/** Rejects with StoreError of kind `absent`. */
export async function imageStats(store: Store, id: string): Promise<ImageStats> {
  const image = readImage(store, id);
  if (image === undefined) throw new StoreError("absent", `Image \`${id}\` not found.`);
  const { baseBytes } = image.state;
  const exclusiveBytes = await writtenBytes(image);
  const quotaBytes = exclusiveLimit(image.state) ?? 0;
  return {
    totalBytes: baseBytes + exclusiveBytes,
    exclusiveBytes,
    quotaBytes,
    committedBytes: baseBytes + quotaBytes,
  };
}

/** Of a mount its process knows; else the upper directory is counted. */
async function writtenBytes({ id, path }: StoredImage): Promise<number> {
  const rootfs = mountpointOf(path);
  if (isOurs(readMounts(), nameFromText(rootfs))) {
    const control = await openControl(rootfs).catch(() => undefined);
    try {
      const figures = await control?.ask<QuotaFigures>("quota");
      if (figures !== undefined)
        return figures.bytes - (figures.mode === "inclusive" ? figures.imageBytes : 0);
    } finally {
      control?.close();
    }
  }
  for (const name of ["diff", "work"]) {
    if (!isFolder(join(path, name)))
      throw new StoreError("damaged", `image ${JSON.stringify(id)}: ${name}: not a folder`);
  }
  return costOfUpper({ upper: join(path, "diff"), work: join(path, "work"), most: 0 }).bytes;
}
