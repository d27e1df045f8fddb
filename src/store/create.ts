// Making images: layers and index into the store, then the image's folder by one rename, then its mount.
import { mkdirSync } from "node:fs";
import { availableParallelism } from "node:os";
import { basename, join } from "node:path";
import { syncFolder } from "../base/durable.js";
import { Errno, FsError } from "../base/errno.js";
import type { BuildEvent, BuiltLayer } from "../builder/image.js";
import { ofLayer } from "../builder/layers.js";
import { Threads } from "../builder/pool.js";
import { createUnpacking } from "../builder/unpacking.js";
import type { IdRange } from "../daemon/id-maps.js";
import { type Codec, noCodec } from "../imgfs/codec.js";
import { makeConfig } from "../oci/config.js";
import { isRemote, openSource } from "../oci/open.js";
import type { RegistryOptions } from "../oci/registry/options.js";
import type { ImageSource } from "../oci/source.js";
import { AT_FDCWD, RENAME_NOREPLACE, renameAt } from "../sys/files.js";
import { discard, takeOut } from "./delete.js";
import { ofDisk, StoreError, wordsOf } from "./errors.js";
import { fault } from "./fault.js";
import { isThere, writeWhole } from "./files.js";
import {
  CONFIG_FILE,
  checkId,
  type ImageState,
  imageLock,
  imagePath,
  isAbandoned,
  readImage,
  STATE_FILE,
  type StoredImage,
} from "./images.js";
import { ensureIndex } from "./indexes.js";
import { ensureLayers } from "./layers.js";
import { type Lease, withLease } from "./lease.js";
import { Limit } from "./limits.js";
import { underLock } from "./locks.js";
import { type MountHere, mountEntryOf, mountStored } from "./mounts.js";
import { contentOf, noteContent } from "./sources.js";
import { letAllPass, letRootPass, type Measure, type Store, type StoreMaps } from "./store.js";

export interface PullOptions {
  /** A reference, see oci/reference.ts. */
  readonly source: string;
  /** Bytes; none unless given. What is larger is refused. */
  readonly limitBytes?: number;
  readonly codec?: Codec | undefined;
  readonly platform?: string | undefined;
  /** See oci/source.ts. */
  readonly skipLayerValidation?: boolean | undefined;
  readonly registry?: Omit<RegistryOptions, "onRetry"> | undefined;
  readonly onEvent?: ((event: BuildEvent) => void) | undefined;
  /** Ends it, with nothing left behind but layers that were whole. */
  readonly signal?: AbortSignal | undefined;
  readonly measure?: Measure | undefined;
}

export interface CreateOptions extends PullOptions {
  readonly id: string;
  /** The limit is of what is written alone. */
  readonly excludeImage?: boolean;
  readonly limitInodes?: number;
  /** What a write past the limit fails with; EDQUOT unless given. */
  readonly errno?: "EDQUOT" | "ENOSPC";
  /** False leaves the mount to the caller. */
  readonly mount: boolean;
  /** In place of the store's. */
  readonly maps?: StoreMaps;
  readonly devices?: boolean;
  /**
   * Mounts in this process, which then has to serve; used where all layers were known. Who has converted some is left with
   * the memory that took, so its mount gets a process of its own.
   */
  readonly mountHere?: MountHere | undefined;
}

export interface CreatedImage {
  readonly id: string;
  readonly path: string;
  readonly rootfs: string;
  /** The OCI config, parsed. */
  readonly config: unknown;
  /** Where the mount is left to the caller. */
  readonly mounts?: readonly {
    destination: string;
    type: string;
    source: string;
    options: readonly string[];
  }[];
  readonly baseBytes: number;
}

/** What of an image is in the store. */
interface Contents {
  readonly index: string;
  readonly blobs: readonly string[];
  readonly config: Uint8Array;
  readonly baseBytes: number;
  /** No layer had to be converted. */
  readonly wereKnown: boolean;
}

