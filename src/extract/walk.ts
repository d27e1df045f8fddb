// Where an extraction begins.

import { fsError } from "../base/errno.js";
import type { Image } from "../imgfs/image.js";
import { resolvePath } from "../imgfs/resolve.js";
import { S_IFDIR, S_IFMT } from "../sys/stat.js";

/** What is extracted: a directory with all below it, or one object. */
export interface Start {
  readonly row: number;
  /** The object's name; of no meaning for a directory, whose name is that of the destination. */
  readonly name: Buffer;
}

const slash = 0x2f;

export function isDirectory(image: Image, row: number): boolean {
  return (image.mode(row) & S_IFMT) === S_IFDIR;
}

/**
 * The object at `path` of the image. A symlink at its end is the object, unless a slash follows. Throws FsError ENOENT,
 * ENOTDIR or ELOOP.
 */
export function startAt(image: Image, path: Uint8Array): Start {
  const follow = path.at(-1) === slash;
  const row = resolvePath(image, path, follow);
  if (follow && !isDirectory(image, row)) throw fsError("ENOTDIR");
  return { row, name: Buffer.from(path.subarray(path.lastIndexOf(slash) + 1)) };
}
