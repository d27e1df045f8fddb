// Checks of the mountpoint and of the folders around it, before anything is mounted. Each refusal is one line that
// names the object. A dead mount of ours at the mountpoint is taken away first.
import { realpathSync, statSync } from "node:fs";
import { basename, dirname, join, sep } from "node:path";
import { displayName, type Name, nameFromText } from "../base/bytes.js";
import { codeOf, errnoName, errnoText } from "../base/errno.js";
import { MOUNT_TYPE } from "../fuse/channel.js";
import { takeAway } from "../fuse/take-away.js";
import { type MountEntry, mountAtPath, readMounts } from "../sys/mountinfo.js";
import { MountFailure, type MountOptions } from "./options.js";
import { probeMount } from "./probe.js";
import { resolveTarget } from "./target.js";

function isWithin(inner: string, outer: string): boolean {
  return inner === outer || inner.startsWith(outer.endsWith(sep) ? outer : outer + sep);
}

async function clearTarget(target: string, mounts: readonly MountEntry[]): Promise<void> {
  const top = mountAtPath(mounts, nameFromText(target));
  if (top?.type !== MOUNT_TYPE) return;
  const answer = await probeMount(target);
  if (answer.kind !== "dead") {
    const who = answer.kind === "daemon" ? ` (process ${answer.pid})` : "";
    throw new MountFailure(`${target}: an imgfs mount is already there${who}`);
  }
  const gone = await takeAway(target, true);
  if (gone.status < 0) {
    const why = gone.said === "" ? errnoName(-gone.status) : gone.said;
    throw new MountFailure(`${target}: cannot take away the dead mount there: ${why}`);
  }
  // Dead mounts may lie on one another.
  await clearTarget(target, readMounts());
}

function folder(path: string, what: string): string {
  try {
    const real = realpathSync.native(path);
    if (statSync(real).isDirectory()) return real;
  } catch (cause) {
    throw new MountFailure(`${what} ${path}: ${errnoText(codeOf(cause))}`);
  }
  throw new MountFailure(`${what} ${path}: not a directory`);
}

/** The mountpoint's real path, when it is fit to be mounted on. Throws MountFailure. */
export async function preparePlace(options: MountOptions): Promise<string> {
  const mounts = readMounts();
  const target = resolveTarget(options.mountpoint, mounts);
  await clearTarget(target, mounts);
  const place = folder(target, "mountpoint");
  const below = mounts.find(({ mountpoint }) => mountpoint.startsWith(`${nameFromText(place)}/`));
  if (below !== undefined && place !== sep) {
    throw new MountFailure(`mountpoint ${place}: another mount lies in it: ${displayName(below.mountpoint)}`);
  }
  for (const [what, path] of [
    ["upper", options.upper],
    ["work", options.work],
  ] as const) {
    if (path === undefined) continue;
    const real = realpathOrSelf(path);
    if (isWithin(place, real)) throw new MountFailure(`mountpoint ${place} lies in ${what} ${real}`);
    if (isWithin(real, place)) throw new MountFailure(`${what} ${real} lies in mountpoint ${place}`);
    // The mount would show the image's own files, and let them be removed.
    for (const source of options.sources) {
      if (!isInside(source, real)) continue;
      throw new MountFailure(`image ${source} lies in ${what} ${real}`);
    }
  }
  return place;
}

/** Whether a path leads into a directory given by its real path; neither needs to exist. */
export function isInside(path: string, directory: string): boolean {
  return isWithin(realpathOrSelf(path), directory);
}

/** upper and work may not exist yet; the overlay says what it thinks of that. */
function realpathOrSelf(path: string): string {
  try {
    return realpathSync.native(path);
  } catch {
    return join(path === dirname(path) ? path : realpathOrSelf(dirname(path)), basename(path));
  }
}

/** Our mounts at a path, by the path's bytes. */
export function isOurs(mounts: readonly MountEntry[], path: Name): boolean {
  return mountAtPath(mounts, path)?.type === MOUNT_TYPE;
}
