// Hard links of a layer to files of the layers below. A target path means the tree below as this layer leaves it: with
// its whiteouts and opaque directories, without its own files. Components are taken literally; no symlink is followed.
import { displayName, nameOf } from "../base/bytes.js";
import { Corrupt, LinkError } from "./errors.js";
import type { Image } from "./image.js";
import { EntryType } from "./layout.js";
import { nameProblem } from "./names.js";
import type { DirectoryEntry } from "./tree-reader.js";

/** An inode of one of the layers, no directory. */
export interface LayerInodeRef {
  readonly layer: number;
  readonly row: number;
}

/** A directory of one of the layers. */
export interface Place {
  readonly layer: number;
  readonly row: number;
}

const SLASH = 0x2f;

/** Resolves link entries of `layers`, bottom first; each once. */
export class LinkResolver {
  private readonly layers: readonly Image[];
  private readonly known = new Map<number, LayerInodeRef>();
  private readonly firstKey: number[] = [];

  constructor(layers: readonly Image[]) {
    this.layers = layers;
    let key = 0;
    for (const layer of layers) {
      this.firstKey.push(key);
      key += layer.entryTotal;
    }
  }

  /** The inode that entry `entry` in `directory` of `layer` names. Throws LinkError, naming link and target. */
  resolve(layer: number, directory: number, entry: number): LayerInodeRef {
    const key = (this.firstKey[layer] as number) + entry;
    const known = this.known.get(key);
    if (known !== undefined) return known;
    const image = this.layers[layer] as Image;
    const target = image.linkTarget(entry);
    const found = this.walk(layer, target);
    if (typeof found === "string") {
      throw new LinkError(
        image.metadata.file,
        nameOf(entryPath(image, directory, entry)),
        nameOf(target),
        found,
      );
    }
    this.known.set(key, found);
    return found;
  }

  /** The inode at a path below `layer`, or why there is none. */
  private walk(layer: number, path: Uint8Array): LayerInodeRef | string {
    const own = this.layers[layer] as Image;
    let mask = 0;
    let places: Place[] = own.isOpaque(0) ? [] : rootsBelow(this.layers, layer);
    for (let start = 0; start <= path.length; ) {
      const slash = path.indexOf(SLASH, start);
      const end = slash < 0 ? path.length : slash;
      const isLast = slash < 0;
      if (nameProblem(path, start, end) !== undefined) return "the target is no path";
      const masking = mask < 0 ? -1 : own.find(mask, path, start, end);
      const maskType = masking < 0 ? 0 : own.entryType(masking);
      if (maskType === EntryType.whiteout) return "the target does not exist in the layers below";
      const next = stepInto(this.layers, places, path, start, end);
      if (!Array.isArray(next)) {
        if (!isLast) return "the target does not exist in the layers below";
        return next.entry < 0 ? next : this.resolve(next.layer, next.directory, next.entry);
      }
      if (next.length === 0) return "the target does not exist in the layers below";
      if (isLast) return "the target is a directory";
      mask = maskType === EntryType.directory ? own.entryRow(mask, masking) : -1;
      places = mask >= 0 && own.isOpaque(mask) ? [] : next;
      start = end + 1;
    }
    return "the target is a directory";
  }
}

/** The roots of the layers below one, top first, down to one that is opaque. */
export function rootsBelow(layers: readonly Image[], below: number): Place[] {
  const places: Place[] = [];
  for (let layer = below - 1; layer >= 0; layer--) {
    places.push({ layer, row: 0 });
    if ((layers[layer] as Image).isOpaque(0)) break;
  }
  return places;
}

/** What is no directory at a name: an inode by its row, or with `entry` a link. */
interface Leaf extends Place {
  readonly directory: number;
  readonly entry: number;
}

/** The directories a name leads to from others that are one, top first; or the one inode or link that it names. */
export function stepInto(
  layers: readonly Image[],
  places: readonly Place[],
  path: Uint8Array,
  start: number,
  end: number,
): Place[] | Leaf {
  const next: Place[] = [];
  for (const { layer, row: directory } of places) {
    const image = layers[layer] as Image;
    const entry = image.find(directory, path, start, end);
    if (entry < 0) continue;
    const type = image.entryType(entry);
    if (type === EntryType.whiteout) break;
    if (type !== EntryType.directory) {
      if (next.length > 0) break;
      if (type === EntryType.link) return { layer, row: -1, directory, entry };
      return { layer, row: image.entryRow(directory, entry), directory, entry: -1 };
    }
    const row = image.entryRow(directory, entry);
    next.push({ layer, row });
    if (image.isOpaque(row)) break;
  }
  return next;
}

/** Path of an entry from the root, for messages. */
export function entryPath(image: Image, directory: number, entry: number): Buffer {
  const out: DirectoryEntry = { row: 0, type: 0, bytes: image.metadata.bytes, start: 0, end: 0 };
  image.entryName(entry, out);
  const name = out.bytes.subarray(out.start, out.end);
  return directory === 0 ? Buffer.from(name) : Buffer.concat([image.path(directory), Buffer.from("/"), name]);
}

/** Damage at an entry, by its path. */
export function corruptEntry(image: Image, directory: number, entry: number, problem: string): Corrupt {
  return new Corrupt(
    image.metadata.file,
    "ENTRY",
    `record ${entry} (${displayName(nameOf(entryPath(image, directory, entry)))})`,
    problem,
  );
}
