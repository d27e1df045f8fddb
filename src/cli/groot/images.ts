// The commands about images that are there: `delete`, `list`, `stats` and its old name `metrics`.
import { existsSync } from "node:fs";
import { deleteImage } from "../../store/delete.js";
import { listImages } from "../../store/list.js";
import { imageStats } from "../../store/stats.js";
import type { Store } from "../../store/store.js";
import { ExitCode } from "../failure.js";
import { type Caller, say } from "./caller.js";
import { goJson } from "./go-json.js";
import { StoreFailure, usage } from "./store-failure.js";
import { ImageNotThere, measureStore, openImage, openStoreOf } from "./stored.js";

/** An image that is not there is deleted already: Garden deletes every container in both of its stores. */
export async function deleteCommand(caller: Caller): Promise<void> {
  const { args, settings, metrics, log } = caller;
  const [name = ""] = args;
  if (name === "") throw usage("id was not specified");
  log.debug("delete-config", { store: settings.store });
  let id: string;
  let store: Store;
  try {
    const found = await openImage(caller, name);
    store = found.store;
    id = found.image.id;
  } catch (cause) {
    if (!(cause instanceof ImageNotThere)) throw cause;
    log.error("find-id-failed", cause, { id: name, storePath: settings.store });
    say(`${cause.message} Skipping delete.`);
    return;
  }
  const session = log.session("groot-deleting", { imageID: id });
  session.info("starting");
  await metrics.time("ImageDeletionTime", () => deleteImage(store, id, { measure: metrics.measure }));
  session.info("ending");
  say(`Image ${id} deleted`);
  measureStore(caller, store);
}

export async function list(caller: Caller): Promise<void> {
  const { store: path } = caller.settings;
  if (!existsSync(path)) throw new StoreFailure(`no store found at ${path}`, { exitCode: ExitCode.notFound });
  const images = listImages(await openStoreOf(caller));
  if (images.length === 0) say("Store empty");
  else say(images.map(({ path }) => path).join("\n"));
}

export async function stats(caller: Caller): Promise<void> {
  const { args, command, metrics } = caller;
  const {
    store,
    image: { id },
  } = await openImage(caller, args[0] ?? "");
  const usage = await metrics.time("ImageStatsTime", () => imageStats(store, id));
  const used = {
    total_bytes_used: usage.totalBytes,
    exclusive_bytes_used: usage.exclusiveBytes,
  };
  // The first versions knew no more, and who decodes them may not either.
  const limits = {
    quota_size_bytes: usage.quotaBytes,
    committed_space_bytes: usage.committedBytes,
  };
  say(goJson({ disk_usage: command === "metrics" ? used : { ...used, ...limits } }));
}
