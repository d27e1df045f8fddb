// Removing content that no image needs. What goes is chosen under a lock that is held shortly, and removed outside of it.
import { renameSync, rmSync } from "node:fs";
import { join } from "node:path";
import { ingestsOf } from "./downloads.js";
import { fault } from "./fault.js";
import { GC_LOCK, leasedContent, withLease } from "./lease.js";
import { underLock } from "./locks.js";
import { contentSizes, storeSizes, usedContent } from "./sizes.js";
import { contentOf } from "./sources.js";
import type { Measure, Store } from "./store.js";

export interface CleanOptions {
  /** Nothing is done below it; 0 cleans always. */
  readonly thresholdBytes: number;
  /** What is compared with it: the content and what images may write, or the content alone. */
  readonly mode: "committed" | "used";
  /** References whose content stays. */
  readonly keep: readonly string[];
  readonly measure?: Measure | undefined;
}

/** Milliseconds after which a download that nobody goes on with is given up. */
const INGEST_LIFETIME = 24 * 3600 * 1000;

/** GrootFS waits as long for its locks. */
const PATIENCE = 3000;

/** Rejects with StoreError: another clean does not end, an image that cannot be read. */
export async function cleanStore(
  store: Store,
  { thresholdBytes, mode, keep, measure }: CleanOptions,
): Promise<{ cleaned: boolean }> {
  const { committedQuotaBytes, diskBytes } = storeSizes(store);
  const size = diskBytes + (mode === "committed" ? committedQuotaBytes : 0);
  if (size < thresholdBytes) return { cleaned: false };
  return withLease(store, async (lease) => {
    const options = { patience: PATIENCE, measure };
    const taken = await underLock(store.path, GC_LOCK, "exclusive", options, () => {
      // Leases first: one that ends after they were read has given its content to an image by then.
      const needed = new Set([
        ...leasedContent(store),
        ...usedContent(store),
        ...keep.flatMap((source) => contentOf(store, source)),
      ]);
      const names = [...contentSizes(store).keys()].filter((name) => !needed.has(name));
      for (const name of names) {
        fault("clean.take");
        renameSync(join(store.path, "content", name), lease.path(`gc-${name}`));
      }
      return names;
    });
    for (const name of taken) {
      fault("clean.remove");
      rmSync(lease.path(`gc-${name}`));
    }
    ingestsOf(store).expire(new Date(Date.now() - INGEST_LIFETIME));
    return { cleaned: true };
  });
}
