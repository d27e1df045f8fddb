// Upper directories that other overlays have written, shown by imgfs over the image: the same tree.
import { beforeAll, describe, expect, it } from "vitest";
import { mount, titleOf } from "../e2e/mounted.js";
import {
  change,
  faults,
  fuseOverlay,
  kernelOverlay,
  limits,
  look,
  makePlace,
  makeSource,
  mustRunInCi,
  noPeers,
  type Peer,
  type Place,
  type Source,
} from "./peers.js";

mustRunInCi("an upper directory of other overlays");

interface Writer {
  readonly name: string;
  readonly mount: (place: Place) => Promise<Peer>;
  readonly limits: readonly string[];
  readonly leaveOut: readonly string[];
}

const kernel = (name: string, options: string, without: readonly string[] = limits.kernel): Writer => ({
  name: `the kernel's overlayfs${name}`,
  mount: (place) => kernelOverlay(place, options),
  limits: without,
  leaveOut: faults.kernel,
});

const writers: Writer[] = [
  kernel("", ""),
  kernel(" with redirects and metadata-only copies", ",redirect_dir=on,metacopy=on", limits.followingKernel),
  kernel(" with an index", ",index=on", limits.kernel),
  kernel(" with userxattr", ",userxattr"),
  {
    name: "fuse-overlayfs",
    mount: (place) => fuseOverlay(place),
    limits: limits.fuseOverlayfs,
    leaveOut: faults.fuseOverlayfs,
  },
];

describe.skipIf(noPeers)(titleOf("an upper directory that another overlay has written", noPeers), () => {
  let source: Source;

  beforeAll(async () => {
    source = await makeSource();
  });

  describe.each(writers)("$name", ({ mount: mountWriter, limits: without, leaveOut }) => {
    it.each([1, 2])("is the same tree, read, changed and mounted anew, seed %i", async (seed) => {
      const place = await makePlace(source.plain);
      const peer = await mountWriter(place);
      // fuse-overlayfs shows times from a cache: only those that were set are the same on disk.
      await change(peer.path, seed, 200, "--fixed-times", ...without);
      const shown = await look(peer.path, leaveOut);
      await peer.unmount();
      const own = ["--devices", "--upper", place.upper, "--work", `${place.work}.own`];
      let mounted = await mount(source.image, ...own);
      expect(await look(mounted.path, leaveOut)).toEqual(shown);
      // Changes from here on are of ours: what was another's must take them as anything does.
      await change(mounted.path, seed + 10, 100);
      const changed = await look(mounted.path);
      await mounted.unmount();
      mounted = await mount(source.image, ...own);
      expect(await look(mounted.path)).toEqual(changed);
      await mounted.unmount();
    });
  });
});
