// Directories that the image lacks and that something is to be mounted on.
import { chmodSync, mkdirSync } from "node:fs";
import { dirname } from "node:path";
import { Errno, errnoText } from "../base/errno.js";
import { RunFailure } from "./request.js";

/**
 * Makes a directory at `place`, with those above it; `shown` is its path inside. Nothing where the image is read-only:
 * who mounts there says what is missing. Throws RunFailure where a quota or the disk is full.
 */
export function makeMountPoint(place: string, mode: number, shown: string): void {
  try {
    makeFolders(place);
    chmodSync(place, mode);
  } catch (cause) {
    const { errno = 0 } = cause as NodeJS.ErrnoException;
    const full = (["EDQUOT", "ENOSPC"] as const).find((name) => Errno[name] === -errno);
    if (full !== undefined) throw new RunFailure(`mount point ${shown}: ${errnoText(full)}`);
  }
}

/** Like mkdir -p. Node's own says ENOENT for EDQUOT. */
function makeFolders(place: string): void {
  try {
    mkdirSync(place);
  } catch (cause) {
    const { code } = cause as NodeJS.ErrnoException;
    if (code === "EEXIST") return;
    if (code !== "ENOENT" || dirname(place) === place) throw cause;
    makeFolders(dirname(place));
    mkdirSync(place);
  }
}
