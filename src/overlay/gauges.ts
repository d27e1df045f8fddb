// What the overlay keeps in memory, as figures for who watches the mount.
import type { Gauges } from "../fuse/operations.js";
import type { OverlayState } from "./state.js";

/** Names are those of `caches` in docs/control-socket.md. */
export function overlayGauges(m: OverlayState): Gauges {
  const { inodes, fds, listed } = m;
  const { frames } = m.lower.tree;
  const names = ["inodes", "listings", "descriptors", "descriptorLimit"];
  if (frames === undefined) {
    return {
      names,
      fill(cells) {
        cells[0] = inodes.size;
        cells[1] = listed.size;
        cells[2] = fds.open;
        cells[3] = fds.capacity;
      },
    };
  }
  return {
    names: [...names, "frames", "frameLimit", "frameHits", "framesDecoded"],
    fill(cells) {
      cells[0] = inodes.size;
      cells[1] = listed.size;
      cells[2] = fds.open;
      cells[3] = fds.capacity;
      cells[4] = frames.held;
      cells[5] = frames.limit;
      cells[6] = frames.hits;
      cells[7] = frames.decoded;
    },
  };
}
