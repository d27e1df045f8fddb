// Files and names that are on disk when the call returns.
import { closeSync, fsyncSync, openSync, writeSync } from "node:fs";

/** Writes a file, whole, and syncs it. `flags` as of open(2): "wx" refuses one that is there, "w" replaces it. */
export function writeSynced(path: string, bytes: Uint8Array, flags: "w" | "wx", mode: number): void {
  const fd = openSync(path, flags, mode);
  try {
    for (let at = 0; at < bytes.length; ) at += writeSync(fd, bytes, at);
    fsyncSync(fd);
  } finally {
    closeSync(fd);
  }
}

/** Makes the names in a folder durable. */
export function syncFolder(path: string): void {
  const fd = openSync(path, "r");
  try {
    fsyncSync(fd);
  } finally {
    closeSync(fd);
  }
}
