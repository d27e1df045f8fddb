// Small files of a store: each appears whole, or not; and what is read is a file, whatever somebody has put in its place.
import { closeSync, constants, fstatSync, lstatSync, openSync, readFileSync, renameSync } from "node:fs";
import { writeSynced } from "../base/durable.js";

/**
 * Writes a file of that name, synced before it has it; one that is there is replaced. `temporary` is on the same filesystem,
 * where whoever comes after a crash removes it. The name itself is durable with its folder, see base/durable.ts.
 */
export function writeWhole(path: string, content: string | Uint8Array, temporary: string): void {
  writeSynced(temporary, typeof content === "string" ? Buffer.from(content) : content, "w", 0o600);
  renameSync(temporary, path);
}

/** Bytes of a small file: none of ours comes near it. */
const MOST = 16 << 20;

/** Why a file could not be read, in words that come after its name. */
export class NotPlain extends Error {}

/** The text of a small file: neither through a symlink, nor of a pipe that nobody writes to. Throws as open(2), or NotPlain. */
export function readPlain(path: string): string {
  const { O_RDONLY, O_NOFOLLOW, O_NONBLOCK, O_NOCTTY } = constants;
  // What is no file is not opened: to open a device may be to use it.
  if (!lstatSync(path).isFile()) throw new NotPlain("not a regular file");
  const fd = openSync(path, O_RDONLY | O_NOFOLLOW | O_NONBLOCK | O_NOCTTY);
  try {
    const stat = fstatSync(fd);
    if (!stat.isFile()) throw new NotPlain("not a regular file");
    if (stat.size > MOST) throw new NotPlain("too large");
    return readFileSync(fd, "utf8");
  } finally {
    closeSync(fd);
  }
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