/** Makes an image. Rejects with StoreError, or with what opening and converting the source reject with. */
export async function createImage(store: Store, options: CreateOptions): Promise<CreatedImage> {
  checkId(options.id);
  return onDisk(store, async (lease) => {
    await makeRoom(store, options.id);
    const limitBytes = options.excludeImage === true ? undefined : options.limitBytes;
    const contents = await pull(store, lease, options, limitBytes);
    if (limitBytes !== undefined && contents.baseBytes > limitBytes) {
      throw new StoreError("volume", "disk limit is smaller than volume size");
    }
    return underLock(store.path, imageLock(options.id), "exclusive", options, async () => {
      const image = publish(store, lease, options, contents);
      let undoMount = async (): Promise<void> => {};
      try {
        if (options.mount) {
          const mountHere = contents.wereKnown ? options.mountHere : undefined;
          undoMount = await mountStored(store, image, mountHere);
        }
        options.signal?.throwIfAborted();
        fault("image.complete");
        writeState(lease, image.path, { ...image.state, complete: true });
        syncFolder(image.path);
      } catch (cause) {
        await undoMount();
        await takeBack(store, options.id);
        throw cause;
      }
      return {
        id: image.id,
        path: image.path,
        rootfs: image.rootfs,
        config: JSON.parse(Buffer.from(contents.config).toString("utf8")) as unknown,
        baseBytes: contents.baseBytes,
        ...(options.mount ? {} : { mounts: [mountEntryOf(store, image)] }),
      };
    });
  });
}

/** Brings an image's layers into the store and makes nothing of them. */
export async function pullImage(store: Store, options: PullOptions): Promise<void> {
  await onDisk(store, (lease) => pull(store, lease, options, options.limitBytes));
}

/** Runs `work` with a lease; what it fails with where the disk is full names the store. */
async function onDisk<T>(store: Store, work: (lease: Lease) => Promise<T>): Promise<T> {
  try {
    return await withLease(store, work);
  } catch (cause) {
    throw ofDisk(store.path, cause);
  }
}

/** Takes an image away that could not be completed. Where that fails it stays, as one that is not complete, for a clean. */
async function takeBack(store: Store, id: string): Promise<void> {
  try {
    discard(store, await takeOut(store, id));
  } catch (cause) {
    store.warn?.(wordsOf(cause));
  }
}

/** An id that is taken is refused before anything is fetched; what a dead process has left of one goes. */
async function makeRoom(store: Store, id: string): Promise<void> {
  const left = (): boolean => {
    let found: StoredImage | undefined;
    try {
      found = readImage(store, id);
    } catch (cause) {
      throw cause instanceof StoreError && cause.kind === "damaged" ? taken(id) : cause;
    }
    if (found !== undefined && !isAbandoned(store, found)) throw taken(id);
    return found !== undefined;
  };
  if (!left()) return;
  const aside = await underLock(store.path, imageLock(id), "exclusive", {}, () =>
    // Somebody else may have made room before us, and the image too.
    left() ? takeOut(store, id) : undefined,
  );
  if (aside !== undefined) discard(store, aside);
}

function taken(id: string): StoreError {
  return new StoreError("exists", `image for id \`${id}\` already exists`);
}

/** Threads that are started before it is known what there is to convert. */
const readyThreads = 2;

