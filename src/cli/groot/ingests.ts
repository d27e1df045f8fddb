// The `store ingests` command: downloads that have not come to their end.

import type { IngestStatus } from "../../oci/ingests.js";
import { ingestsOf } from "../../store/downloads.js";
import { formatBytes, print, table, visible } from "../output.js";
import type { Caller } from "./caller.js";
import { openStoreOf } from "./stored.js";

export async function ingests(caller: Caller): Promise<void> {
  const { abort, json } = caller.options;
  const all = ingestsOf(await openStoreOf(caller));
  if (abort !== undefined) {
    for (const ref of abort) all.abort(ref);
    return;
  }
  const list = all.list();
  print(
    json === true ? list.map((one) => `${JSON.stringify(objectOf(one))}\n`).join("") : table(list.map(rowOf)),
  );
}

function objectOf({ ref, offset, total, expected, startedAt, updatedAt, isActive }: IngestStatus): object {
  return { ref, offset, total, expected, startedAt, updatedAt, active: isActive };
}

function rowOf({ ref, offset, total, updatedAt, isActive }: IngestStatus): string[] {
  return [
    visible(ref),
    `${formatBytes(offset)} of ${total === undefined ? "?" : formatBytes(total)}`,
    isActive ? "active" : "stopped",
    updatedAt.toISOString(),
  ];
}
