// An upper directory on a filesystem that is full: errors are ENOSPC, nothing half done shows or is left, and the mount
// goes on as soon as there is room.
import { mkdirSync, readdirSync } from "node:fs";
import { join } from "node:path";
import { afterEach, describe, expect, it } from "vitest";
import {
  build,
  cannotMount,
  hasCommand,
  imgfs,
  mount,
  run,
  scratch,
  scratchDirectory,
  succeed,
  titleOf,
} from "../e2e/mounted.js";
import { writeLayout } from "../e2e/oci-writer.js";
import { conformanceLayers } from "./image.js";

const reason = cannotMount ?? (hasCommand("python3") ? undefined : "python3 is missing");

describe.skipIf(reason !== undefined)(titleOf("a full upper", reason), () => {
  let small: string | undefined;
  afterEach(async () => {
    if (small !== undefined) await run("umount", ["-l", small]);
  });

  it("refuses every change with ENOSPC and shows none of it", async () => {
    const layout = scratch("layout");
    mkdirSync(layout);
    writeLayout(layout, conformanceLayers());
    const image = await build(`oci:${layout}`);
    small = scratchDirectory("small");
    await succeed("mount", ["-t", "tmpfs", "-o", "size=4m,nr_inodes=300", "tmpfs", small]);
    const upper = join(small, "upper");
    const work = join(small, "work");
    const mounted = await mount(image, "--upper", upper, "--work", work);
    const tries = await succeed("python3", [join(import.meta.dirname, "full-disk.py"), mounted.path]);
    expect(Number(tries)).toBeGreaterThan(1500);
    expect(readdirSync(join(work, "tmp"))).toEqual([]);
    await mounted.unmount();
    expect((await imgfs("check", "--upper", upper, "--work", work, image)).stdout).toMatch(
      /^no damage found/,
    );
  });
});
