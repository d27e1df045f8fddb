// Making a folder with those above it, so that it can be taken back.
import { mkdirSync, statSync } from "node:fs";
import { dirname, resolve } from "node:path";
import { errnoText } from "./errno.js";

/**
 * Makes the folder `path` and those above it that are missing; the highest one made, or undefined when it was there.
 * Throws an Error that names the one that cannot be made or is no folder. (mkdirSync's own `recursive` never returns
 * where the kernel makes no folders, in /proc.)
 */
export function makeFolders(path: string): string | undefined {
  const missing: string[] = [];
  let at = resolve(path);
  for (;;) {
    const stat = statSync(at, { throwIfNoEntry: false });
    if (stat?.isDirectory() === false) throw new Error(`${at}: not a folder`);
    if (stat !== undefined) break;
    missing.push(at);
    at = dirname(at);
  }
  for (const folder of missing.reverse()) {
    try {
      mkdirSync(folder);
    } catch (cause) {
      throw new Error(`${folder}: ${errnoText((cause as NodeJS.ErrnoException).code ?? String(cause))}`);
    }
  }
  return missing[0];
}
