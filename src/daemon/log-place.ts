// Where a detached mount's log may go when no file was named for it.
import { fstatSync } from "node:fs";

/**
 * Whether a descriptor may stay with a detached mount to take its log and request counters: a file or a terminal. Whoever
 * reads a pipe would wait for its end as long as the mount lives.
 */
export function keepsLog(fd: number): boolean {
  try {
    const stat = fstatSync(fd);
    return stat.isFile() || stat.isCharacterDevice();
  } catch {
    return false;
  }
}
