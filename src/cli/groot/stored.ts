// The store behind a command, and the image in it that an argument names.

import { existsSync, readdirSync } from "node:fs";
import { join } from "node:path";
import { initStore, openStore, type Store } from "../../store/store.js";
import type { Caller } from "./caller.js";

export interface StoredImage {
  readonly id: string;
  readonly path: string;
  readonly rootfs: string;
  readonly configFile: string;
}

/** Opens the store; with `make` one that is missing or empty is made first. */
export async function openStoreOf({ settings }: Caller, { make = false } = {}): Promise<Store> {
  const { store } = settings;
  if (make && (!existsSync(store) || readdirSync(store).length === 0)) {
    await initStore(store, { uid: [], gid: [] });
  }
  return openStore(store);
}

export function findStoredImage(store: Store, name: string): StoredImage {
  const id = name;
  const path = join(store.path, "images", id);
  return { id, path, rootfs: join(path, "rootfs"), configFile: join(path, "image.json") };
}

/** Measures of the store as a whole, where somebody wants them. */
export function measureStore(_caller: Caller, _store: Store): void {}
