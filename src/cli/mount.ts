// The `mount` command.
import type { EventEmitter } from "node:events";
import type { Command, Option } from "commander";
import { type IdRange, mapsRoot } from "../daemon/id-maps.js";
import { MountFailure, type MountOptions, mountForeground } from "../daemon/mount.js";
import type { Transport } from "../daemon/options.js";
import type { KernelOptions } from "../fuse/channel.js";
import { ExitCode, Failure } from "./failure.js";
import { type Flag, parseOptionList, sortOptions } from "./mount-options.js";
import { findImage } from "./open.js";
import type { GlobalOptions, StartMount } from "./program.js";
import { type QuotaOptions, readQuota } from "./quota-options.js";

interface MountCommandOptions extends GlobalOptions, QuotaOptions {
  readonly upper?: string;
  readonly work?: string;
  readonly uidMap?: readonly IdRange[];
  readonly gidMap?: readonly IdRange[];
  readonly squashToRoot?: boolean;
  readonly strictIdMap?: boolean;
  readonly devices?: boolean;
  readonly redirectDir?: "on" | "off";
  readonly metacopy?: "on" | "off";
  readonly volatile?: boolean;
  readonly verify?: boolean;
  readonly transport?: Transport;
  readonly foreground?: boolean;
  readonly pidFile?: string;
  readonly statsOnExit?: boolean;
  readonly fake?: boolean;
}

/** What the `-o` lists said that is no flag of the command. */
export interface Listed {
  readonly kernel: KernelOptions;
  readonly lower: readonly string[] | undefined;
}

/** Gives the command the flags that its `-o` lists name, as if they had been written out. Throws Failure. */
export function applyOptions(command: Command, lists: readonly string[]): Listed {
  const owners = command.parent === null ? [command] : [command.parent, command];
  const table = new Map<string, { readonly owner: Command; readonly option: Option }>();
  for (const owner of owners) {
    for (const option of owner.options) {
      if (option.long && option.long !== "--version") table.set(option.long.slice(2), { owner, option });
    }
  }
  const flags: Flag[] = [...table].map(([name, { option }]) => ({
    name,
    takes: option.required ? "a value" : option.optional ? "perhaps a value" : "nothing",
  }));
  const sorted = sortOptions(lists.flatMap(parseOptionList), flags, command.opts()["sloppy"] === true);
  if (sorted.refused !== undefined) throw new Failure(ExitCode.usage, `mount: -o: ${sorted.refused}`);
  for (const [name, value] of sorted.flags) {
    const { owner, option } = table.get(name) as { owner: Command; option: Option };
    // As commander does for a flag it reads: the flag's parser and choices apply, and its errors.
    if (value === false) owner.setOptionValueWithSource(option.attributeName(), undefined, "cli");
    else (owner as unknown as EventEmitter).emit(`option:${option.name()}`, value === true ? null : value);
  }
  return sorted;
}

export async function mount(
  paths: readonly string[],
  options: MountCommandOptions,
  listed: Listed,
  startMount: StartMount,
): Promise<void> {
  const { sources, mountpoint, kernel } = readPlaces(paths, listed);
  if (options.work !== undefined && options.upper === undefined) {
    throw new Failure(ExitCode.usage, "mount: --work needs --upper");
  }
  const quota = readQuota("mount", options);
  if (quota !== undefined && options.upper === undefined) {
    throw new Failure(ExitCode.usage, "mount: --quota needs --upper");
  }
  if (options.squashToRoot === true && !(mapsRoot(options.uidMap) && mapsRoot(options.gidMap))) {
    throw new Failure(ExitCode.usage, "mount: --squash-to-root needs maps with an id for 0");
  }
  for (const source of sources) findImage(source);
  if (options.fake === true) return;
  const request = {
    ...mountOptions(sources, mountpoint, options, kernel),
    ...(quota === undefined ? {} : { quota }),
  };
  try {
    process.exitCode = await (options.foreground === true ? mountForeground : startMount)(request);
  } catch (cause) {
    if (!(cause instanceof MountFailure)) throw cause;
    throw new Failure(cause.exitCode, cause.message, cause.hint === undefined ? {} : { hint: cause.hint });
  }
}

/** Images and mountpoint. With `lowerdir` a word before the mountpoint is only a name, as for `mount -t overlay`. */
function readPlaces(
  paths: readonly string[],
  { lower, kernel }: Listed,
): { sources: readonly string[]; mountpoint: string; kernel: KernelOptions } {
  const words = paths.slice(0, -1);
  const mountpoint = paths.at(-1);
  if (mountpoint === undefined || (lower ?? words).length === 0) {
    throw new Failure(ExitCode.usage, "mount: an IMAGE and a MOUNTPOINT are needed");
  }
  if (lower === undefined) return { sources: words, mountpoint, kernel };
  if (words.length > 1) {
    throw new Failure(ExitCode.usage, "mount: with -o lowerdir only a name may stand before the MOUNTPOINT");
  }
  const [fsname] = words;
  return {
    sources: lower,
    mountpoint,
    kernel: fsname === undefined ? kernel : { fsname, ...kernel },
  };
}

function mountOptions(
  sources: readonly string[],
  mountpoint: string,
  options: MountCommandOptions,
  kernel: KernelOptions,
): MountOptions {
  const { upper, work, pidFile, log, uidMap, gidMap } = options;
  return {
    sources,
    mountpoint,
    kernel,
    ...(upper === undefined ? {} : { upper }),
    ...(work === undefined ? {} : { work }),
    ...(pidFile === undefined ? {} : { pidFile }),
    ...(log === undefined ? {} : { logFile: log }),
    ...(uidMap === undefined ? {} : { uidMap }),
    ...(gidMap === undefined ? {} : { gidMap }),
    squashToRoot: options.squashToRoot === true,
    strictIdMap: options.strictIdMap === true,
    ...(options.transport === undefined ? {} : { transport: options.transport }),
    devices: options.devices === true,
    redirects: options.redirectDir !== "off",
    metacopy: options.metacopy !== "off",
    volatile: options.volatile === true,
    ...(options.verify === true ? { verify: true } : {}),
    statsOnExit: options.statsOnExit === true,
    logLevel: options.debug === true ? "debug" : options.logLevel,
    logFormat: options.logFormat,
  };
}
