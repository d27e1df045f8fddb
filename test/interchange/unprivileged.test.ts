// The same without root: what an ordinary user's kernel overlayfs and fuse-overlayfs write in a user namespace imgfs shows
// there, and the other way round. Each test has a corner of its own, where /dev/fuse is open to all.
import { readFileSync } from "node:fs";
import { join } from "node:path";
import { beforeAll, describe, expect, it } from "vitest";
import { conformanceLayers } from "../conformance/image.js";
import { build, scratchDirectory, shell, titleOf } from "../e2e/mounted.js";
import { writeLayout } from "../e2e/oci-writer.js";
import { makeCorner } from "../e2e/private.js";
import { faults, limits, linesOf, mustRunInCi, noPeers } from "./peers.js";

mustRunInCi("an ordinary user's upper directory");

interface Tool {
  /** Mounts `lower`, `upper` and `work`, or `$image` with `upper` and `work`, at `m`. */
  readonly mount: string;
  readonly unmount: string;
}

const imgfs = (options = ""): Tool => ({
  mount: `imgfs mount "$image" m --upper upper --work own ${options}`,
  unmount: "imgfs umount m",
});
const kernel: Tool = {
  mount: "mount -t overlay overlay -o userxattr,lowerdir=lower,upperdir=upper,workdir=work m",
  unmount: "umount m",
};
const fuse = (unmount: string, environment = ""): Tool => ({
  mount: `${environment} fuse-overlayfs -o lowerdir=lower,upperdir=upper,workdir=work m 2>/dev/null`,
  unmount,
});
const plain = imgfs("--redirect-dir=off --metacopy=off");

/** In a user namespace the kernel's overlayfs may not ask for file handles, and loses hard links from its cache. */
const inNamespace = ["link"];
/** Setuid, setgid and capabilities are kept beside a file there, which other overlays do not know. */
const withoutOverrides = ["--without", "setid"];

interface Case {
  readonly name: string;
  readonly writer: Tool;
  readonly reader: Tool;
  readonly limits: readonly string[];
  readonly leaveOut: readonly string[];
}

const cases: Case[] = [
  {
    name: "the kernel's overlayfs with userxattr in a user namespace, shown by imgfs",
    writer: kernel,
    reader: imgfs(),
    limits: limits.kernel,
    leaveOut: [...faults.kernel, ...inNamespace],
  },
  {
    name: "imgfs in a user namespace, shown by the kernel's overlayfs with userxattr",
    writer: plain,
    reader: kernel,
    limits: ["--refused", "EXDEV", ...withoutOverrides],
    leaveOut: [...faults.kernelOverOurs, ...inNamespace],
  },
  {
    name: "fuse-overlayfs in a user namespace, shown by imgfs",
    writer: fuse("umount m"),
    reader: imgfs(),
    limits: limits.fuseOverlayfs,
    leaveOut: faults.fuseOverlayfs,
  },
  {
    name: "fuse-overlayfs with whiteout files, shown by imgfs",
    writer: fuse("umount m", "FUSE_OVERLAYFS_DISABLE_OVL_WHITEOUT=1"),
    reader: imgfs(),
    limits: limits.fuseOverlayfs,
    leaveOut: faults.fuseOverlayfs,
  },
  {
    name: "imgfs in a user namespace, shown by fuse-overlayfs",
    writer: plain,
    reader: fuse("umount m"),
    limits: ["--refused", "EXDEV", "--without", "names", ...withoutOverrides],
    leaveOut: faults.fuseOverlayfsOverOurs,
  },
];

describe.skipIf(noPeers)(titleOf("an ordinary user's upper directory", noPeers), () => {
  let image: string;

  beforeAll(async () => {
    const layout = scratchDirectory("layout");
    writeLayout(layout, conformanceLayers(false));
    image = await build(`oci:${layout}`);
    await shell(`chmod -R a+rX '${image}'`);
  });

  describe.each(cases)("written by $name", ({ writer, reader, limits: without, leaveOut }) => {
    it.each([1, 2])("is the same tree, seed %i", async (seed) => {
      const corner = makeCorner();
      const script = `
        image='${image}'
        tests="$prefix/lib/node_modules/imgfs/test"
        mkdir m upper work own
        imgfs extract "$image" lower
        ${writer.mount}
        python3 "$tests/interchange/mutate.py" ${seed} 150 m --fixed-times ${without.join(" ")}
        python3 "$tests/e2e/oracle.py" tree --loose m > written
        ${writer.unmount}
        ${reader.mount}
        python3 "$tests/e2e/oracle.py" tree --loose m > shown
        ${reader.unmount}`;
      const quoted = script.replaceAll("'", "'\\''");
      const outcome = await corner.asUser(`exec unshare -Urm sh -euc '${quoted}'`);
      expect(outcome, outcome.stderr).toMatchObject({ code: 0 });
      const lines = (name: string): string[] =>
        linesOf(readFileSync(join(corner.folder, "home", name), "utf8"), leaveOut);
      expect(lines("written").length).toBeGreaterThan(100);
      expect(lines("shown")).toEqual(lines("written"));
    });
  });
});
