// The images of a store that are complete.
import { eachImage, type StoredImage } from "./images.js";
import type { Store } from "./store.js";

/** In the order of their folder. Of those that cannot be read there is a warning. */
export function listImages(store: Store): StoredImage[] {
  return [...eachImage(store)].filter((image): image is StoredImage => {
    if ("state" in image) return image.state.complete;
    store.warn?.(image.damage.message);
    return false;
  });
}
