// Overlays on overlays: a mount of imgfs holds what other overlays keep in their directories, and what they show of it is
// what a plain directory would show.
import { mkdirSync } from "node:fs";
import { join } from "node:path";
import { beforeAll, describe, expect, it } from "vitest";
import {
  command,
  type Mounted,
  mount,
  mountAt,
  run,
  scratch,
  scratchDirectory,
  shell,
  titleOf,
} from "../e2e/mounted.js";
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

const differ = join(import.meta.dirname, "../conformance/differ.py");

mustRunInCi("nesting");

describe.skipIf(noPeers)(titleOf("an upper directory inside another mount of imgfs", noPeers), () => {
  let source: Source;
  let upper: string;
  let outer: Mounted;

  const mountOuter = (): Promise<Mounted> => mount(source.image, "--upper", upper, "--devices");

  beforeAll(async () => {
    source = await makeSource();
  });

  /** An outer mount with a copy of the plain tree in `lower`, and room for others' directories. */
  async function prepare(): Promise<void> {
    upper = scratch("outer-upper");
    outer = await mountOuter();
    mkdirSync(outer.at("nest"));
  }

  it.each([31, 32])("takes every operation of another mount of imgfs, seed %i", async (seed) => {
    await prepare();
    const folder = scratchDirectory("run");
    const places = ["--upper", outer.at(`nest/upper${seed}`), "--work", outer.at(`nest/work${seed}`)];
    const args = [differ, "run", command, source.image, folder, String(seed), "700", "--devices", ...places];
    // Without shortening: that would start on what the first run has left in the upper directory.
    const { code, stdout, stderr } = await run("python3", args, { env: { IMGFS_SHRINK: "0" } });
    expect(code, `${stdout}${stderr}`).toBe(0);
    expect(stdout).toMatch(/operations agree/);
  });

  it("is the same after both were mounted anew, as is a third level", async () => {
    await prepare();
    const copy = scratch("copy");
    await shell(`cp -a '${source.plain}' '${copy}'`);
    const inner = (from: Mounted, name: string): Promise<Mounted> =>
      mount(
        source.image,
        "--devices",
        "--upper",
        from.at(`nest/${name}`),
        "--work",
        from.at(`nest/${name}.work`),
      );
    let second = await inner(outer, "second");
    mkdirSync(second.at("nest"));
    let third = await mount(
      source.image,
      "--devices",
      "--upper",
      second.at("nest/u"),
      "--work",
      second.at("nest/w"),
    );
    await change(third.path, 5, 150, copy, "--fixed-times");
    const shown = await look(third.path);
    expect(shown).toEqual(await look(copy));
    for (const mounted of [third, second, outer]) await mounted.unmount();
    outer = await mountOuter();
    second = await inner(outer, "second");
    third = await mount(
      source.image,
      "--devices",
      "--upper",
      second.at("nest/u"),
      "--work",
      second.at("nest/w"),
    );
    expect(await look(third.path)).toEqual(shown);
  });
});

/** A peer over a mount of imgfs. */
interface OnTop {
  readonly name: string;
  readonly mount: (place: Place) => Promise<Peer>;
  readonly limits: readonly string[];
  /** And what it cannot do while its upper directory is in a mount of imgfs. */
  readonly upperLimits: readonly string[];
  readonly leaveOut: readonly string[];
}

const kernel = (name: string, options: string, without: readonly string[] = limits.kernel): OnTop => ({
  name: `the kernel's overlayfs${name}`,
  mount: (place) => kernelOverlay(place, options),
  limits: without,
  upperLimits: limits.kernelOnFuse,
  // Hard links of what it has copied up it knows only where its lower filesystem has file handles and a UUID.
  leaveOut: [...faults.kernel, "link"],
});

const peers: OnTop[] = [
  kernel("", ""),
  kernel(" with redirect_dir and metacopy", ",redirect_dir=on,metacopy=on", limits.followingKernel),
  kernel(" with userxattr", ",userxattr"),
  {
    name: "fuse-overlayfs",
    mount: fuseOverlay,
    limits: limits.fuseOverlayfs,
    upperLimits: [],
    leaveOut: faults.fuseOverlayfs,
  },
];

