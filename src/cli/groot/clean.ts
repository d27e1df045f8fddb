// The `clean` command, and the one that measures layers again.
import { existsSync } from "node:fs";
import { cleanStore } from "../../store/clean.js";
import { measureVolumes as measureAgain } from "../../store/sizes.js";
import { ExitCode } from "../failure.js";
import { type Caller, say } from "./caller.js";
import { sourceOf } from "./sources.js";
import { StoreFailure, usage } from "./store-failure.js";
import { measureStore, openStoreOf } from "./stored.js";

export async function clean(caller: Caller): Promise<void> {
  const { options, settings, metrics } = caller;
  const { file, store: path } = settings;
  if (!existsSync(path)) {
    const text = `no store found at ${path}`;
    throw new StoreFailure(text, { exitCode: ExitCode.notFound, groot: { text, exitCode: 0 } });
  }
  const mode = options.thresholdMode ?? file.clean?.threshold_mode ?? "committed";
  const store = await openStoreOf(caller);
  const session = caller.log.session("groot-cleaning");
  session.info("starting");
  const done = await metrics.time("ImageCleanTime", () =>
    cleanStore(store, {
      thresholdBytes: options.thresholdBytes ?? file.clean?.threshold_bytes ?? 0,
      mode,
      keep: (options.ignoreImage ?? file.clean?.ignore_images ?? []).flatMap((image) =>
        namesOf(image, caller),
      ),
      measure: metrics.measure,
      timeout: timeoutFromEnvironment(),
    }),
  );
  session.info("ending");
  say(done.cleaned ? "clean completed" : "threshold not reached: skipping clean");
  measureStore(caller, store);
}

/** Milliseconds that a clean may take; undefined where the environment says nothing. */
function timeoutFromEnvironment(): number | undefined {
  const text = process.env["IMGFS_CLEAN_TIMEOUT"];
  if (!text) return undefined;
  const seconds = Number(text);
  if (!(seconds >= 0)) throw usage(`IMGFS_CLEAN_TIMEOUT: not a number of seconds: ${text}`);
  return seconds * 1000;
}

/** The names under which the store may know an image: as it is written, and as create brings it into our form. */
function namesOf(image: string, caller: Caller): string[] {
  try {
    return [image, sourceOf(image, caller)];
  } catch {
    // It is not there any more; its layers may be.
    return [image];
  }
}

export async function measureVolumes(caller: Caller): Promise<void> {
  await measureAgain(await openStoreOf(caller));
}
