// Removing trees that others have written in: what a container made of an image, what dead processes have left.
// Invariant: nothing is removed where a mount lies in it.
import { realpathSync } from "node:fs";
import { basename, dirname, join } from "node:path";
import { displayName, nameFromText } from "../base/bytes.js";
import { errnoName, errnoText } from "../base/errno.js";
import { AT_FDCWD, closeFd, O_DIRECTORY, O_RDONLY, openAt } from "../sys/files.js";
import { readMounts } from "../sys/mountinfo.js";
import { removeAt } from "../sys/remove.js";
import { StoreError } from "./errors.js";

/** A mount at `path` or below it, as text; undefined where there is none. */
export function mountWithin(path: string): string | undefined {
  const real = nameFromText(join(realpathSync(dirname(path)), basename(path)));
  const found = readMounts().find(
    ({ mountpoint }) => mountpoint === real || mountpoint.startsWith(`${real}/`),
  );
  return found === undefined ? undefined : displayName(found.mountpoint);
}

/**
 * Removes what is called `path`, with all that is in it; a symlink is removed itself. Nothing to do where there is nothing.
 * Throws StoreError of kind `busy` (a mount lies in it) or `failed` that names the first thing that cannot be removed.
 */
export function removeTree(path: string): void {
  const mount = mountWithin(path);
  if (mount !== undefined) throw new StoreError("busy", `${path}: ${mount} is mounted in it`);
  const folder = openAt(AT_FDCWD, Buffer.from(dirname(path)), O_RDONLY | O_DIRECTORY);
  if (folder < 0) throw refused(dirname(path), folder);
  let failure: StoreError | undefined;
  try {
    removeAt(folder, Buffer.from(basename(path)), (names, result) => {
      failure ??= refused(join(dirname(path), ...names.map((name) => displayName(name))), result);
    });
  } finally {
    closeFd(folder);
  }
  if (failure !== undefined) throw failure;
}

function refused(path: string, result: number): StoreError {
  return new StoreError("failed", `${path}: cannot be removed: ${errnoText(errnoName(-result))}`);
}
