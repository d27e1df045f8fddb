// What one mount is told, in a form that travels as JSON from the command to the process that serves it.
// All paths are absolute once resolveOptions has run: the process that serves lives in `/`.
import { resolve } from "node:path";
import type { LogLevel } from "../base/log.js";
import type { KernelOptions } from "../fuse/channel.js";
import type { ReaddirplusMode } from "../fuse/init.js";
import type { QuotaSettings } from "../quota/settings.js";
import type { IdRange } from "./id-maps.js";

/** How requests travel between the kernel and this process; see docs/transports.md. */
export type Transport = "direct" | "fuse-native";

export interface MountOptions {
  /** A folder holding `index.imgfs`, one index or blob file, or layer blobs with the last on top. */
  readonly sources: readonly string[];
  readonly mountpoint: string;
  /** Takes all changes; without it the mount is read-only. */
  readonly upper?: string;
  /** Whether the kernel refuses changes; unless given, without `upper`. */
  readonly readOnly?: boolean;
  /** Beside `upper` on the same filesystem; staging for copy-up. */
  readonly work?: string;
  /** Ids of the image and what they are at the mount; without it they show as they are. See docs/id-maps.md. */
  readonly uidMap?: readonly IdRange[];
  readonly gidMap?: readonly IdRange[];
  /** Everything belongs to root, or to what the maps make of it. */
  readonly squashToRoot?: boolean;
  /** Refuse an image with an id that the maps or this user namespace lack. */
  readonly strictIdMap?: boolean;
  /** Show the device nodes of the image, and let them work. */
  readonly devices: boolean;
  /** Directories of the image can be moved, by marks in the upper; else that is EXDEV. True unless given. */
  readonly redirects?: boolean;
  /** A change of a file's metadata copies no data. True unless given. */
  readonly metacopy?: boolean;
  /** Counts what the upper costs, and limits it. Needs `upper`, and a mount that can be written to. */
  readonly quota?: QuotaSettings;
  /** Sync nothing. */
  readonly volatile?: boolean;
  /** Compare each content with its digest before anything of it is given out. */
  readonly verify?: boolean;
  /** What is asked of the mount itself. */
  readonly kernel?: KernelOptions;
  /**
   * An open descriptor of /dev/fuse that whoever started this process has mounted. `mountpoint` is then no more than its
   * name, and unmounting is not this process's business.
   */
  readonly channelFd?: number;
  /** "direct" unless given. */
  readonly transport?: Transport;
  /** "always" unless given: what is listed is cached, and large directories list twice as fast as with "auto". */
  readonly readdirplus?: ReaddirplusMode;
  /** Holds the daemon's pid in decimal while it lives. */
  readonly pidFile?: string;
  /** Print the request counters when the mount ends, as SIGUSR1 does at any time. */
  readonly statsOnExit: boolean;
  readonly logLevel: LogLevel;
  readonly logFormat: "text" | "json";
  /** Without it the log goes to stderr, that of a detached mount only to a file or a terminal. */
  readonly logFile?: string;
  /** The module that makes the filesystem, in place of the overlay; see assemble.ts. */
  readonly fileSystem?: FileSystemModule;
}

export interface FileSystemModule {
  /** URL of a module that exports `createFileSystem` (see {@link ./assemble.ts}). */
  readonly url: string;
  /** Handed to it as it is; plain data. */
  readonly settings?: unknown;
}

/** The same options with every path absolute. */
export function resolveOptions(options: MountOptions): MountOptions {
  const { sources, mountpoint, upper, work, pidFile, logFile } = options;
  return {
    ...options,
    sources: sources.map((source) => resolve(source)),
    mountpoint: resolve(mountpoint),
    ...(upper === undefined ? {} : { upper: resolve(upper) }),
    ...(work === undefined ? {} : { work: resolve(work) }),
    ...(pidFile === undefined ? {} : { pidFile: resolve(pidFile) }),
    ...(logFile === undefined ? {} : { logFile: resolve(logFile) }),
  };
}

/** A mount or unmount that did not work. `message` is one line and names the object; `exitCode` as mount(8) has it. */
export class MountFailure extends Error {
  readonly exitCode: number;
  /** What may help, in one line. */
  readonly hint: string | undefined;

  constructor(message: string, exitCode = 32, hint?: string) {
    super(message);
    this.name = "MountFailure";
    this.exitCode = exitCode;
    this.hint = hint;
  }
}

/** The first line of whatever was thrown. */
export function oneLine(cause: unknown): string {
  const text = cause instanceof Error ? cause.message : String(cause);
  return text.split("\n", 1)[0] || "unknown error";
}
