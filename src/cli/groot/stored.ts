// The store behind a command, and the image in it that an argument names.
import { existsSync, lstatSync } from "node:fs";
import { join, relative, resolve } from "node:path";
import { storeSizes } from "../../store/sizes.js";
import { initStore, isEmptyFolder, openStore, type Store } from "../../store/store.js";
import { ExitCode, messageOf } from "../failure.js";
import { printError, visible } from "../output.js";
import type { Caller } from "./caller.js";
import { defaultMaps } from "./maps.js";
import { StoreFailure } from "./store-failure.js";

export interface StoredImage {
  readonly id: string;
  readonly path: string;
  readonly rootfs: string;
  readonly configFile: string;
}

/** No image has that name, or it is a path of something else: for `delete` that is no failure. */
export class ImageNotThere extends StoreFailure {}

/** Opens the store; with `make` one that is missing or empty is made first. */
export async function openStoreOf(caller: Caller, { make = false } = {}): Promise<Store> {
  const { store } = caller.settings;
  if (make && !existsSync(join(store, "format"))) await initStore(store, defaultMaps());
  return { ...openStore(store), warn: (message) => warn(caller, message) };
}

/** What is no failure of the command: a line of its own, or for who reads lager one of that. */
function warn({ program, log }: Caller, message: string): void {
  if (program === "grootfs") log.info("store-warning", { message });
  else printError(`imgfs: warning: ${visible(message)}\n`);
}

/** True where a store can be made: there is no folder, or nothing in it. */
export function isEmpty(path: string): boolean {
  return !existsSync(path) || isEmptyFolder(path);
}

/** The store and the image in it that an argument names. Where no store is made there is no image. Rejects with ImageNotThere. */
export async function openImage(caller: Caller, name: string): Promise<{ store: Store; image: StoredImage }> {
  if (isEmpty(caller.settings.store)) throw notFound(name);
  const store = await openStoreOf(caller);
  return { store, image: findStoredImage(store, name) };
}

function notFound(id: string): ImageNotThere {
  return new ImageNotThere(`Image \`${visible(id)}\` not found.`, { exitCode: ExitCode.notFound });
}

/** The image that an id or a path names. Throws ImageNotThere. */
export function findStoredImage(store: Store, name: string): StoredImage {
  const images = join(store.path, "images");
  const id = name.startsWith("/") ? relative(images, resolve(name)) : name;
  if (name.startsWith("/") && (id === "" || id.split("/")[0] === ".." || id.includes("/"))) {
    throw new ImageNotThere(`path \`${visible(name)}\` is outside store path`, { exitCode: ExitCode.usage });
  }
  const path = join(images, id);
  if (id === "" || id === "." || id === ".." || /[/\0]/.test(id) || !isFolder(path)) {
    throw notFound(id);
  }
  return { id, path, rootfs: join(path, "rootfs"), configFile: join(path, "image.json") };
}

/** A symlink is none: nothing in a store is one. */
function isFolder(path: string): boolean {
  try {
    return lstatSync(path).isDirectory();
  } catch {
    return false;
  }
}

/** Measures of the store as a whole, where somebody wants them. What cannot be measured is logged. */
export function measureStore({ metrics, log }: Caller, store: Store): void {
  if (!metrics.wanted) return;
  try {
    const { usedBytes, unusedBytes, committedQuotaBytes, diskBytes } = storeSizes(store);
    metrics.measure("UnusedLayersSize", unusedBytes, "bytes");
    metrics.measure("UsedLayersSize", usedBytes, "bytes");
    metrics.measure("DownloadedLayersSizeInBytes", usedBytes + unusedBytes, "bytes");
    metrics.measure("CommittedQuotaInBytes", committedQuotaBytes, "bytes");
    metrics.measure("UsedBackingStoreInBytes", diskBytes, "bytes");
  } catch (cause) {
    log.info("cannot-measure-store", { error: messageOf(cause) });
  }
}