async function pull(
  store: Store,
  lease: Lease,
  {
    source,
    codec = noCodec,
    platform,
    skipLayerValidation,
    registry,
    onEvent = () => {},
    signal,
    measure,
  }: PullOptions,
  limitBytes: number | undefined,
): Promise<Contents> {
  let archives = 0;
  const unpacking = createUnpacking(() => lease.path(`archive-${archives++}`), signal);
  const onRetry = (message: string): void => onEvent({ type: "retry", message });
  // While a registry is asked a core has nothing else to do. What was pulled before is likely to be there.
  const isNew = isRemote(source) && contentOf(store, source).length === 0;
  const threads = isNew ? new Threads(Math.min(availableParallelism(), readyThreads)) : undefined;
  const limit = new Limit(limitBytes);
  let opened: ImageSource | undefined;
  try {
    const image = await openSource(source, {
      platform,
      skipLayerValidation,
      unpacking,
      registry: { ...registry, onRetry },
      signal,
    });
    opened = image;
    limit.checkSizes(image);
    onEvent({
      type: "start",
      layers: image.layers.map(({ digest, bytes }) => ({ digest, size: bytes.size })),
    });
    const check = (layer: BuiltLayer): void => limit.checkLayer(layer);
    const converting = { codec, onEvent, signal, measure, check, threads };
    const layers = await ensureLayers(store, lease, limit.bounded(image), converting).catch(
      (cause: unknown) => {
        throw limit.explain(cause);
      },
    );
    onEvent({ type: "merge", layers: layers.length });
    const blobs = layers.map(({ path }) => path);
    const placed = blobs.map((path, i) => ({ path, baseDirectory: image.layers[i]?.baseDirectory }));
    const index = await ensureIndex(store, lease, placed).catch((cause: Error) => {
      const names = image.layers.map(({ digest, claim }, i) => digest ?? claim?.digest ?? layers[i]?.diffId);
      throw ofLayer(cause, blobs, names as string[]);
    });
    const contents: Contents = {
      index: basename(index),
      blobs: [...new Set(blobs)].map((path) => basename(path)),
      config:
        image.config ??
        makeConfig(
          image.platform,
          layers.map(({ diffId }) => diffId),
        ),
      baseBytes: layers.reduce((sum, { summary }) => sum + summary.logicalBytes, 0),
      wereKnown: layers.every(({ reused }) => reused),
    };
    noteContent(store, lease, source, [contents.index, ...contents.blobs]);
    return contents;
  } finally {
    await threads?.end();
    await opened?.close?.();
  }
}

/** Makes the image's folder and gives it its name. Throws StoreError where that is taken. */
function publish(store: Store, lease: Lease, options: CreateOptions, contents: Contents): StoredImage {
  const {
    id,
    source,
    limitBytes,
    excludeImage = false,
    limitInodes,
    errno = "EDQUOT",
    devices = false,
  } = options;
  const { index, blobs, config, baseBytes } = contents;
  const { uid, gid } = options.maps ?? store.maps;
  const state: ImageState = {
    version: 1,
    id,
    source,
    created: new Date().toISOString(),
    index,
    blobs,
    baseBytes,
    limitBytes,
    excludeImage,
    limitInodes,
    errno,
    mounted: options.mount,
    devices,
    uidMap: mapOf(uid),
    gidMap: mapOf(gid),
    complete: false,
    lease: lease.name,
  };
  const made = lease.path("image");
  fault("image.folder");
  for (const name of ["", "rootfs", "diff", "work"])
    mkdirSync(join(made, name), { mode: name === "" ? 0o700 : 0o755 });
  letRootPass({ uid, gid }, made);
  if (options.maps !== undefined) letAllPass(store);
  writeState(lease, made, state);
  fault("image.write");
  writeWhole(join(made, CONFIG_FILE), config, lease.path(CONFIG_FILE));
  syncFolder(made);
  const path = imagePath(store, id);
  fault("image.publish");
  giveName(made, path, id);
  syncFolder(join(store.path, "images"));
  return { id, path, rootfs: join(path, "rootfs"), state };
}

/** Throws StoreError where something has that name, be it an empty folder, which rename(2) by itself replaces. */
function giveName(made: string, path: string, id: string): void {
  const rename = (flags: number): number =>
    renameAt(AT_FDCWD, Buffer.from(made), AT_FDCWD, Buffer.from(path), flags);
  let result = rename(RENAME_NOREPLACE);
  // A filesystem that does not know the flag. Under the image's lock nobody else of ours gives that name.
  if (result === -Errno.EINVAL && !isThere(path)) result = rename(0);
  if (result === -Errno.EINVAL || result === -Errno.EEXIST || result === -Errno.ENOTEMPTY) throw taken(id);
  if (result < 0) throw new FsError(-result, path);
}

function mapOf(ranges: readonly IdRange[]): readonly IdRange[] | undefined {
  return ranges.length === 0 ? undefined : ranges;
}

function writeState(lease: Lease, path: string, state: ImageState): void {
  fault("image.write");
  writeWhole(join(path, STATE_FILE), `${JSON.stringify(state)}\n`, lease.path(STATE_FILE));
}
