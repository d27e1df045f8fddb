// Ways to get more than a quota gives (attacks.py): links, holes, reservations, names that go while something is open,
// copies by two names, sizes up and down, renames, writes that bypass the cache,
// ranges copied or made zero, files without a name or without content, xattrs.
import { linkSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { beforeAll, describe, expect, it } from "vitest";
import {
  build,
  cannotMount,
  hasCommand,
  mount,
  run,
  scratch,
  scratchDirectory,
  succeed,
  titleOf,
} from "../e2e/mounted.js";

const reason = cannotMount ?? (hasCommand("python3") ? undefined : "python3 is missing");
const inCi = process.env["CI"] !== undefined && process.env["CI"] !== "";
const script = join(import.meta.dirname, "attacks.py");

it.runIf(inCi)("attacks on a quota are run in CI", () => expect(reason).toBeUndefined());

describe.skipIf(reason)(titleOf("a quota is not passed", reason), () => {
  let image: string;
  beforeAll(async () => {
    const source = scratchDirectory("source");
    writeFileSync(join(source, "one"), "i".repeat(150 * 4096));
    linkSync(join(source, "one"), join(source, "two"));
    image = await build(`dir:${source}`, "--codec", "zstd");
  });

  it.each([
    ["by links", "links"],
    ["by sparse files", "sparse"],
    ["by reserving beyond the end of a file, and punching that", "reserved"],
    ["by holes that are filled again", "holes"],
    ["by what is open without a name", "held"],
    ["by copying a file up by two names at once", "copies"],
    ["by sizes up and down", "loops"],
    ["by renames", "renames"],
    ["by O_DIRECT, which is told EDQUOT and not EIO", "direct"],
    ["by copy_file_range, of data, of holes, of itself", "ranges"],
    ["by ranges made zero", "zeroed"],
    ["by files without a name that get one", "nameless"],
    ["by objects with nothing in them", "empties"],
  ])("%s", async (_, way) => attack(scratch("upper"), way));

  // Where each can have more than the 4 KiB that are free.
  it("by xattrs", async () => {
    const folder = scratchDirectory("memory");
    await succeed("mount", ["-t", "tmpfs", "-o", "size=64m", "tmpfs", folder]);
    try {
      await attack(join(folder, "upper"), "xattrs");
    } finally {
      await succeed("umount", [folder]);
    }
  });

  // Where holes that are copied stay holes: of a file cut to nothing and made larger they were charged for good.
  it("by copy_file_range on xfs, nor is a hole charged", async (context) => {
    const folder = scratchDirectory("xfs");
    const script = 'truncate -s 400m "$0" && mkfs.xfs -q "$0" && mount -o loop "$0" "$1"';
    if ((await run("sh", ["-c", script, `${folder}.img`, folder])).code !== 0) {
      return context.skip("no xfs or no loop device");
    }
    try {
      await attack(join(folder, "upper"), "ranges");
    } finally {
      await succeed("umount", [folder]);
    }
  });

  async function attack(upper: string, way: string): Promise<void> {
    const mounted = await mount(image, "--upper", upper, "--quota", "1M", "--quota-inodes", "64");
    const { code, stdout, stderr } = await run("python3", [script, mounted.path, upper, way]);
    expect({ code, stdout, stderr }).toEqual({ code: 0, stdout: "done\n", stderr: "" });
    await mounted.unmount();
  }
});
