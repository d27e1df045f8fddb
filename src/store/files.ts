// Small files of a store: each appears whole, or not; and what is in a place, whatever somebody has put there.
import { lstatSync, renameSync } from "node:fs";
import { writeSynced } from "../base/durable.js";

/**
 * Writes a file of that name, synced before it has it; one that is there is replaced. `temporary` is on the same filesystem,
 * where whoever comes after a crash removes it. The name itself is durable with its folder, see base/durable.ts.
 */
export function writeWhole(path: string, content: string | Uint8Array, temporary: string): void {
  writeSynced(temporary, typeof content === "string" ? Buffer.from(content) : content, "w", 0o600);
  renameSync(temporary, path);
}

/** True for a folder itself; false for a symlink to one. */
export function isFolder(path: string): boolean {
  return lstatSync(path, { throwIfNoEntry: false })?.isDirectory() === true;
}

/** True for a regular file itself; false for a symlink to one. */
export function isFile(path: string): boolean {
  return lstatSync(path, { throwIfNoEntry: false })?.isFile() === true;
}

/** True where anything has that name, a symlink that leads nowhere too. */
export function isThere(path: string): boolean {
  return lstatSync(path, { throwIfNoEntry: false }) !== undefined;
}