describe.skipIf(noPeers)(titleOf("a mount of imgfs below another overlay", noPeers), () => {
  let source: Source;

  beforeAll(async () => {
    source = await makeSource();
  });

  describe.each(peers)("$name", ({ mount: mountPeer, limits: without, upperLimits, leaveOut }) => {
    const options = ["--fixed-times", ...without];

    it.each([1, 2])("shows its tree and changes of it, seed %i", async (seed) => {
      const below = await mount(source.image, "--devices");
      const copy = scratch("copy");
      await shell(`cp -a '${source.plain}' '${copy}'`);
      const place = await makePlace(below.path);
      let peer = await mountPeer(place);
      await change(peer.path, seed, 150, copy, ...options);
      expect(await look(peer.path, leaveOut)).toEqual(await look(copy, leaveOut));
      await peer.unmount();
      peer = await mountPeer(place);
      expect(await look(peer.path, leaveOut)).toEqual(await look(copy, leaveOut));
      await peer.unmount();
      expect(await look(below.path)).toEqual(await look(source.plain));
    });

    it.each([1, 2])("keeps its upper directory in it, seed %i", async (seed) => {
      const upper = scratch("outer-upper");
      let outer = await mount(source.image, "--upper", upper);
      const lower = outer.at("nest/lower");
      const copy = scratch("copy");
      await shell(
        `mkdir '${outer.at("nest")}'; cp -a '${source.plain}' '${lower}'; cp -a '${source.plain}' '${copy}'`,
      );
      const place = await makePlace(lower, outer.at("nest"));
      let peer = await mountPeer(place);
      await change(peer.path, seed, 150, copy, ...options, ...upperLimits);
      expect(await look(peer.path, leaveOut)).toEqual(await look(copy, leaveOut));
      await peer.unmount();
      await outer.unmount();
      outer = await mountAt(outer.path, source.image, "--upper", upper);
      peer = await mountPeer(place);
      expect(await look(peer.path, leaveOut)).toEqual(await look(copy, leaveOut));
      await peer.unmount();
      await outer.unmount();
    });
  });

  // Its whiteouts are devices 0:0 in the mount: made by mknod, linked, renamed over others, and left by rename.
  it.each(["", ",redirect_dir=on,metacopy=on", ",userxattr"])(
    "holds the upper directory of the kernel's overlayfs%s",
    async (options) => {
      const upper = scratch("outer-upper");
      let outer = await mount(source.image, "--upper", upper);
      mkdirSync(outer.at("nest"));
      const lower = scratch("lower");
      await shell(`cp -a '${source.plain}' '${lower}'`);
      const place = await makePlace(lower, outer.at("nest"));
      const shows = (path: string): Promise<string> =>
        shell(`cd '${path}'; find . -printf '%p %y %m %U:%G %l\\n' | sort; cat made odd/moved wide/was`);
      let peer = await kernelOverlay(place, options);
      await shell(`cd '${peer.path}'
        echo made > made; mkdir folder; mv made folder; mv folder/made .
        rm wide/wide-0001 wide/wide-0002; rmdir empty; echo over > wide/wide-0001
        mv wide/wide-0003 odd/moved; mv wide/wide-0004 wide/wide-0005; mv wide/wide-0005 wide/was
        chmod 700 wide/wide-0006; rm -r user; mkdir user; echo new > user/new`);
      const before = await shows(peer.path);
      expect(before).not.toMatch(/^\.\/(empty|wide\/wide-000[2-5]) /m);
      expect(before).toMatch(/^\.\/user\/new f/m);
      expect(await shell(`ls -A '${peer.path}/user'`)).toBe("new\n");
      // What it keeps in the mount shows there as devices, which no listing of ours takes for absent.
      expect(await shell(`cd '${place.upper}'; stat -c '%F %t:%T' wide/wide-0002 wide/wide-0003 empty`)).toBe(
        "character special file 0:0\n".repeat(3),
      );
      await peer.unmount();
      await outer.unmount();
      outer = await mountAt(outer.path, source.image, "--upper", upper);
      peer = await kernelOverlay(place, options);
      expect(await shows(peer.path)).toBe(before);
      await shell(`cd '${peer.path}'; echo again > empty; rm -r wide`);
      await peer.unmount();
      peer = await kernelOverlay(place, options);
      expect(await shell(`cd '${peer.path}'; cat empty; ls -d wide user`).catch(() => "gone")).toBe("gone");
      expect(await shell(`cat '${peer.path}/empty' '${peer.path}/made'`)).toBe("again\nmade\n");
      await peer.unmount();
      await outer.unmount();
    },
  );
});
