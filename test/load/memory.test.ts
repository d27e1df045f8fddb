// What a mount's process holds goes with what it was for: after any amount of work its own memory (RssAnon) and its open
// files are back where they began. Forgotten inodes are really dropped.
import { mkdirSync, mkdtempSync, readdirSync, readFileSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { afterEach, beforeAll, beforeEach, describe, expect, it } from "vitest";
import {
  build,
  cannotMount,
  hasCommand,
  type Mounted,
  mount,
  run,
  scratchDirectory,
  shell,
  succeed,
  titleOf,
} from "../e2e/mounted.js";
import { writeLayout } from "../e2e/oci-writer.js";
import { layerTar } from "../e2e/tar-writer.js";

const reason = cannotMount ?? (hasCommand("python3") ? undefined : "python3 is missing");
const inCi = process.env["CI"] !== undefined && process.env["CI"] !== "";
const soak = process.env["IMGFS_SOAK"] === "1";
const limit = { timeout: soak ? 2 * 3600_000 : 600_000 };
const script = join(import.meta.dirname, "names.py");

const MANY = 20_000;
/** How much more than at first may be held at the end, in bytes. */
const ALLOWED = 10 << 20;

function many(): Buffer {
  const entries = Array.from({ length: MANY }, (_, i) => ({
    name: `many/d${i % 50}/f${i}`,
    data: Buffer.from(`file ${i}\n`),
  }));
  return layerTar([{ name: "work/", type: "dir" }, ...entries]);
}

it.runIf(inCi)("the memory of a mount is tested in CI", () => expect(reason).toBeUndefined());

describe.skipIf(reason)(titleOf("the memory of a mount", reason), () => {
  let image: string;
  let place: string;
  let mounted: Mounted;

  beforeAll(async () => {
    const layout = scratchDirectory("layout");
    writeLayout(layout, [many()]);
    image = await build(`oci:${layout}`);
  });

  // In memory where its filesystem keeps user xattrs: the disk would be most of the time taken.
  async function upperPlace(): Promise<string> {
    const shared = mkdtempSync(join("/dev/shm", "imgfs-load-"));
    const { code } = await run("setfattr", ["-n", "user.x", "-v", "y", shared]);
    if (code === 0) return shared;
    rmSync(shared, { recursive: true });
    return mkdtempSync(join(tmpdir(), "imgfs-load-"));
  }

  beforeEach(async () => {
    place = await upperPlace();
    mounted = await mount(image, "--upper", join(place, "upper"));
    // The compiler and the allocators of the process have got going.
    await names("churn", "work", 20_000);
    await names("touch", "many", 10);
  });

  afterEach(async () => {
    await mounted.unmount();
    rmSync(place, { recursive: true, force: true });
  });

  const names = (what: string, folder: string, count: number): Promise<string> =>
    succeed("python3", [script, what, mounted.at(folder), String(count)], { timeout: limit.timeout });

  const held = (): number =>
    Number(/^RssAnon:\s+(\d+)/m.exec(readFileSync(`/proc/${mounted.pid}/status`, "utf8"))?.[1]) << 10;

  const descriptors = (): number => readdirSync(`/proc/${mounted.pid}/fd`).length;

  const forgetAll = (): Promise<string> =>
    shell("for i in 1 2 3; do sync; echo 2 > /proc/sys/vm/drop_caches; done");

  /** Does the work and expects what is held to be as before: garbage has some further work to be collected in. */
  async function returns(work: () => Promise<unknown>): Promise<void> {
    const before = held();
    const open = descriptors();
    await work();
    await forgetAll();
    for (let i = 0; i < 10 && held() > before + ALLOWED; i++) await names("churn", "work", 5000);
    expect(held() - before).toBeLessThan(ALLOWED);
    // Some directories stay known.
    expect(descriptors() - open).toBeLessThan(20);
  }

  it("is the same after a million names made and removed", limit, () =>
    returns(() => names("churn", "work", soak ? 1_000_000 : 150_000)),
  );

  it("is the same after the image's files were looked up and forgotten", limit, () =>
    returns(async () => {
      for (let i = 0; i < 5; i++) await names("stat", "many", MANY);
    }),
  );

  it("is the same after storms of renames, and of files unlinked while open", limit, () =>
    returns(async () => {
      await names("rename", "work", soak ? 200_000 : 30_000);
      await names("held", "work", soak ? 100_000 : 15_000);
    }),
  );

  it("returns after large directories were filled, listed and removed", limit, () =>
    returns(async () => {
      const size = soak ? 200_000 : 50_000;
      mkdirSync(mounted.at("work/big"));
      await names("fill", "work/big", size);
      await names("list", "work/big", size);
      await forgetAll();
      await names("list", "work/big", size);
      await succeed("rm", ["-r", mounted.at("work/big")], { timeout: limit.timeout });
      for (let i = 0; i < (soak ? 64 : 12); i++) {
        mkdirSync(mounted.at(`work/d${i}`));
        await names("fill", `work/d${i}`, soak ? 10_000 : 2000);
        await names("list", `work/d${i}`, soak ? 10_000 : 2000);
      }
    }),
  );

  it("returns after the image's files were copied up", limit, () =>
    returns(() => names("touch", "many", soak ? MANY : 6000)),
  );
});
