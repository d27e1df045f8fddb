// Upper directories in which others have said with files that names are gone: `.wh.NAME` and `.wh..wh..opq`, as
// fuse-overlayfs does where it may not make devices, and aufs always.
import { readdirSync } from "node:fs";
import { beforeAll, describe, expect, it } from "vitest";
import {
  cannotMount,
  command,
  mount,
  mountAt,
  python,
  run,
  scratch,
  scratchDirectory,
  shell,
  titleOf,
} from "../e2e/mounted.js";
import { layerTar, type TarEntry } from "../e2e/tar-writer.js";
import { kernelOverlay, look, makePlace, makeSource, mustRunInCi, type Source } from "./peers.js";

const file = (name: string, text = `${name}\n`): TarEntry => ({
  name,
  data: Buffer.from(text),
  time: "1400000000",
});

mustRunInCi("an upper directory with whiteout files");

describe.skipIf(cannotMount)(titleOf("an upper directory with whiteout files", cannotMount), () => {
  let source: Source;

  beforeAll(async () => {
    source = await makeSource([
      layerTar([
        file("etc/gone"),
        file("etc/kept"),
        file("etc/replaced"),
        file("opaque/below"),
        file("opaque/sub/deep"),
        file("tree/of/many/files"),
        file("tree/stays"),
        file("turned/below"),
        file("top"),
      ]),
    ]);
  });

  /** An upper that another overlay has left, times of its directories set. */
  async function makeUpper(): Promise<string> {
    const upper = scratchDirectory("upper");
    await shell(`cd '${upper}'
      mkdir -p etc opaque/sub tree/of turned new
      touch etc/.wh.gone etc/.wh.never etc/.wh.replaced opaque/.wh..wh..opq tree/of/.wh.many .wh.turned .wh.top
      echo mine > etc/replaced; echo above > opaque/above; echo x > opaque/sub/x; echo y > turned/y
      mkdir etc/.wh.folder; ln -s nowhere etc/.wh.link; touch new/.wh.nothing new/.wh..wh.aufs
      find . -depth -exec touch -h -d @1300000000 {} +`);
    return upper;
  }

  const expected = [
    "/",
    "/etc",
    "/etc/.wh.folder",
    "/etc/.wh.link",
    "/etc/kept",
    "/etc/replaced",
    "/new",
    "/opaque",
    "/opaque/above",
    "/opaque/sub",
    "/opaque/sub/x",
    "/tree",
    "/tree/of",
    "/tree/stays",
    "/turned",
    "/turned/y",
  ];
  const pathsOf = (lines: readonly string[]): string[] =>
    lines.map((line) => (JSON.parse(line) as { path: string }).path);
  const onDisk = async (upper: string): Promise<string> =>
    shell(`cd '${upper}'; find . -name '.wh.*' -type f | sort`);

  it("shows what they say, from the first mount on, with the times that directories had", async () => {
    const upper = await makeUpper();
    for (const _ of [1, 2]) {
      const mounted = await mount(source.image, "--upper", upper);
      const shown = await look(mounted.path);
      expect(pathsOf(shown)).toEqual(expected);
      for (const line of shown.filter((each) => each.includes('"type":"dir"'))) {
        expect(line).toContain('"mtime":[1300000000,0]');
      }
      expect(await shell(`cat '${mounted.at("etc/replaced")}'`)).toBe("mine\n");
      await mounted.unmount();
      expect(await onDisk(upper)).toBe("");
    }
  });

  it("are honoured by a mount with ro, too", async () => {
    const upper = await makeUpper();
    const mounted = await mount(source.image, "--upper", upper, "-o", "ro");
    expect(pathsOf(await look(mounted.path))).toEqual(expected);
    expect((await run("touch", [mounted.at("x")])).stderr).toContain("Read-only file system");
    await mounted.unmount();
  });

  it("and one in its root that hides all, hides all of the image", async () => {
    const upper = scratchDirectory("upper");
    await shell(`cd '${upper}'; mkdir etc; echo own > etc/own; touch .wh..wh..opq`);
    const mounted = await mount(source.image, "--upper", upper);
    expect(pathsOf(await look(mounted.path))).toEqual(["/", "/etc", "/etc/own"]);
    await mounted.unmount();
  });

  it("where whiteouts can be no devices, becomes one with those of our other form", async () => {
    // Another mount of imgfs as the place, where a device 0:0 is refused or a plain one; it has user xattrs.
    const upper = await makeUpper();
    const outer = await mount(source.image, "--upper", scratch("outer"));
    await shell(`cp -a '${upper}' '${outer.at("upper")}'`);
    const mounted = await mount(source.image, "--upper", outer.at("upper"));
    expect(pathsOf(await look(mounted.path))).toEqual(expected);
    await mounted.unmount();
    await outer.unmount();
  });

  it.each([
    "mark.opaque:kill:0",
    "mark.opaque:kill:1",
    "whiteout.make:kill:0",
    "whiteout.make:kill:2",
    "setup.convert:kill:0",
    "setup.convert:kill:4",
    "setup.format-commit:kill:0",
    "setup.mark:kill:0",
    "setup.convert:EIO:2",
  ])(
    "is finished by the next mount where one has ended at %s, and shows nothing of what was hidden",
    async (fault) => {
      const path = scratchDirectory("mnt");
      const upper = await makeUpper();
      const faulted = await run(command, ["mount", source.image, path, "--upper", upper], {
        env: { IMGFS_FAULT: fault },
      });
      expect(faulted.code).not.toBe(0);
      const mounted = await mountAt(path, source.image, "--upper", upper);
      expect(pathsOf(await look(path))).toEqual(expected);
      await mounted.unmount();
      expect(await onDisk(upper)).toBe("");
    },
  );

  it("is named where they cannot be replaced", async () => {
    const upper = await makeUpper();
    const env = { IMGFS_FAULT: "whiteout.make:ENOSPC" };
    const failed = await run(command, ["mount", source.image, scratchDirectory("mnt"), "--upper", upper], {
      env,
    });
    expect(failed.code).toBe(32);
    expect(failed.stderr).toMatch(
      /^imgfs: mount \S+: upper directory \S+: whiteout: [^\n]+\n(hint: [^\n]+\n)?$/,
    );
  });

  it("made by a mount of ours has plain names instead, whatever else is in it", async () => {
    const upper = scratch("upper");
    let mounted = await mount(source.image, "--upper", upper);
    const names = [".wh.kept", ".wh..wh..opq", ".wh.", ".wh.x"];
    await shell(`cd '${mounted.at("etc")}'; touch ${names.join(" ")}; mv .wh.x .wh.y; mkdir .wh.d; rm .wh.y`);
    await mounted.unmount();
    // A new workdir is no new upper.
    mounted = await mount(source.image, "--upper", upper, "--work", `${upper}.other`);
    const kept = ["gone", "kept", "replaced", ".wh.kept", ".wh..wh..opq", ".wh.", ".wh.d"].sort();
    expect(readdirSync(mounted.at("etc")).sort()).toEqual(kept);
    await mounted.unmount();
  });

  it("keeps files of such names that hold something, and all in an upper of the kernel's overlayfs", async () => {
    const upper = scratchDirectory("upper");
    await shell(`mkdir '${upper}/etc'; echo data > '${upper}/etc/.wh.kept'; touch '${upper}/etc/.wh.gone'`);
    let mounted = await mount(source.image, "--upper", upper);
    expect(readdirSync(mounted.at("etc")).sort()).toEqual([".wh.kept", "kept", "replaced"]);
    await mounted.unmount();
    const place = await makePlace(source.plain);
    const kernel = await kernelOverlay(place);
    await shell(`cd '${kernel.path}/etc'; touch .wh.kept .wh..wh..opq`);
    await kernel.unmount();
    mounted = await mount(source.image, "--upper", place.upper, "--work", `${place.work}.own`);
    expect(readdirSync(mounted.at("etc")).sort()).toEqual([
      ".wh..wh..opq",
      ".wh.kept",
      "gone",
      "kept",
      "replaced",
    ]);
    await mounted.unmount();
  });

  it("may be opaque by an xattr of fuse-overlayfs, whose own are not shown", async () => {
    const upper = scratchDirectory("upper");
    await shell(`mkdir '${upper}/opaque' '${upper}/etc'; echo x > '${upper}/opaque/x'
      setfattr -n user.fuseoverlayfs.opaque -v y '${upper}/opaque'
      setfattr -n user.fuseoverlayfs.origin -v etc '${upper}/etc'
      setfattr -n user.containers.override_stat -v 0:0:0644 '${upper}/opaque/x'`);
    const mounted = await mount(source.image, "--upper", upper);
    expect(readdirSync(mounted.at("opaque"))).toEqual(["x"]);
    const listed = await python(
      "import os, sys; print([os.listxattr(p) for p in sys.argv[1:]])",
      ...["opaque", "etc", "opaque/x"].map((name) => mounted.at(name)),
    );
    expect(listed).toBe("[[], [], []]");
    await mounted.unmount();
  });
});
