// A store: one folder, its owner's alone.
//   format       "imgfs store 1"; `format.new` while it is being made
//   maps.json    id maps of all its images, as GrootFS keeps them
//   content/     layer blobs and merged indexes, by what they are of; an index finds its blobs beside it
//   images/ID/   rootfs, diff, work, image.json (the OCI config), state.json (images.ts), pid, log
//   leases/      a file for each process at work, locked as long as it lives (lease.ts)
//   tmp/         what those are making, and what was taken out and is to be removed (aside.ts)
//   sources/     local tars and the diffIDs they had
//   ingests/     downloads
//   locks/       see locks.ts
// Invariant: nothing has its name in content or images before it is whole.
import {
  chmodSync,
  chownSync,
  closeSync,
  constants,
  existsSync,
  mkdirSync,
  openSync,
  readdirSync,
  realpathSync,
  renameSync,
  rmdirSync,
  rmSync,
  statSync,
} from "node:fs";
import { join, resolve } from "node:path";
import { setTimeout as sleep } from "node:timers/promises";
import { nameFromText } from "../base/bytes.js";
import { syncFolder } from "../base/durable.js";
import { Errno } from "../base/errno.js";
import { makeFolders } from "../base/folders.js";
import { readPlain } from "../base/plain.js";
import { type IdRange, parseIdMap } from "../daemon/id-maps.js";
import { flockFd, LOCK_EX, LOCK_NB } from "../sys/files.js";
import { mountAtPath, readMounts } from "../sys/mountinfo.js";
import { StoreError } from "./errors.js";
import { fault } from "./fault.js";
import { isFolder, isThere, writeWhole } from "./files.js";
import { keepSpare } from "./locks.js";
import { unmountImage } from "./mounts.js";
import { removeTree } from "./remove.js";

export interface StoreMaps {
  readonly uid: readonly IdRange[];
  readonly gid: readonly IdRange[];
}

export interface Store {
  /** Absolute. */
  readonly path: string;
  readonly maps: StoreMaps;
  /** Told what goes wrong and is no failure of what is being done, in one line. */
  readonly warn?: ((message: string) => void) | undefined;
}

/** Takes measures of what is done, under the names that GrootFS gives them. */
export type Measure = (name: string, value: number, unit: "nanos" | "bytes") => void;

const FORMAT = "imgfs store 1";
const FORMAT_FILE = "format";
const BEGUN_FILE = "format.new";
/** What is not yet one of these two. */
const NEW_FILE = ".new-imgfs-store";
const MAPS_FILE = "maps.json";
export const folders = ["content", "images", "leases", "tmp", "sources", "ingests", "locks"] as const;

function textOf(ranges: readonly IdRange[]): string[] {
  return ranges.map(({ image, host, count }) => `${image}:${host}:${count}`).sort();
}

/**
 * Makes a store in an empty or missing folder, or finds that there is one with these maps. Rejects with StoreError: a folder
 * that holds anything else, a store with other maps.
 */
export async function initStore(path: string, maps: StoreMaps): Promise<"made" | "there"> {
  const root = resolve(path);
  if (existsSync(join(root, FORMAT_FILE))) {
    compareMaps(openStore(root).maps, maps);
    return "there";
  }
  if (existsSync(root) && !statSync(root).isDirectory())
    throw new StoreError("foreign", `${root}: no folder, and not a store of imgfs`);
  makeFolders(root);
  const fd = await lockFolder(root);
  try {
    // Somebody else may have made it meanwhile.
    if (isThere(join(root, FORMAT_FILE))) {
      compareMaps(openStore(root).maps, maps);
      return "there";
    }
    makeStore(root, maps);
    return "made";
  } finally {
    closeSync(fd);
  }
}

const PAUSE = 20;

/** Who makes a store locks its folder: there is nothing else yet. */
async function lockFolder(root: string): Promise<number> {
  const fd = openSync(root, constants.O_RDONLY | constants.O_DIRECTORY);
  while (flockFd(fd, LOCK_EX | LOCK_NB) === -Errno.EAGAIN) await sleep(PAUSE);
  return fd;
}

function makeStore(root: string, maps: StoreMaps): void {
  const found = readdirSync(root);
  const isBegun = found.includes(BEGUN_FILE) || found.every((name) => name === NEW_FILE);
  if (!isBegun || !found.every(isPart))
    throw new StoreError("foreign", `${root}: not empty, and not a store of imgfs`);
  // Of one that was cut short nothing is used but the mark.
  const temporary = join(root, NEW_FILE);
  rmSync(temporary, { force: true });
  fault("init.begin");
  writeWhole(join(root, BEGUN_FILE), `${FORMAT}\n`, temporary);
  for (const name of folders) {
    fault("init.folder");
    mkdirSync(join(root, name), { mode: 0o700, recursive: true });
    checkFolder(root, name);
  }
  keepSpare(root);
  fault("init.maps");
  const text = { "uid-mappings": textOf(maps.uid), "gid-mappings": textOf(maps.gid) };
  writeWhole(join(root, MAPS_FILE), `${JSON.stringify(text)}\n`, temporary);
  chmodSync(root, 0o700);
  for (const path of [root, join(root, "images")]) letRootPass(maps, path);
  syncFolder(root);
  fault("init.format");
  renameSync(join(root, BEGUN_FILE), join(root, FORMAT_FILE));
  syncFolder(root);
}

