// The images of a store that are complete.
import { eachImage, type StoredImage } from "./images.js";
import type { Store } from "./store.js";

/** In the order of their folder. */
export function listImages(store: Store): StoredImage[] {
  return [...eachImage(store)].filter(
    (image): image is StoredImage => "state" in image && image.state.complete,
  );
}
