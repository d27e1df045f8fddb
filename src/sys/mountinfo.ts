// The mounts of this process's mount namespace (proc(5), /proc/PID/mountinfo). Paths are bytes: the kernel writes
// space, tab, newline and backslash as octal escapes and everything else as it is.
import { readFileSync } from "node:fs";
import type { Name } from "../base/bytes.js";

export interface MountEntry {
  readonly id: number;
  /** `major:minor` of the mounted filesystem. */
  readonly device: string;
  readonly mountpoint: Name;
  /** With subtype: `fuse.imgfs`. */
  readonly type: string;
  readonly source: Name;
  /** Of a FUSE mount, the user who made it, as the user namespace that it was made in has it. */
  readonly userId: number | undefined;
}

function decodePath(text: string): Name {
  return text.replace(/\\([0-7]{3})/g, (_, digits: string) =>
    String.fromCharCode(Number.parseInt(digits, 8)),
  ) as Name;
}

/** All mounts, in the order of the kernel's list: of several at one path the last is the one on top. */
export function readMounts(file = "/proc/self/mountinfo"): MountEntry[] {
  return parseMounts(readFileSync(file));
}

function parseMounts(bytes: Uint8Array): MountEntry[] {
  const lines = Buffer.from(bytes).toString("latin1").split("\n");
  return lines.flatMap((line) => {
    const fields = line.split(" ");
    const dash = fields.indexOf("-", 6);
    const [id, , device, , mountpoint] = fields;
    const type = fields[dash + 1];
    const source = fields[dash + 2];
    const userId = /(?:^|,)user_id=(\d+)/.exec(fields[dash + 3] ?? "")?.[1];
    if (dash < 0 || !id || !device || !mountpoint || type === undefined || source === undefined) return [];
    return [
      {
        id: Number(id),
        device,
        mountpoint: decodePath(mountpoint),
        type,
        source: decodePath(source),
        userId: userId === undefined ? undefined : Number(userId),
      },
    ];
  });
}

/** The mount on top at exactly this path, if any. */
export function mountAtPath(mounts: readonly MountEntry[], path: Name): MountEntry | undefined {
  return mounts.findLast(({ mountpoint }) => mountpoint === path);
}
