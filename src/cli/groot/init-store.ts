// The `init-store` and `delete-store` commands.
import { deleteStore, initStore } from "../../store/store.js";
import type { Caller } from "./caller.js";
import { defaultMaps, readMaps } from "./maps.js";
import { isEmpty } from "./stored.js";

export async function initStoreCommand({ options, settings, log }: Caller): Promise<void> {
  const asked = readMaps(options.uidMapping, options.gidMapping);
  const isAny = asked.uid.length > 0 || asked.gid.length > 0;
  const maps = !isAny && isEmpty(settings.store) ? defaultMaps() : asked;
  log.debug("init-store", { currentConfig: { StorePath: settings.store } });
  const result = await initStore(settings.store, maps);
  if (result === "there") log.debug("store-already-initialized");
}

export async function deleteStoreCommand({ settings, log }: Caller): Promise<void> {
  const session = log.session("delete-store-delete-store", { path: settings.store });
  session.debug("starting");
  await deleteStore(settings.store);
  session.debug("ending");
}
