// Mounting from a program: an image under the overlay, or a filesystem of the caller's own.
import { resolve } from "node:path";
import { setTimeout as sleep } from "node:timers/promises";
import type { Assembly } from "../daemon/assemble.js";
import { mountDetached, mountForeground, unmount as unmountAt } from "../daemon/mount.js";
import type { MountOptions } from "../daemon/options.js";
import type { FileSystem } from "../fuse/operations.js";
import { processStartTime } from "../sys/process-time.js";

/** What can be said of any mount. Paths may be relative to the current directory. */
export type CommonMountOptions = Partial<
  Pick<
    MountOptions,
    | "devices"
    | "kernel"
    | "transport"
    | "readdirplus"
    | "pidFile"
    | "logFile"
    | "logLevel"
    | "logFormat"
    | "statsOnExit"
  >
>;

/** As the flags of `imgfs mount`. Without `upper` the mount is read-only. */
export type MountImageOptions = Partial<
  Omit<MountOptions, "sources" | "mountpoint" | "channelFd" | "fileSystem">
>;

/** A mount that is live. It outlives the program that made it unless it is unmounted. */
export interface Mounted {
  readonly mountpoint: string;
  /** The process that serves it. */
  readonly pid: number;
  /** As {@link unmount}. */
  unmount(options?: { readonly lazy?: boolean }): Promise<void>;
}

const quiet = { devices: false, statsOnExit: false, logLevel: "warn", logFormat: "text" } as const;

async function detach(options: MountOptions): Promise<Mounted> {
  const { pid } = await mountDetached(options);
  const startTime = processStartTime(pid);
  const mountpoint = resolve(options.mountpoint);
  return {
    mountpoint,
    pid,
    unmount: async (how) => {
      await unmount(mountpoint, how);
      if (how?.lazy !== true) await waitForEnd(pid, startTime);
    },
  };
}

/** A filesystem of the caller's own does not tell `unmount` which process serves it; we know. */
async function waitForEnd(pid: number, startTime: string | undefined): Promise<void> {
  if (startTime === undefined) return;
  for (let pause = 2; processStartTime(pid) === startTime; pause = Math.min(pause * 2, 50))
    await sleep(pause);
}

/**
 * Mounts an image in a process of its own, and resolves when it is live. `source` is a folder that buildImage made, an
 * index or a blob; or layer blobs, the last on top. Rejects with MountFailure, one line that names what was refused;
 * then nothing is mounted.
 */
export function mountImage(
  source: string | readonly string[],
  mountpoint: string,
  options: MountImageOptions = {},
): Promise<Mounted> {
  const sources = typeof source === "string" ? [source] : source;
  return detach({ ...quiet, ...options, sources, mountpoint });
}

/**
 * Takes an imgfs mount away and resolves when its process has ended, so that upper and work are free. `lazy` detaches a
 * mount in use, whose process ends with the last user, and waits for nothing. Rejects with MountFailure: no imgfs mount
 * there, in use, or a process that does not answer or end.
 */
export function unmount(mountpoint: string, options: { readonly lazy?: boolean } = {}): Promise<void> {
  return unmountAt(mountpoint, { lazy: options.lazy === true });
}

export type MountFileSystemOptions = CommonMountOptions & {
  /** Handed to createFileSystem as it is; what JSON can hold. */
  readonly settings?: unknown;
  /** The kernel refuses changes before they reach the filesystem. */
  readonly readOnly?: boolean;
};

/** What a filesystem module is given. */
export type FileSystemContext = Pick<Assembly, "settings" | "log">;

/** What a filesystem module exports as `createFileSystem`. An Error it throws, of one line, is why the mount is refused. */
export type CreateFileSystem = (context: FileSystemContext) => FileSystem | Promise<FileSystem>;

function fileSystemOptions(
  module: URL | string,
  mountpoint: string,
  { settings, readOnly = false, ...options }: MountFileSystemOptions,
): MountOptions {
  const fileSystem = { url: String(module), settings };
  return { ...quiet, ...options, sources: [], mountpoint, readOnly, fileSystem };
}

/**
 * Mounts a filesystem of the caller's own in a process of its own, and resolves when it is live. `module` is the URL of
 * a JavaScript module that exports `createFileSystem`, a {@link CreateFileSystem}; the thread that serves imports it.
 * Rejects with MountFailure; then nothing is mounted.
 */
export function mountFileSystem(
  module: URL | string,
  mountpoint: string,
  options: MountFileSystemOptions = {},
): Promise<Mounted> {
  return detach(fileSystemOptions(module, mountpoint, options));
}

/**
 * The same in this process, which serves until the mount is gone: resolves to the exit code that says how it ended. It
 * takes over SIGINT, SIGTERM, SIGHUP and SIGUSR1 meanwhile, and the current directory becomes `/`.
 */
export function serveFileSystem(
  module: URL | string,
  mountpoint: string,
  options: MountFileSystemOptions = {},
): Promise<number> {
  return mountForeground(fileSystemOptions(module, mountpoint, options));
}
