// Images of a store: what is noted of each in images/ID/state.json, and which there are.
import { createHash } from "node:crypto";
import { readdirSync } from "node:fs";
import { join } from "node:path";
import {
  array,
  boolean,
  literal,
  number,
  object,
  optional,
  picklist,
  pipe,
  regex,
  safeParse,
  string,
} from "valibot";
import { errnoText } from "../base/errno.js";
import { readPlain } from "../base/plain.js";
import { StoreError } from "./errors.js";
import { isFolder } from "./files.js";
import { isLive } from "./lease.js";
import type { Store } from "./store.js";

const VERSION = 1;

const Maps = optional(array(object({ image: number(), host: number(), count: number() })));

/** A name in STORE/content. */
const File = pipe(string(), regex(/^[^/\0]+$/));

const State = object({
  version: literal(VERSION),
  id: string(),
  /** As it was named. */
  source: string(),
  /** RFC 3339. */
  created: string(),
  /** Files of STORE/content: the index, and the blobs it needs. */
  index: File,
  blobs: array(File),
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

/** False for a name that no image has: what is called so was planted. */
export function isId(id: string): boolean {
  return id !== "" && id !== "." && id !== ".." && !/[/\p{Cc}]/u.test(id) && Buffer.byteLength(id) <= ID_MAX;
}

/** Throws StoreError for what cannot be an id. */
export function checkId(id: string): void {
  if (id.includes("/")) throw new StoreError("bad-id", `id \`${id}\` contains invalid characters: \`/\``);
  if (id === "") throw new StoreError("bad-id", "id was not specified");
  // Who reads a list of images reads a line for each.
  if (!isId(id)) {
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

/**
 * An image by its id; undefined where there is none. Throws StoreError of kind `damaged` for one whose state cannot be read,
 * whatever is in its place.
 */
export function readImage(store: Store, id: string): StoredImage | undefined {
  const path = imagePath(store, id);
  for (let tries = 1; ; tries++) {
    // Nothing in a store is a symlink: one that is there was planted.
    if (!isFolder(path)) return undefined;
    let text: string;
    try {
      text = readPlain(join(path, STATE_FILE));
    } catch (cause) {
      const { code, message } = cause as NodeJS.ErrnoException;
      // Deleted meanwhile, and perhaps made anew: a folder has its state as long as it has its name.
      if (code === "ENOENT" && tries < READ_TRIES) continue;
      throw damaged(id, code === undefined ? message : errnoText(code));
    }
    return { id, path, rootfs: join(path, "rootfs"), state: parseState(id, text) };
  }
}

function parseState(id: string, text: string): ImageState {
  let value: unknown;
  try {
    value = JSON.parse(text);
  } catch {
    throw damaged(id, text === "" ? "empty" : "not JSON");
  }
  const { success, output } = safeParse(State, value);
  if (success) return output as ImageState;
  const { version } = (value ?? {}) as { version?: unknown };
  if (typeof version === "number" && version > VERSION) throw damaged(id, `of a newer version: ${version}`);
  throw damaged(id, "not the state of an image");
}

function damaged(id: string, why: string): StoreError {
  return new StoreError("damaged", `image ${JSON.stringify(id)}: ${STATE_FILE}: ${why}`);
}

/** All images, those in the making and those that nothing can be said of too. */
export function* eachImage(
  store: Store,
): Generator<StoredImage | { readonly id: string; readonly path: string; readonly damage: StoreError }> {
  for (const id of readdirSync(join(store.path, "images"))) {
    if (!isId(id)) continue;
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
