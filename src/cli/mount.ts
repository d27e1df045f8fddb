// The `mount` command.
import { resolve } from "node:path";
import { mountDetached, mountForeground } from "../daemon/mount.js";
import type { MountOptions } from "../daemon/options.js";
import { ExitCode, Failure } from "./failure.js";
import type { GlobalOptions } from "./main.js";
import { findImage } from "./open.js";

interface MountCommandOptions extends GlobalOptions {
  readonly upper?: string;
  readonly work?: string;
  readonly devices?: boolean;
  readonly foreground?: boolean;
  readonly pidFile?: string;
  readonly statsOnExit?: boolean;
}

export async function mount(paths: readonly string[], options: MountCommandOptions): Promise<void> {
  const sources = paths.slice(0, -1);
  const mountpoint = paths.at(-1);
  if (mountpoint === undefined || sources.length === 0) {
    throw new Failure(ExitCode.usage, "mount: an IMAGE and a MOUNTPOINT are needed");
  }
  if (options.work !== undefined && options.upper === undefined) {
    throw new Failure(ExitCode.usage, "mount: --work needs --upper");
  }
  for (const source of sources) findImage(source);
  try {
    const request = mountOptions(sources, mountpoint, options);
    if (options.foreground !== true) await mountDetached(request);
    else process.exitCode = await mountForeground(request);
  } catch (cause) {
    throw new Failure(ExitCode.mount, `mount ${mountpoint}`, { cause });
  }
}

/** The daemon runs in `/`: every path it gets is absolute. */
function mountOptions(
  sources: readonly string[],
  mountpoint: string,
  options: MountCommandOptions,
): MountOptions {
  return {
    sources: sources.map((source) => resolve(source)),
    mountpoint: resolve(mountpoint),
    ...(options.upper === undefined ? {} : { upper: resolve(options.upper) }),
    ...(options.work === undefined ? {} : { work: resolve(options.work) }),
    ...(options.pidFile === undefined ? {} : { pidFile: resolve(options.pidFile) }),
    ...(options.log === undefined ? {} : { logFile: resolve(options.log) }),
    devices: options.devices === true,
    statsOnExit: options.statsOnExit === true,
    logLevel: options.debug === true ? "debug" : options.logLevel,
    logFormat: options.logFormat,
  };
}
