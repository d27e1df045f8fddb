// Removing content that no image needs, and images whose makers died. What goes is chosen under a lock that is held shortly,
// and removed outside of it.
import { readdirSync } from "node:fs";
import { join } from "node:path";
import { type Aside, removeAsides, takeAside } from "./aside.js";
import { discard, takeOut } from "./delete.js";
import { ingestsOf } from "./downloads.js";
import { StoreError, wordsOf } from "./errors.js";
import { fault } from "./fault.js";
import { eachImage, imageLock, isAbandoned, readImage } from "./images.js";
import { GC_LOCK, leasedContent, sweep } from "./lease.js";
import { tryLock, underLock } from "./locks.js";
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
  /** Milliseconds that it may take; {@link CLEAN_TIMEOUT} unless given. */
  readonly timeout?: number | undefined;
}

/** GrootFS's, in milliseconds. */
export const CLEAN_TIMEOUT = 600_000;

/** Milliseconds after which a download that nobody goes on with is given up. */
const INGEST_LIFETIME = 24 * 3600 * 1000;

/** GrootFS waits as long for its locks. */
const PATIENCE = 3000;

/**
 * Rejects with StoreError: another clean does not end, it takes too long, an image does not say what it needs. What was taken
 * out and is not removed then, the next clean removes. What cannot be removed stays, with a warning.
 */
export async function cleanStore(
  store: Store,
  { thresholdBytes, mode, keep, measure, timeout = CLEAN_TIMEOUT }: CleanOptions,
): Promise<{ cleaned: boolean }> {
  const checkTime = timerOf(timeout);
  const { committedQuotaBytes, diskBytes } = storeSizes(store);
  const size = diskBytes + (mode === "committed" ? committedQuotaBytes : 0);
  if (size < thresholdBytes) return { cleaned: false };
  sweep(store);
  for (const id of abandonedImages(store)) {
    checkTime();
    await removeAbandoned(store, id);
  }
  const warn = (cause: unknown): void => store.warn?.(`clean: ${wordsOf(cause)}`);
  const options = { patience: PATIENCE, measure };
  const taken = await underLock(store.path, GC_LOCK, "exclusive", options, () => {
    // Leases first: one that ends after they were read has given its content to an image by then.
    const leased = leasedContent(store);
    fault("clean.look");
    const kept = keep.flatMap((source) => contentOf(store, source));
    const needed = new Set([...leased, ...usedContent(store), ...kept]);
    const asides: Aside[] = [];
    for (const name of contentSizes(store).keys()) {
      if (needed.has(name)) continue;
      checkTime();
      fault("clean.take");
      asides.push(takeAside(store, join(store.path, "content", name), "gc"));
    }
    return asides;
  });
  for (const aside of taken) {
    checkTime();
    try {
      fault("clean.remove");
      aside.remove();
    } catch (cause) {
      warn(cause);
    }
  }
  removeAsides(store, "gc", "clean.remove", warn, checkTime);
  // To look at them takes a lock, for which a full disk may have no room.
  if (readdirSync(join(store.path, "ingests")).length > 0) {
    ingestsOf(store).expire(new Date(Date.now() - INGEST_LIFETIME));
  }
  return { cleaned: true };
}

/** Throws StoreError from `timeout` milliseconds after now on. */
function timerOf(timeout: number): () => void {
  const deadline = performance.now() + timeout;
  return () => {
    if (performance.now() < deadline) return;
    throw new StoreError("timeout", `timed out cleaning after '${timeout / 1000}s'`);
  };
}

function abandonedImages(store: Store): string[] {
  return [...eachImage(store)].flatMap((image) =>
    "state" in image && isAbandoned(store, image) ? [image.id] : [],
  );
}

/** An image that somebody is at, or whose mount cannot be taken away, stays. */
async function removeAbandoned(store: Store, id: string): Promise<void> {
  const lock = tryLock(store.path, imageLock(id), "exclusive");
  if (lock === undefined) return;
  let aside: Aside | undefined;
  try {
    const image = readImage(store, id);
    if (image !== undefined && isAbandoned(store, image)) aside = await takeOut(store, id);
  } catch (cause) {
    store.warn?.(wordsOf(cause));
  } finally {
    lock.release();
  }
  if (aside !== undefined) discard(store, aside);
}
