// The `mount` command.
import { type IdRange, mapsRoot } from "../daemon/id-maps.js";
import { MountFailure, type MountOptions, mountForeground } from "../daemon/mount.js";
import { ExitCode, Failure } from "./failure.js";
import { findImage } from "./open.js";
import type { GlobalOptions, StartMount } from "./program.js";

interface MountCommandOptions extends GlobalOptions {
  readonly upper?: string;
  readonly work?: string;
  readonly uidMap?: readonly IdRange[];
  readonly gidMap?: readonly IdRange[];
  readonly squashToRoot?: boolean;
  readonly strictIdMap?: boolean;
  readonly devices?: boolean;
  readonly verify?: boolean;
  readonly foreground?: boolean;
  readonly pidFile?: string;
  readonly statsOnExit?: boolean;
}

export async function mount(
  paths: readonly string[],
  options: MountCommandOptions,
  startMount: StartMount,
): Promise<void> {
  const sources = paths.slice(0, -1);
  const mountpoint = paths.at(-1);
  if (mountpoint === undefined || sources.length === 0) {
    throw new Failure(ExitCode.usage, "mount: an IMAGE and a MOUNTPOINT are needed");
  }
  if (options.work !== undefined && options.upper === undefined) {
    throw new Failure(ExitCode.usage, "mount: --work needs --upper");
  }
  if (options.squashToRoot === true && !(mapsRoot(options.uidMap) && mapsRoot(options.gidMap))) {
    throw new Failure(ExitCode.usage, "mount: --squash-to-root needs maps with an id for 0");
  }
  for (const source of sources) findImage(source);
  const request = mountOptions(sources, mountpoint, options);
  try {
    process.exitCode = await (options.foreground === true ? mountForeground : startMount)(request);
  } catch (cause) {
    if (!(cause instanceof MountFailure)) throw cause;
    throw new Failure(cause.exitCode, cause.message);
  } finally {
    if (options.foreground === true) (await import("./leave.js")).leaveSoon();
  }
}

function mountOptions(
  sources: readonly string[],
  mountpoint: string,
  options: MountCommandOptions,
): MountOptions {
  const { upper, work, pidFile, log, uidMap, gidMap } = options;
  return {
    sources,
    mountpoint,
    ...(upper === undefined ? {} : { upper }),
    ...(work === undefined ? {} : { work }),
    ...(pidFile === undefined ? {} : { pidFile }),
    ...(log === undefined ? {} : { logFile: log }),
    ...(uidMap === undefined ? {} : { uidMap }),
    ...(gidMap === undefined ? {} : { gidMap }),
    squashToRoot: options.squashToRoot === true,
    strictIdMap: options.strictIdMap === true,
    devices: options.devices === true,
    ...(options.verify === true ? { verify: true } : {}),
    statsOnExit: options.statsOnExit === true,
    logLevel: options.debug === true ? "debug" : options.logLevel,
    logFormat: options.logFormat,
  };
}
