// Makes the filesystem of a mount: the image's merged tree under the overlay. The one place that knows both wings' rooms
// by name; the worker takes it, or another module of the same shape, by URL.
import type { Logger } from "../base/log.js";
import type { FileSystem } from "../fuse/operations.js";
import type { MountOptions } from "./options.js";

export interface Assembly {
  readonly options: MountOptions;
  readonly log: Logger;
  /** The pid to tell who asks the mount for its process. */
  readonly daemonPid: number;
}

/** What a filesystem module exports as `createFileSystem`. Throws, or rejects with, an Error of one line. */
export type CreateFileSystem = (assembly: Assembly) => FileSystem | Promise<FileSystem>;
