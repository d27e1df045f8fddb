// The place that a mountpoint's path leads to, found without a question to what is mounted there.
import { lstatSync, readlinkSync, realpathSync } from "node:fs";
import { basename, dirname, join, resolve, sep } from "node:path";
import { nameFromText } from "../base/bytes.js";
import { codeOf, errnoText } from "../base/errno.js";
import { type MountEntry, mountAtPath } from "../sys/mountinfo.js";
import { MountFailure } from "./options.js";

const LINK_LIMIT = 40;

/**
 * The absolute path behind `path` without asking the object itself for anything: it may be a mount whose process is
 * dead or hangs. Throws MountFailure naming `path`.
 */
export function resolveTarget(path: string, mounts: readonly MountEntry[]): string {
  let at = resolve(path);
  try {
    for (let i = 0; i < LINK_LIMIT; i++) {
      if (at === sep) return at;
      at = join(realpathSync.native(dirname(at)), basename(at));
      if (mountAtPath(mounts, nameFromText(at)) !== undefined) return at;
      if (!lstatSync(at).isSymbolicLink()) return at;
      at = resolve(dirname(at), readlinkSync(at));
    }
  } catch (cause) {
    throw new MountFailure(`${path}: ${errnoText(codeOf(cause))}`);
  }
  throw new MountFailure(`${path}: ${errnoText("ELOOP")}`);
}
