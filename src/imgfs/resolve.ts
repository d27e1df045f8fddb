// Paths inside an image, as a process whose root is the image would resolve them.
import { fsError } from "../base/errno.js";
import { S_IFDIR, S_IFLNK, S_IFMT } from "../sys/stat.js";
import type { Image } from "./image.js";

/** As many links as the kernel follows (include/linux/namei.h, MAXSYMLINKS). */
const MAX_LINKS = 40;
const slash = 0x2f;

interface Place {
  readonly row: number;
  /** Directories passed, the root first; `..` goes back along them. */
  readonly parents: readonly number[];
}

/**
 * The row of `path`, taken from the image's root. Symlinks on the way are followed inside the image; the last one
 * only when `follow` is set. Throws FsError ENOENT, ENOTDIR or ELOOP.
 */
export function resolvePath(image: Image, path: Uint8Array, follow: boolean): number {
  let links = 0;
  const walk = (from: Place, bytes: Uint8Array, followLast: boolean): Place => {
    let place: Place = bytes[0] === slash ? { row: 0, parents: [] } : from;
    const components = split(bytes);
    for (const [i, name] of components.entries()) {
      if ((image.mode(place.row) & S_IFMT) !== S_IFDIR) throw fsError("ENOTDIR");
      if (name.length === 1 && name[0] === 0x2e) continue;
      if (name.length === 2 && name[0] === 0x2e && name[1] === 0x2e) {
        const parent = place.parents.at(-1);
        if (parent !== undefined) place = { row: parent, parents: place.parents.slice(0, -1) };
        continue;
      }
      const row = image.lookup(place.row, name, 0, name.length);
      if (row < 0) throw fsError("ENOENT");
      const isLast = i === components.length - 1;
      if ((image.mode(row) & S_IFMT) === S_IFLNK && (!isLast || followLast)) {
        links += 1;
        if (links > MAX_LINKS) throw fsError("ELOOP");
        place = walk(place, image.symlinkTarget(row), true);
      } else {
        place = { row, parents: [...place.parents, place.row] };
      }
    }
    return place;
  };
  return walk({ row: 0, parents: [] }, path, follow).row;
}

function split(path: Uint8Array): Uint8Array[] {
  const parts: Uint8Array[] = [];
  for (let start = 0; start < path.length; ) {
    const next = path.indexOf(slash, start);
    const end = next < 0 ? path.length : next;
    if (end > start) parts.push(path.subarray(start, end));
    start = end + 1;
  }
  return parts;
}
