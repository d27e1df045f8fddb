// The `run` command.
import { realpathSync } from "node:fs";
import { isatty } from "node:tty";
import { errnoText } from "../base/errno.js";
import { configOf } from "../builder/flatten.js";
import type { IdRange } from "../daemon/id-maps.js";
import type { QuotaSettings } from "../quota/settings.js";
import { commandOf } from "../run/command.js";
import type { Bind, RunRequest, Way } from "../run/request.js";
import { RunCode, RunFailure } from "../run/request.js";
import { runImage } from "../run/run.js";
import { Failure } from "./failure.js";
import { findImage, openTree } from "./open.js";
import type { GlobalOptions } from "./program.js";
import { type QuotaOptions, readQuota } from "./quota-options.js";

interface RunOptions extends GlobalOptions, QuotaOptions {
  readonly upper?: string;
  readonly work?: string;
  readonly readOnly?: boolean;
  readonly bind?: readonly string[];
  readonly env?: readonly string[];
  readonly workdir?: string;
  readonly user?: string;
  readonly entrypoint?: string;
  readonly network: "host" | "none";
  readonly hostname?: string;
  readonly uidMap?: readonly IdRange[];
  readonly gidMap?: readonly IdRange[];
  readonly squashToRoot?: boolean;
  readonly devices?: boolean;
  readonly volatile?: boolean;
  readonly verify?: boolean;
  readonly by?: Way;
}

export async function run(image: string, words: readonly string[], options: RunOptions): Promise<void> {
  try {
    process.exitCode = await runImage(requestOf(image, words, options));
  } catch (cause) {
    if (!(cause instanceof RunFailure)) throw cause;
    const hint = cause.hint === undefined ? {} : { hint: cause.hint };
    throw new Failure(cause.exitCode, `run: ${cause.message}`, hint);
  }
}

function requestOf(image: string, words: readonly string[], options: RunOptions): RunRequest {
  const { upper, work, log, uidMap, gidMap, hostname, entrypoint, workdir, user } = options;
  if (work !== undefined && upper === undefined) throw new RunFailure("--work needs --upper");
  const quota = quotaOf(options);
  const env = options.env ?? [];
  const isTerminal = isatty(0) || isatty(1);
  const config = readConfig(image);
  return {
    mount: {
      source: image,
      ...(upper === undefined ? {} : { upper }),
      ...(work === undefined ? {} : { work }),
      ...(log === undefined ? {} : { logFile: log }),
      ...(uidMap === undefined ? {} : { uidMap }),
      ...(gidMap === undefined ? {} : { gidMap }),
      ...(upper !== undefined && options.readOnly === true ? { readOnly: true } : {}),
      ...(options.verify === true ? { verify: true } : {}),
      ...(quota === undefined ? {} : { quota }),
      squashToRoot: options.squashToRoot === true,
      devices: options.devices === true,
      volatile: options.volatile === true || upper === undefined,
      statsOnExit: false,
      logLevel: options.debug === true ? "debug" : options.logLevel,
      logFormat: options.logFormat,
    },
    command: commandOf(config, { words, entrypoint, env, workdir, user }, process.env, isTerminal),
    surroundings: {
      binds: (options.bind ?? []).map(readBind),
      readOnly: options.readOnly === true,
      network: options.network,
      ...(hostname === undefined ? {} : { hostname }),
    },
    by: options.by ?? "auto",
  };
}

/** What is wrong usage has the exit code that all failures of this command have. */
function quotaOf(options: QuotaOptions): QuotaSettings | undefined {
  try {
    return readQuota("run", options);
  } catch (cause) {
    throw cause instanceof Failure ? new Failure(RunCode.failure, cause.message) : cause;
  }
}

/** The config beside an index or inside a flattened file; a bare layer has none. */
function readConfig(path: string): Uint8Array | undefined {
  const image = openTree(path);
  try {
    return configOf(findImage(path), image);
  } finally {
    image.close();
  }
}

/** `HOST:INSIDE[:ro|:rw]`; a colon in a path cannot be said. */
function readBind(text: string): Bind {
  const [host = "", inside = "", mode = "rw", ...more] = text.split(":");
  if (host === "" || !inside.startsWith("/") || !["ro", "rw"].includes(mode) || more.length > 0) {
    throw new RunFailure(`--bind ${text}: not HOST:INSIDE or HOST:INSIDE:ro with an absolute INSIDE`);
  }
  try {
    return { host: realpathSync.native(host), inside, readOnly: mode === "ro" };
  } catch (cause) {
    const { code } = cause as NodeJS.ErrnoException;
    throw new RunFailure(`--bind ${text}: ${host}: ${errnoText(code ?? "EIO")}`, RunCode.failure);
  }
}
