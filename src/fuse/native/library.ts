// The fuse-native package: found, checked and loaded here, and nowhere else. It is optional, so its absence is an error
// of one line that says how to get it.
// Of the package only the addon is used, not its JavaScript: that drops the handle of fgetattr, makes nlink 0 a 1, and
// unmounts by a shell. The addon's calling convention is in its fuse-native.c, and holds for the one version below.
// The addon needs `libfuse.so.2`, which the package brings along but gives the linker no path to: it is loaded first.
import { existsSync, readFileSync } from "node:fs";
import { createRequire } from "node:module";
import { dirname, join } from "node:path";
import { keepLibrary } from "../../sys/libc.js";

const VERSION = "2.2.6";
const INSTALL = `npm install --ignore-scripts fuse-native@${VERSION}`;

/** A buffer that is the record of one of libfuse's threads: opaque, but see {@link ThreadRecord}. */
export type NativeThread = Buffer;

/** What the addon calls for a request; the arguments after the opcode depend on it. */
export type NativeHandler = (thread: NativeThread, opcode: number, ...args: readonly never[]) => void;

/** Answers a request: its thread, a status, and what else the operation gives. */
export type NativeSignal = (thread: NativeThread, status: number, ...results: readonly unknown[]) => void;

/** The addon. Beside these it has `op_NAME` and `fuse_native_signal_NAME` for every operation. */
export interface NativeAddon {
  readonly sizeof_fuse_thread_t: number;
  /**
   * Mounts, and starts the threads that serve. Throws an Error that says nothing; libfuse writes the reason to stderr.
   * `context` is `this` of every call and, like `state`, never moved or freed.
   */
  fuse_native_mount(
    mountpoint: string,
    options: string,
    state: Buffer,
    context: object,
    allocate: (size: number) => Buffer,
    handlers: readonly NativeHandler[],
    implemented: Uint32Array,
  ): void;
  /** Does not unmount: lets go of the event loop. */
  fuse_native_unmount(mountpoint: string, state: Buffer): void;
  readonly [name: `op_${string}`]: number;
  readonly [name: `fuse_native_signal_${string}`]: NativeSignal;
}

/**
 * Fields of fuse_thread_locals_t (fuse-native.c) on 64-bit Linux. The addon hands `atime` over in place of `mtime`, so
 * both are taken from here: signed milliseconds.
 */
export const ThreadRecord = { opcode: 8, atime: 104, mtime: 112 } as const;

/** Arguments longer than this are cut by the addon. */
export const ARGUMENT_LIMIT = 1023;

/** Loads the addon into this thread, which must be the process's main one. Throws an Error of one line. */
export function loadAddon(): NativeAddon {
  const require = createRequire(import.meta.url);
  let manifest: string;
  try {
    manifest = require.resolve("fuse-native/package.json");
  } catch {
    throw new Error(`transport fuse-native: the package fuse-native is not installed (${INSTALL})`);
  }
  const { version } = JSON.parse(readFileSync(manifest, "utf8")) as { version?: unknown };
  if (version !== VERSION) {
    throw new Error(`transport fuse-native: fuse-native is ${String(version)}, not ${VERSION} (${INSTALL})`);
  }
  const platform = `${process.platform}-${process.arch}`;
  const folder = join(dirname(manifest), "prebuilds", platform);
  const addon = join(folder, "node.napi.node");
  if (!existsSync(addon))
    throw new Error(`transport fuse-native: fuse-native has nothing built for ${platform}`);
  try {
    keepLibrary(join(folder, "libfuse.so"));
    return require(addon) as NativeAddon;
  } catch (cause) {
    const reason = cause instanceof Error ? cause.message : String(cause);
    throw new Error(`transport fuse-native: cannot be loaded: ${reason}`);
  }
}
