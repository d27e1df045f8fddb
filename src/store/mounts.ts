// Mounts of a store's images: what each is mounted with, and taking one away.
import { realpathSync } from "node:fs";
import { basename, dirname, join } from "node:path";
import { setTimeout as sleep } from "node:timers/promises";
import { nameFromText } from "../base/bytes.js";
import { MountFailure, mountDetached } from "../daemon/mount.js";
import type { MountOptions } from "../daemon/options.js";
import { isOurs } from "../daemon/place.js";
import { unmount } from "../daemon/unmount.js";
import type { QuotaSettings } from "../quota/settings.js";
import { readMounts } from "../sys/mountinfo.js";
import { StoreError } from "./errors.js";
import { fault } from "./fault.js";
import type { StoredImage } from "./images.js";
import type { Store } from "./store.js";

/** Without a limit what the image costs is counted all the same, for `stats`. */
export function quotaOf({
  limitBytes,
  excludeImage,
  limitInodes,
  errno,
}: StoredImage["state"]): QuotaSettings {
  return {
    mode: excludeImage || limitBytes === undefined ? "exclusive" : "inclusive",
    bytes: limitBytes ?? "unlimited",
    inodes: limitInodes ?? "derived",
    errno,
  };
}

export function mountOptionsOf(store: Store, { path, rootfs, state }: StoredImage): MountOptions {
  return {
    sources: [join(store.path, "content", state.index)],
    mountpoint: rootfs,
    upper: join(path, "diff"),
    work: join(path, "work"),
    quota: quotaOf(state),
    ...(state.uidMap === undefined ? {} : { uidMap: state.uidMap }),
    ...(state.gidMap === undefined ? {} : { gidMap: state.gidMap }),
    devices: state.devices,
    pidFile: join(path, "pid"),
    logFile: join(path, "log"),
    statsOnExit: false,
    logLevel: "warn",
    logFormat: "text",
  };
}

/** The same as an entry of `mounts` in a runtime's config.json, for who mounts it: mount.fuse3 runs `imgfs`. */
export function mountEntryOf(
  store: Store,
  image: StoredImage,
): { destination: string; type: string; source: string; options: string[] } {
  const { sources, upper, work, quota, uidMap, gidMap, devices } = mountOptionsOf(store, image);
  const maps = (name: string, ranges: MountOptions["uidMap"]): string[] =>
    ranges === undefined
      ? []
      : [`${name}=${ranges.map(({ image: a, host, count }) => `${a}:${host}:${count}`).join(":")}`];
  const limited = image.state.limitBytes !== undefined;
  return {
    destination: "/",
    type: "fuse3.imgfs",
    source: sources[0] as string,
    options: [
      `upperdir=${inList(upper)}`,
      `workdir=${inList(work)}`,
      ...(limited
        ? [`quota=${quota?.bytes}`, `quota-mode=${quota?.mode}`, `quota-errno=${quota?.errno}`]
        : []),
      ...(limited && typeof quota?.inodes === "number" ? [`quota-inodes=${quota.inodes}`] : []),
      ...maps("uidmapping", uidMap),
      ...maps("gidmapping", gidMap),
      ...(devices ? ["devices"] : []),
    ],
  };
}

/** A path as it stands among options, which commas part. */
function inList(path = ""): string {
  return path.replace(/[\\,]/g, "\\$&");
}

/** Makes a mount in the process that asks for it. Rejects with MountFailure; then nothing is mounted. */
export type MountHere = (options: MountOptions) => Promise<{
  /** Takes it away, and resolves when nothing of it is left. */
  undo(): Promise<void>;
}>;

/**
 * Mounts an image, in a process of its own unless there is a `mountHere`. What it resolves to takes a mount in this process
 * away: {@link unmountImage} would wait for the end of the process that asks. Rejects with MountFailure.
 */
export async function mountStored(
  store: Store,
  image: StoredImage,
  mountHere?: MountHere,
): Promise<() => Promise<void>> {
  fault("image.mount");
  const options = mountOptionsOf(store, image);
  if (mountHere !== undefined) return (await mountHere(options)).undo;
  await mountDetached(options);
  return async () => {};
}

/** As GrootFS has it: a rootfs that is in use is tried again for five seconds. */
const TRIES = 50;
const PAUSE = 100;

/** The rootfs of the image in folder `path` as the kernel names its mount: a store may be reached through symlinks. */
export function mountpointOf(path: string): string {
  return join(realpathSync(dirname(path)), basename(path), "rootfs");
}

/** In GrootFS's words; the cause says why. */
export function deletionFailed(path: string, cause: Error): StoreError {
  return new StoreError("busy", `deleting image path '${path}' failed`, { cause });
}

/** Takes the mount of the image in folder `path` away, if there is one. Rejects with StoreError of kind `busy`. */
export async function unmountImage(path: string): Promise<void> {
  const rootfs = mountpointOf(path);
  for (let tries = 1; isOurs(readMounts(), nameFromText(rootfs)); tries++) {
    fault("delete.unmount");
    try {
      await unmount(rootfs, { lazy: false });
    } catch (cause) {
      if (!(cause instanceof MountFailure)) throw cause;
      const busy = cause.message.includes("busy");
      if (!busy || tries >= TRIES) throw deletionFailed(path, reasonOf(cause, rootfs));
      await sleep(PAUSE);
    }
  }
}

function reasonOf(cause: MountFailure, rootfs: string): Error {
  if (!cause.message.includes("does not answer")) return cause;
  return new Error(
    `the process of its mount does not answer (\`imgfs umount --lazy ${rootfs}\` takes the mount away)`,
  );
}
