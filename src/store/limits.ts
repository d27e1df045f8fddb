// What of an image is too large for its limit: told by what it says of itself, by what comes of a layer, and by what is in it.
import type { BuiltLayer } from "../builder/image.js";
import type { ImageSource } from "../oci/source.js";
import { StoreError } from "./errors.js";

function exceeds(): StoreError {
  return new StoreError("uncompressed", "uncompressed layer size exceeds quota");
}

/** The refusals of one image; none where there is no limit. Bytes. */
export class Limit {
  private readonly bytes: number;
  private isExceeded = false;

  constructor(bytes: number | undefined) {
    this.bytes = bytes ?? Infinity;
  }

  /** Layers that are larger than the limit as they come are not fetched. Throws StoreError. */
  checkSizes(image: ImageSource): void {
    // What an image claims counts here as in GrootFS, though nobody believes it: what does not fit is found out in time.
    const sum = image.layers.reduce((total, { bytes, claim }) => total + (claim ?? bytes).size, 0);
    if (sum > this.bytes) {
      throw new StoreError("compressed", `layers exceed disk quota ${sum}/${this.bytes} bytes`);
    }
  }

  /** A layer that has been converted. Throws StoreError. */
  checkLayer({ reused, summary }: BuiltLayer): void {
    if (!reused && summary.logicalBytes > this.bytes) throw exceeds();
  }

  /** The image, whose layers of unknown size stop coming where they are more than the limit; see {@link explain}. */
  bounded<T extends ImageSource>(image: T): T {
    const { fetch } = image;
    if (fetch === undefined || this.bytes === Infinity) return image;
    const limit = this;
    return {
      ...image,
      fetch: async function* (bytes, signal, start) {
        let done = 0;
        for await (const piece of fetch(bytes, signal, start)) {
          done += piece.length;
          if (bytes.digest === undefined && done > limit.bytes) {
            limit.isExceeded = true;
            throw exceeds();
          }
          yield piece;
        }
      },
    };
  }

  /** What an error of converting the image is: that of the limit where that is what ended it. */
  explain(cause: unknown): unknown {
    return this.isExceeded ? exceeds() : cause;
  }
}