/** True for a folder with nothing in it. */
export function isEmptyFolder(path: string): boolean {
  return statSync(path).isDirectory() && readdirSync(path).length === 0;
}

function isPart(name: string): boolean {
  return [BEGUN_FILE, NEW_FILE, MAPS_FILE, ...folders].some((part) => part === name);
}

/**
 * Lets what the maps make of root pass a folder, as the root of a container in a user namespace with these maps has to on the
 * way to its root filesystem. It gets there by its group, so that it can neither list nor change what lies there: processes of
 * ours go by these names with root's rights. Only where the maps give it no group it becomes the owner, as GrootFS makes it.
 */
export function letRootPass({ uid, gid }: StoreMaps, path: string): void {
  if (process.geteuid?.() !== 0) return;
  const [user, group] = [uid, gid].map((map) => map.find(({ image }) => image === 0)?.host);
  if (group !== undefined) {
    chownSync(path, 0, group);
    chmodSync(path, 0o710);
  } else if (user !== undefined) chownSync(path, user, 0);
}

/**
 * Lets everybody pass on the way to the images, and list nothing: the image with maps of its own is for a root that is not the
 * store's, and what else is there closes itself.
 */
export function letAllPass({ path }: Store): void {
  if (process.geteuid?.() !== 0) return;
  for (const folder of [path, join(path, "images")]) chmodSync(folder, statSync(folder).mode | 0o001);
}

function compareMaps(has: StoreMaps, wanted: StoreMaps): void {
  // Asking for none is asking for those that are there.
  if (wanted.uid.length === 0 && wanted.gid.length === 0) return;
  const differ = (kind: "uid" | "gid"): boolean => String(textOf(has[kind])) !== String(textOf(wanted[kind]));
  if (differ("uid")) {
    throw new StoreError("maps", "provided UID mappings do not match those already configured in the store");
  }
  if (differ("gid")) {
    throw new StoreError("maps", "provided GID mappings do not match those already configured in the store");
  }
}

/** Opens the store at `path`. Throws StoreError: none there, something else, a newer layout, damage. */
export function openStore(path: string): Store {
  const root = resolve(path);
  checkMark(root);
  for (const name of folders) checkFolder(root, name);
  return { path: root, maps: readMaps(root) };
}

function checkFolder(root: string, name: string): void {
  if (!isFolder(join(root, name))) throw new StoreError("damaged", `${root}: ${name} is no directory`);
}

/** Throws StoreError where a folder is no store of ours, or of a newer layout. */
function checkMark(root: string): void {
  let format: string;
  try {
    format = readPlain(join(root, FORMAT_FILE)).trimEnd();
    if (!/^imgfs store \d+$/.test(format)) throw new Error("another file of that name");
  } catch {
    const foreign = existsSync(root) && !isEmptyFolder(root);
    const what = foreign ? "not a store of imgfs" : "no store";
    throw new StoreError(
      foreign ? "foreign" : "not-initialised",
      `${root}: ${what} (imgfs init-store makes one)`,
    );
  }
  if (format !== FORMAT) {
    throw new StoreError("newer", `${root}: a store with a layout this version does not know: ${format}`);
  }
}

function readMaps(root: string): StoreMaps {
  try {
    const text = JSON.parse(readPlain(join(root, MAPS_FILE))) as Record<string, string[]>;
    const read = (all: readonly string[] = []): readonly IdRange[] =>
      all.reduce<readonly IdRange[]>((ranges, each) => parseIdMap(each, ranges), []);
    return { uid: read(text["uid-mappings"]), gid: read(text["gid-mappings"]) };
  } catch (cause) {
    throw new StoreError("damaged", `${join(root, MAPS_FILE)}: no id maps`, { cause });
  }
}

/**
 * Unmounts and removes everything, whatever is damaged in its images. Nothing to do where there is no folder. Rejects with StoreError; then
 * it is still a store, of which another try removes the rest.
 */
export async function deleteStore(path: string): Promise<void> {
  const root = resolve(path);
  if (!existsSync(root)) return;
  checkMark(root);
  // One that is missing an earlier try may have removed.
  for (const name of folders) if (isThere(join(root, name))) checkFolder(root, name);
  const images = join(root, "images");
  for (const id of isFolder(images) ? readdirSync(images) : []) await unmountImage(join(images, id));
  for (const name of readdirSync(root)) if (name !== FORMAT_FILE) removeTree(join(root, name));
  // The mark goes last.
  rmSync(join(root, FORMAT_FILE));
  // Where the store is named by a symlink, that goes too; what a filesystem is mounted on stays.
  const real = realpathSync(root);
  if (mountAtPath(readMounts(), nameFromText(real)) !== undefined) return;
  rmdirSync(real);
  rmSync(root, { force: true });
}
