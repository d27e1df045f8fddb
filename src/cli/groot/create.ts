// The `create` and `pull` commands.
import { spawn } from "node:child_process";
import { closeSync, openSync } from "node:fs";
import { keepsLog } from "../../daemon/log-place.js";
import { type Codec, parseCodec } from "../../imgfs/codec.js";
import { isRemote } from "../../oci/open.js";
import { createImage, pullImage } from "../../store/create.js";
import { messageOf } from "../failure.js";
import { createProgress, type Progress, type ProgressKind } from "../progress.js";
import { stoppable } from "../stop.js";
import { type Caller, say } from "./caller.js";
import { readMaps } from "./maps.js";
import { registryFor } from "./registry.js";
import { sourceOf } from "./sources.js";
import { envOf, specJson } from "./spec.js";
import { usage } from "./store-failure.js";
import { measureStore, openStoreOf } from "./stored.js";

export async function create(caller: Caller): Promise<void> {
  const { args, options, settings, metrics, log } = caller;
  const [image = "", id = ""] = args;
  if (options.withClean === true && options.withoutClean === true) {
    throw usage("with-clean and without-clean cannot be used together");
  }
  if (options.withMount === true && options.withoutMount === true) {
    throw usage("with-mount and without-mount cannot be used together");
  }
  const { file } = settings;
  const codec = codecOf(caller);
  const maps = readMaps(options.uidMapping, options.gidMapping);
  const store = await openStoreOf(caller, { make: settings.isDefaultStore });
  const source = sourceOf(image, caller);
  const limitBytes = options.diskLimitSizeBytes ?? file.create?.disk_limit_size_bytes ?? 0;
  const excludeImage = options.excludeImageFromQuota ?? file.create?.exclude_image_from_quota ?? false;
  const withoutMount =
    options.withMount !== true && (options.withoutMount ?? file.create?.without_mount ?? false);
  const spec = {
    ID: id,
    BaseImageURL: image,
    DiskLimit: limitBytes,
    ExcludeBaseImageFromQuota: excludeImage,
  };
  const session = log.session("groot-creating", { imageID: id, spec: { ...spec, Mount: !withoutMount } });
  session.info("starting");
  const created = await metrics.time("ImageCreationTime", () =>
    watched(caller, (onEvent, signal) =>
      createImage(store, {
        source,
        id,
        mount: !withoutMount,
        excludeImage,
        ...(limitBytes === 0 ? {} : { limitBytes }),
        ...(options.quotaInodes === undefined ? {} : { limitInodes: options.quotaInodes }),
        ...(options.quotaErrno === undefined ? {} : { errno: options.quotaErrno }),
        ...(maps.uid.length === 0 && maps.gid.length === 0 ? {} : { maps }),
        ...(options.devices === true ? { devices: true } : {}),
        ...sourceOptions(caller, image, codec),
        measure: metrics.measure,
        mountHere: caller.mountHere,
        onEvent,
        signal,
      }),
    ),
  );
  session.info("ending");
  const { path, rootfs, mounts = [] } = created;
  if (options.format === "path") say(path);
  else say(specJson({ rootfs, env: envOf(created.config), mounts }));
  measureStore(caller, store);
  if (wantsClean(caller)) startClean(caller);
}

export async function pull(caller: Caller): Promise<void> {
  const { args, options, metrics, settings } = caller;
  const [image = ""] = args;
  const codec = codecOf(caller);
  const store = await openStoreOf(caller, { make: settings.isDefaultStore });
  const source = sourceOf(image, caller);
  const limitBytes = options.diskLimitSizeBytes ?? 0;
  await watched(caller, (onEvent, signal) =>
    pullImage(store, {
      source,
      ...(limitBytes === 0 || options.excludeImageFromQuota === true ? {} : { limitBytes }),
      ...sourceOptions(caller, image, codec),
      measure: metrics.measure,
      onEvent,
      signal,
    }),
  );
  measureStore(caller, store);
}

/** How the layers are had and kept, for both commands. */
function sourceOptions(caller: Caller, image: string, codec: Codec): object {
  const { platform, skipLayerValidation } = caller.options;
  return {
    codec,
    skipLayerValidation: skipLayerValidation ?? caller.settings.file.create?.skip_layer_validation ?? false,
    registry: registryFor(image, caller),
    ...(platform === undefined ? {} : { platform }),
  };
}

function codecOf({ options }: Caller): Codec {
  try {
    return parseCodec(options.codec ?? "none");
  } catch (cause) {
    throw usage(messageOf(cause));
  }
}

type Watch = Progress["update"];

/** Bars on a terminal; in a pipe nothing but what is asked for: who reads it may take each line for a failure. */
function progressKind(asked: ProgressKind = "auto"): ProgressKind {
  return asked === "auto" && !process.stderr.isTTY ? "none" : asked;
}

/** Runs `work` with progress where people see it, and so that a signal ends it with nothing half made. */
async function watched<T>(
  { program, command, args: [image = ""], options, log }: Caller,
  work: (onEvent: Watch, signal: AbortSignal) => Promise<T>,
): Promise<T> {
  const progress: Progress =
    program === "imgfs"
      ? createProgress(progressKind(options.progress), process.stderr)
      : {
          update: (event) => {
            if (event.type === "warning" || event.type === "retry")
              log.info(event.type, { message: event.message });
          },
          end: () => {},
        };
  try {
    const left = isRemote(image) ? "what has come of its layers is kept" : undefined;
    return await stoppable(`${command} ${image}`, (signal) => work(progress.update, signal), left);
  } finally {
    progress.end();
  }
}

function wantsClean({ options, settings }: Caller): boolean {
  if (options.withoutClean === true) return false;
  return options.withClean === true || settings.file.create?.with_clean === true;
}

/**
 * Starts a clean that nobody waits for, in a session of its own. It does not get the caller's stderr where that is a pipe:
 * who reads that to its end would wait for the clean.
 */
function startClean({ program, options, settings, log }: Caller): void {
  const { file, store, configFile, logLevel } = settings;
  const logFile = options.cleanLogFile ?? file.create?.clean_log_file;
  const threshold = options.thresholdBytes ?? file.clean?.threshold_bytes ?? 0;
  const flag = (name: string, value: string | undefined): string[] => (value ? [`--${name}`, value] : []);
  const words = [
    ...(program === "grootfs" ? ["grootfs"] : []),
    ...["--store", store],
    ...flag("config", configFile),
    // GrootFS's lowest level is none of our option's.
    ...flag("log-level", program === "imgfs" && logLevel === "fatal" ? "error" : logLevel),
    ...flag("log-file", logFile),
    ...flag("metrics-file", settings.metricsFile),
    ...flag("metrics-log", settings.metricsLog),
    ...["clean", "--threshold-bytes", String(threshold)],
  ];
  const command = process.argv[1] as string;
  const stderr = keepsLog(2) ? "inherit" : openSync("/dev/null", "w");
  try {
    const child = spawn(process.execPath, [...process.execArgv, command, ...words], {
      cwd: "/",
      detached: true,
      stdio: ["ignore", "ignore", stderr],
    });
    child.on("error", (cause) => log.error("failed-to-schedule-cleanup", cause));
    child.unref();
  } finally {
    if (typeof stderr === "number") closeSync(stderr);
  }
}
