// Makes the filesystem of a mount: the image's merged tree under the overlay. The one place that knows both wings' rooms
// by name; the worker takes it, or another module of the same shape, by URL.
import { statSync } from "node:fs";
import type { Logger } from "../base/log.js";
import type { FileSystem } from "../fuse/operations.js";
import { imageFile } from "../imgfs/folder.js";
import { Image } from "../imgfs/image.js";
import { createOwnerMap } from "../overlay/id-map.js";
import { createOverlay } from "../overlay/overlay.js";
import { readNamespaceIds } from "./id-maps.js";
import type { MountOptions } from "./options.js";

export interface Assembly {
  readonly options: MountOptions;
  /** What the options hand to a filesystem module. */
  readonly settings: unknown;
  readonly log: Logger;
  /** For the ledger of a mount with a quota. */
  readonly ledger: SharedArrayBuffer;
  /** The pid to tell who asks the mount for its process. */
  readonly daemonPid: number;
}

/** What a filesystem module exports as `createFileSystem`. Throws, or rejects with, an Error of one line. */
export type CreateFileSystem = (assembly: Assembly) => FileSystem | Promise<FileSystem>;

/** What makes the filesystem: the module that the options name, or the overlay. */
export async function fileSystemMaker(options: MountOptions): Promise<CreateFileSystem> {
  if (options.fileSystem === undefined) return createFileSystem;
  return ((await import(options.fileSystem.url)) as { createFileSystem: CreateFileSystem }).createFileSystem;
}

/** The overlay over the image, or the stack of blobs, that the options name. */
export const createFileSystem: CreateFileSystem = ({ options, log, ledger, daemonPid }) => {
  const image = openImage(options.sources, options.verify === true);
  try {
    const { upper, work, devices, redirects, metacopy, volatile } = options;
    const { uidMap: uids, gidMap: gids, strictIdMap: strictIds } = options;
    const squashToRoot = options.squashToRoot ?? false;
    const owners = createOwnerMap({ uids, gids, squashToRoot }, readNamespaceIds());
    return createOverlay({
      image,
      upper,
      work,
      devices,
      redirects,
      metacopy,
      volatile,
      owners,
      strictIds,
      quota:
        options.quota === undefined ? undefined : { ...options.quota, imageBytes: image.layerBytes, ledger },
      log,
      daemonPid,
    });
  } catch (cause) {
    image.close();
    throw cause;
  }
};

/**
 * One source is what imgfs build made, or a layer blob, which is shown as a stack of one; several are layer blobs. All
 * blobs are opened here, so that a missing or a wrong one is an error of the mount and not of a later read.
 */
function openImage(sources: readonly string[], verify: boolean): Image {
  const [only] = sources;
  if (sources.length > 1 || only === undefined) {
    for (const source of sources) {
      if (statSync(source).isDirectory())
        throw new Error(`${source}: an image folder, not a layer blob to stack`);
    }
    return Image.stack(sources, { verify });
  }
  const file = imageFile(only);
  const image = Image.open(file, { verify });
  if (image.kind === "layer") {
    image.close();
    return Image.stack([file], { verify });
  }
  try {
    image.openBlobs();
    return image;
  } catch (cause) {
    image.close();
    throw cause;
  }
}
