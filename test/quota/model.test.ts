// Random operations under small quotas beside a model of the rule (model.py, objects.py), and eight writers that race for
// the last block (races.py): nothing passes a limit, nothing that fits is refused, and use is what a count finds. The seeds
// of every run are fixed; the long run goes on from a seed of the day for IMGFS_SOAK_MINUTES.
import { mkdirSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { afterAll, beforeAll, describe, expect, it } from "vitest";
import {
  build,
  cannotMount,
  command,
  hasCommand,
  mount,
  run,
  scratchDirectory,
  succeed,
  titleOf,
} from "../e2e/mounted.js";
import { makeCorner } from "../e2e/private.js";

const reason = cannotMount ?? (hasCommand("python3") ? undefined : "python3 is missing");
const inCi = process.env["CI"] !== undefined && process.env["CI"] !== "";
const soak = process.env["IMGFS_SOAK"] === "1";
const python = (name: string): string => join(import.meta.dirname, name);
/** Where a mount by root has its control socket. */
const SOCKETS = "/run/imgfs";

it.runIf(inCi)("the model of a quota is run in CI", () => expect(reason).toBeUndefined());

/** A filesystem of its own that can have large xattrs. */
async function memory(): Promise<string> {
  const folder = scratchDirectory("memory");
  await succeed("mount", ["-t", "tmpfs", "-o", "size=300m", "tmpfs", folder]);
  return folder;
}

/** A filesystem in a file; undefined where the machine has no such kind or no loop device. */
async function btrfs(): Promise<string | undefined> {
  const folder = scratchDirectory("btrfs");
  const disk = `${folder}.img`;
  const script = 'truncate -s 600m "$0" && mkfs.btrfs -q "$0" && mount -o loop "$0" "$1"';
  return (await run("sh", ["-c", script, disk, folder])).code === 0 ? folder : undefined;
}

describe.skipIf(reason)(titleOf("a quota and a model of its rule", reason), () => {
  interface Setting {
    readonly source: string;
    readonly image: string;
    readonly folder: string;
  }
  let disk: Setting;
  let inMemory: Setting;
  let zstd: Setting;
  const mounts: string[] = [];

  beforeAll(async () => {
    const source = scratchDirectory("source");
    await succeed("python3", [python("source.py"), source]);
    const image = await build(`dir:${source}`);
    const folder = scratchDirectory("runs");
    disk = { source, image, folder };
    zstd = { source, image: await build(`dir:${source}`, "--codec", "zstd"), folder };
    const room = await memory();
    mounts.push(room);
    const noted = join(room, "source");
    mkdirSync(noted);
    await succeed("python3", [python("source.py"), noted, "--xattrs"]);
    inMemory = { source: noted, image: await build(`dir:${noted}`), folder: room };
  }, 60_000);

  afterAll(async () => {
    for (const path of mounts) await run("umount", [path]);
  });

  async function agrees(
    setting: Setting,
    seed: number,
    operations: number,
    ...more: string[]
  ): Promise<void> {
    const folder = join(setting.folder, String(seed));
    mkdirSync(folder);
    const { source, image } = setting;
    const args = [command, source, image, folder, String(seed), String(operations), ...more];
    const { code, stderr } = await run("python3", [python("model.py"), ...args], { timeout: 300_000 });
    expect({ code, stderr }).toEqual({ code: 0, stderr: "" });
    await succeed("rm", ["-rf", folder]);
  }
  const live = ["--sockets", SOCKETS];

  it.each([1, 8, 11])("agrees on a disk, seed %i", async (seed) => agrees(disk, seed, 450, ...live), 200_000);
  it.each([2])(
    "agrees over a compressed image, seed %i",
    async (seed) => agrees(zstd, seed, 350, ...live),
    200_000,
  );
  // Which makes data of a hole in the last block of a file that grows: they were there uncharged.
  it("agrees on btrfs", async (context) => {
    const folder = await btrfs();
    if (folder === undefined) return context.skip("no btrfs or no loop device");
    mounts.push(folder);
    await agrees({ ...disk, folder }, 1, 400, ...live);
  }, 200_000);
  // Upper and image have more xattrs than are free: also replaced by less when nothing was known of the object (103), and
  // of a directory that was moved and removed (105).
  it.each([103, 105])(
    "agrees in memory, seed %i",
    async (seed) => agrees(inMemory, seed, 450, ...live),
    200_000,
  );
  it(
    "agrees with ENOSPC in place of EDQUOT",
    async () => agrees(disk, 31, 200, "--quota-errno", "ENOSPC"),
    200_000,
  );
  it(
    "agrees by fuse-native",
    async () => agrees(disk, 2, 250, ...live, "--native", "--transport", "fuse-native", "--devices"),
    200_000,
  );

  it("agrees for an ordinary user", async () => {
    const corner = makeCorner();
    const { code, stdout, stderr } = await corner.asUser(`
      tests="$prefix/lib/node_modules/imgfs/test/quota"
      mkdir source run
      python3 "$tests/source.py" source
      imgfs build dir:source image --progress=none
      python3 "$tests/model.py" "$prefix/bin/imgfs" source image run 5 250`);
    expect({ code, stderr }).toEqual({ code: 0, stderr: "" });
    expect(stdout).toMatch(/\d+ operations\n$/);
  }, 200_000);

  it("lets eight writers have the last blocks, and no more than these", async () => {
    const folder = scratchDirectory("races");
    const upper = join(folder, "upper");
    const empty = scratchDirectory("empty");
    writeFileSync(join(empty, "file"), "x");
    const mounted = await mount(
      await build(`dir:${empty}`),
      "--upper",
      upper,
      ...["--quota", "256K", "--quota-inodes", "24"],
    );
    const rounds = ["1000", "1"];
    const { code, stdout, stderr } = await run(
      "python3",
      [python("races.py"), mounted.path, upper, ...rounds],
      {
        timeout: 300_000,
      },
    );
    expect({ code, stderr }).toEqual({ code: 0, stderr: "" });
    expect(stdout).toMatch(/^1000 rounds/);
    await mounted.unmount();
  }, 320_000);

  it.runIf(soak)(
    "agrees for as long as the soak takes",
    async () => {
      const end = Date.now() + Number(process.env["IMGFS_SOAK_MINUTES"] ?? 10) * 60_000;
      for (let seed = Math.floor(Date.now() / 1000); Date.now() < end; seed++) {
        const setting = [disk, inMemory, zstd][seed % 3] as Setting;
        await agrees(setting, seed, 2000, ...live);
      }
    },
    24 * 3600_000,
  );
});
