// Use is what a count of the upper says, on filesystems that keep files in their own ways: btrfs writes the block of a file's
// end when that grows, xfs reserves beyond it, ext4 may have blocks of 1 KiB, tmpfs none on a disk.
import { spawnSync } from "node:child_process";
import { mkdirSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { afterAll, describe, expect, it } from "vitest";
import {
  build,
  cannotMount,
  command,
  hasCommand,
  run,
  scratch,
  scratchDirectory,
  succeed,
  titleOf,
} from "../e2e/mounted.js";

const makers: Readonly<Record<string, readonly string[]>> = {
  "ext4 with blocks of 1 KiB": ["mkfs.ext4", "-q", "-b", "1024"],
  xfs: ["mkfs.xfs", "-q"],
  btrfs: ["mkfs.btrfs", "-q"],
};
const places: string[] = [];

function noLoop(): string | undefined {
  return spawnSync("losetup", ["-f"]).status === 0 ? undefined : "no loop device is to be had";
}

const reason =
  cannotMount ??
  noLoop() ??
  (hasCommand("mkfs.xfs") && hasCommand("mkfs.btrfs") ? undefined : "mkfs.xfs or mkfs.btrfs is missing");
const inCi = process.env["CI"] !== undefined && process.env["CI"] !== "";

it.runIf(inCi)("other filesystems can be made here", () => expect(reason).toBeUndefined());

/** An empty folder on a new filesystem. */
async function placeOn(kind: string): Promise<string> {
  const place = scratchDirectory("place");
  if (kind === "tmpfs") await succeed("mount", ["-t", "tmpfs", "-o", "size=100m", "tmpfs", place]);
  else {
    const disk = scratch("disk");
    await succeed("truncate", ["-s", "400M", disk]);
    const [program = "", ...options] = makers[kind] ?? [];
    await succeed(program, [...options, disk]);
    await succeed("mount", ["-o", "loop", disk, place]);
  }
  places.push(place);
  return place;
}

/** What changes where a file ends and what it has there: `f` is the file. */
const steps = [
  "truncate -s 9000 $f",
  "dd if=/dev/zero of=$f bs=10 count=1 seek=13516 conv=notrunc status=none",
  "truncate -s 300001 $f",
  "truncate -s 400000 $f",
  "fallocate -o 500001 -l 10 $f",
  "fallocate -n -o 600001 -l 5000 $f",
  "fallocate -p -o 3000 -l 140000 $f",
  "truncate -s 500005 $f",
  "dd if=/dev/urandom of=$f bs=4099 count=3 seek=50 conv=notrunc status=none",
  "cp --sparse=never $f $f.copy",
  "dd if=/dev/zero of=$f.copy bs=1 count=1 seek=700003 conv=notrunc status=none",
  "cat $f >> $f.copy",
  "fallocate -z -o 8000 -l 30000 $f.copy",
  "truncate -s 4097 $f",
  "truncate -s 20000 $f",
  "rm $f.copy",
];

describe.skipIf(reason !== undefined)(titleOf("quota on other filesystems", reason), () => {
  afterAll(() => {
    for (const place of places) spawnSync("umount", ["-l", place]);
  });

  it.each([...Object.keys(makers), "tmpfs"])(
    "%s",
    async (kind) => {
      const tree = scratchDirectory("tree");
      writeFileSync(join(tree, "below"), Buffer.alloc(20_001, "b"));
      const [image, place, mountpoint] = [await build(tree), await placeOn(kind), scratchDirectory("mnt")];
      const upper = join(place, "upper");
      mkdirSync(upper);
      await succeed(command, [
        "mount",
        image,
        mountpoint,
        "--upper",
        upper,
        "--work",
        join(place, "work"),
        "--quota",
        "50M",
      ]);
      try {
        for (const name of ["new", "below"]) {
          // tmpfs has no FALLOC_FL_ZERO_RANGE.
          for (const step of steps.filter((each) => kind !== "tmpfs" || !each.includes(" -z "))) {
            const done = await run("sh", ["-c", step], { env: { f: join(mountpoint, name) } });
            expect(done, `${name}: ${step}: ${done.stderr}`).toMatchObject({ code: 0 });
            const use = JSON.parse(await succeed(command, ["quota", mountpoint, "--json"]));
            const counted = JSON.parse(
              await succeed(command, ["du", upper, "--work", join(place, "work"), "--json"]),
            );
            expect([use.bytes, use.inodes], `${name}: ${step}`).toEqual([counted.bytes, counted.inodes]);
          }
        }
      } finally {
        await succeed(command, ["umount", mountpoint]);
      }
    },
    120_000,
  );
});
