// One upper directory under imgfs and under the kernel's overlayfs in turn: what either has done is there for the other,
// metadata-only copies and moved directories, too.
import { beforeAll, describe, expect, it } from "vitest";
import { mount, scratch, shell, titleOf } from "../e2e/mounted.js";
import { layerTar } from "../e2e/tar-writer.js";
import {
  change,
  faults,
  kernelOverlay,
  limits,
  look,
  makePlace,
  makeSource,
  mustRunInCi,
  noPeers,
  type Place,
  type Source,
} from "./peers.js";

const FOLLOWS = ",redirect_dir=on,metacopy=on";

mustRunInCi("an upper directory in turn");

describe.skipIf(noPeers)(titleOf("an upper directory in turn", noPeers), () => {
  let source: Source;

  beforeAll(async () => {
    source = await makeSource();
  });

  /** Runs a script in the tree that imgfs shows. */
  async function underImgfs({ image }: Source, { upper }: Place, script: string): Promise<string> {
    const mounted = await mount(image, "--devices", "--upper", upper);
    const said = await shell(`cd '${mounted.path}'\n${script}`);
    await mounted.unmount();
    return said;
  }

  async function underKernel(place: Place, script: string): Promise<string> {
    const peer = await kernelOverlay(place, FOLLOWS);
    const said = await shell(`cd '${peer.path}'\n${script}`);
    await peer.unmount();
    return said;
  }

  it.each([1, 2])("is the same tree to both, seed %i", async (seed) => {
    const place = await makePlace(source.plain);
    const copy = scratch("copy");
    await shell(`cp -a '${source.plain}' '${copy}'`);
    for (const [round, byKernel] of [false, true, false, true, false].entries()) {
      const peer = byKernel
        ? await kernelOverlay(place, FOLLOWS)
        : await mount(source.image, "--devices", "--upper", place.upper);
      expect(await look(peer.path, faults.kernelOverOurs)).toEqual(await look(copy, faults.kernelOverOurs));
      await change(peer.path, seed * 10 + round, 60, copy, "--fixed-times", ...limits.followingKernel);
      expect(await look(peer.path, faults.kernelOverOurs)).toEqual(await look(copy, faults.kernelOverOurs));
      await peer.unmount();
    }
  });

  // imgfs went on reading the image where the kernel had copied the data and written to them.
  it("keeps what the kernel writes to a file of which imgfs had copied the metadata alone", async () => {
    const place = await makePlace(source.plain);
    await underImgfs(source, place, "chmod 604 data/large; mv data/131073 moved; ln data/large linked");
    await underKernel(place, "printf KERNEL | dd of=data/large conv=notrunc status=none; printf X >> moved");
    const said = await underImgfs(
      source,
      place,
      "head -c 6 linked; echo; tail -c 1 moved; cmp data/large linked",
    );
    expect(said).toBe("KERNEL\nX");
  });

  it("keeps the data of a file of which the kernel had copied the metadata alone, wherever it goes then", async () => {
    const place = await makePlace(source.plain);
    const before = await shell(`cd '${source.plain}/data'; cat large 131073 4097 | sha256sum`);
    await underImgfs(source, place, "touch mark");
    await underKernel(place, "chmod 604 data/large data/131073 data/4097");
    await underImgfs(
      source,
      place,
      "mkdir new; mv data/large new/l; mv data/131073 data/4097 .; ln 4097 new/hard",
    );
    for (const name of ["4097", "new/hard"]) {
      const said = await underImgfs(
        source,
        place,
        `cat new/l 131073 ${name} | sha256sum; stat -c %a new/l ${name}`,
      );
      expect(said).toBe(`${before}604\n604\n`);
    }
    await underImgfs(source, place, "printf Y >> new/l");
    const original = `${source.plain}/data/large`;
    const said = await underImgfs(
      source,
      place,
      `tail -c 1 new/l; head -c 5000000 new/l | cmp - ${original} && echo same`,
    );
    expect(said).toBe("Ysame\n");
  });

  // Marks in user. are copied with a directory by the kernel's overlayfs, to which they are none.
  it("does not take a copy that was made under the kernel for the directory that was moved", async () => {
    const place = await makePlace(source.plain);
    await underImgfs(source, place, "mv etc moved");
    await underKernel(place, "cp -a moved copy; rm copy/motd; cp -a copy another");
    const said = await underImgfs(source, place, "ls another copy; ls moved; cat moved/motd");
    expect(said).toBe("another:\ndeep\n\ncopy:\ndeep\ndeep\nmotd\nhello\n");
  });

  it("knows a deep directory that imgfs has moved under the kernel, too, by a path longer than it writes itself", async () => {
    const names = ["one", "two", "three", "four"].map((name) => name.padEnd(255, "-"));
    const path = names.join("/");
    const deep = await makeSource([
      layerTar([
        { name: `${path}/inside/file`, data: Buffer.from("deep\n") },
        { name: `${path}/file`, data: Buffer.from("here\n") },
      ]),
    ]);
    const place = await makePlace(deep.plain);
    await underImgfs(deep, place, `mv ${path} moved; echo more > moved/inside/more; rm moved/file`);
    const look = "find . | wc -l; find moved | sort; cat moved/inside/file";
    const said = await underImgfs(deep, place, look);
    expect(said).toBe("8\nmoved\nmoved/inside\nmoved/inside/file\nmoved/inside/more\ndeep\n");
    expect(await underKernel(place, look)).toBe(said);
    await underKernel(place, "mv moved/inside out; mv moved out/moved");
    expect(await underImgfs(deep, place, "find out | sort; cat out/file")).toBe(
      "out\nout/file\nout/more\nout/moved\ndeep\n",
    );
  });
});
