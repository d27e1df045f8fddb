// The `capacity` command: the size that the config gives the store, else that of the filesystem it is on.
import { statfsSync } from "node:fs";
import { dirname } from "node:path";
import { type Caller, say } from "./caller.js";
import { goJson } from "./go-json.js";

export function capacity({ settings }: Caller): void {
  say(goJson({ capacity: settings.file.init?.store_size_bytes ?? sizeOf(settings.store) }));
}

/** Bytes of the filesystem that has `path`, or will have it. */
function sizeOf(path: string): number {
  for (let at = path; ; at = dirname(at)) {
    try {
      const { blocks, bsize } = statfsSync(at);
      return blocks * bsize;
    } catch (cause) {
      if ((cause as NodeJS.ErrnoException).code !== "ENOENT" || at === dirname(at)) throw cause;
    }
  }
}
