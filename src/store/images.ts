// Images of a store: what is noted of each in images/ID/state.json, and which there are.
import { createHash } from "node:crypto";
import { lstatSync, readdirSync, readFileSync } from "node:fs";
import { join } from "node:path";
import { array, boolean, literal, number, object, optional, parse, picklist, string } from "valibot";
import { StoreError } from "./errors.js";
import { isLive } from "./lease.js";
import type { Store } from "./store.js";

const Maps = optional(array(object({ image: number(), host: number(), count: number() })));

const State = object({
  version: literal(1),
  id: string(),
  /** As it was named. */
  source: string(),
  /** RFC 3339. */
  created: string(),
  /** Files of STORE/content: the index, and the blobs it needs. */
  index: string(),
  blobs: array(string()),
  /** Bytes of the files in its layers. */
  baseBytes: number(),
  /** Limit in bytes, as it was asked for; absent where there is none. */
  limitBytes: optional(number()),
  excludeImage: boolean(),
  limitInodes: optional(number()),
  errno: picklist(["EDQUOT", "ENOSPC"]),
  mounted: boolean(),
  devices: boolean(),
  uidMap: Maps,
  gidMap: Maps,
  /** False until it is mounted; then the process that made it may have died over it. */
  complete: boolean(),
  /** The lease of that process. */
  lease: string(),
});

export interface ImageState {
  readonly version: 1;
  readonly id: string;
  readonly source: string;
  readonly created: string;
  readonly index: string;
  readonly blobs: readonly string[];
  readonly baseBytes: number;
  readonly limitBytes?: number | undefined;
  readonly excludeImage: boolean;
  readonly limitInodes?: number | undefined;
  readonly errno: "EDQUOT" | "ENOSPC";
  readonly mounted: boolean;
  readonly devices: boolean;
  readonly uidMap?:
    | readonly { readonly image: number; readonly host: number; readonly count: number }[]
    | undefined;
  readonly gidMap?:
    | readonly { readonly image: number; readonly host: number; readonly count: number }[]
    | undefined;
  readonly complete: boolean;
  readonly lease: string;
}

export interface StoredImage {
  readonly id: string;
  /** images/ID, absolute. */
  readonly path: string;
  readonly rootfs: string;
  readonly state: ImageState;
}

export const STATE_FILE = "state.json";
export const CONFIG_FILE = "image.json";
const ID_MAX = 255;
const READ_TRIES = 5;

/** Throws StoreError for what cannot be an id. */
export function checkId(id: string): void {
  if (id.includes("/")) throw new StoreError("bad-id", `id \`${id}\` contains invalid characters: \`/\``);
  if (id === "") throw new StoreError("bad-id", "id was not specified");
  // Who reads a list of images reads a line for each.
  if (id === "." || id === ".." || /\p{Cc}/u.test(id) || Buffer.byteLength(id) > ID_MAX) {
    throw new StoreError("bad-id", `id ${JSON.stringify(id)} cannot be the name of an image`);
  }
}

export function imagePath(store: Store, id: string): string {
  checkId(id);
  return join(store.path, "images", id);
}

/** The lock of an image: its id may be as long as a name can be. */
export function imageLock(id: string): string {
  return `image-${createHash("sha256").update(id).digest("hex")}`;
}

/** The limit that the mount enforces; undefined without one. */
export function exclusiveLimit({ limitBytes, excludeImage, baseBytes }: ImageState): number | undefined {
  if (limitBytes === undefined) return undefined;
  return excludeImage ? limitBytes : limitBytes - baseBytes;
}

/** An image by its id; undefined where there is none. Throws StoreError for one whose state cannot be read. */
export function readImage(store: Store, id: string, tries = READ_TRIES): StoredImage | undefined {
  const path = imagePath(store, id);
  // Nothing in a store is a symlink: one that is there was planted.
  if (lstatSync(path, { throwIfNoEntry: false })?.isDirectory() !== true) return undefined;
  try {
    const state = parse(State, JSON.parse(readFileSync(join(path, STATE_FILE), "utf8"))) as ImageState;
    return { id, path, rootfs: join(path, "rootfs"), state };
  } catch (cause) {
    // Deleted meanwhile, and perhaps made anew: a folder has its state as long as it has its name.
    const gone = (cause as NodeJS.ErrnoException).code === "ENOENT";
    if (gone && tries > 1) return readImage(store, id, tries - 1);
    throw new StoreError("damaged", `image ${id}: ${STATE_FILE} cannot be read`, { cause });
  }
}

/** All images, those in the making and those that nothing can be said of too. */
export function* eachImage(
  store: Store,
): Generator<StoredImage | { readonly id: string; readonly path: string; readonly damage: StoreError }> {
  for (const id of readdirSync(join(store.path, "images"))) {
    try {
      const image = readImage(store, id);
      if (image !== undefined) yield image;
    } catch (cause) {
      if (!(cause instanceof StoreError)) throw cause;
      yield { id, path: join(store.path, "images", id), damage: cause };
    }
  }
}

/** True for an image whose maker died before it was complete. */
export function isAbandoned(store: Store, { state }: StoredImage): boolean {
  return !state.complete && !isLive(store, state.lease);
}
