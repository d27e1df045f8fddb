// The base directories of layers must be there before they are: a merge alone would make them up, as it does with every
// directory that no layer describes.
import { bytesOf, displayName, type Name } from "../base/bytes.js";
import type { Image } from "./image.js";
import { rootsBelow, stepInto } from "./links.js";

/** A layer, and the directory its entries were placed under; the root where there is none. */
export interface PlacedLayer {
  readonly image: Image;
  readonly baseDirectory: Name | undefined;
}

/** The base directory of a layer that the layers below do not have. */
export class MissingBase extends Error {
  /** Number of the layer, 0 the lowest. */
  readonly layer: number;

  constructor(layer: number, path: Name) {
    super(`base directory not found in parent layer: ${displayName(path)}`);
    this.name = "MissingBase";
    this.layer = layer;
  }
}

/** Throws {@link MissingBase} for the first of the layers, lowest first, whose base directory is none below it. */
export function checkBases(layers: readonly PlacedLayer[]): void {
  const images = layers.map(({ image }) => image);
  layers.forEach(({ baseDirectory }, layer) => {
    if (baseDirectory !== undefined && !hasDirectory(images, layer, baseDirectory)) {
      throw new MissingBase(layer, baseDirectory);
    }
  });
}

/** Whether the tree below a layer has a directory at the path, taken name by name: no symlink is followed. */
function hasDirectory(layers: readonly Image[], below: number, path: Name): boolean {
  let places = rootsBelow(layers, below);
  for (const name of path.split("/")) {
    const bytes = bytesOf(name as Name);
    const next = stepInto(layers, places, bytes, 0, bytes.length);
    if (!Array.isArray(next)) return false;
    places = next;
  }
  return places.length > 0;
}
