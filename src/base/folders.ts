// Making a folder with those above it, so that it can be taken back.
import { mkdirSync, statSync } from "node:fs";
import { dirname, resolve } from "node:path";

/**
 * Makes the folder `path` and those above it that are missing; the highest one made, or undefined when it was there.
 * Throws Node's system error. (mkdirSync's own `recursive` never returns where the kernel makes no folders, in /proc.)
 */
export function makeFolders(path: string): string | undefined {
  const missing: string[] = [];
  let at = resolve(path);
  while (statSync(at, { throwIfNoEntry: false }) === undefined) {
    missing.push(at);
    at = dirname(at);
  }
  for (const folder of missing.reverse()) mkdirSync(folder);
  return missing[0];
}
