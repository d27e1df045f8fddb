// Eight processes of mixed work at once on one mount, all of it on objects that begin in the image: nothing may fail, nothing
// be lost or corrupt, and the mount be the same after a remount. 30 seconds; 5 minutes with IMGFS_SOAK.
import { readdirSync } from "node:fs";
import { beforeAll, describe, expect, it } from "vitest";
import { mountForeground } from "../e2e/foreground.js";
import {
  cannotMount,
  command,
  compareTrees,
  hasCommand,
  isRunning,
  scratch,
  scratchDirectory,
  shownTree,
  succeed,
  titleOf,
} from "../e2e/mounted.js";
import { loadImage } from "./image.js";
import { stress, stressors, tasks, verifyChurn } from "./tasks.js";

const missing = ["stress-ng", "git", "python3"].find((name) => !hasCommand(name));
const reason = cannotMount ?? (missing === undefined ? undefined : `${missing} is missing`);
const inCi = process.env["CI"] !== undefined && process.env["CI"] !== "";
const seconds = process.env["IMGFS_SOAK"] === "1" ? 300 : 30;
const limit = { timeout: (seconds + 300) * 1000 };

it.runIf(inCi)("mounts under load are tested in CI", () => expect(reason).toBeUndefined());

describe.skipIf(reason)(titleOf("a mount under load", reason), () => {
  let image: string;

  beforeAll(async () => {
    image = await loadImage();
  });

  // The yardstick: a stressor that fails here is wrong in the list.
  it("is stressed by what a plain directory bears", limit, async () => {
    const kinds = Object.values(stressors).flat();
    await stress(scratchDirectory("plain"), kinds, 1, 1);
  });

  it("loses nothing, corrupts nothing and fails nothing", limit, async () => {
    const upper = scratch("upper");
    const models = scratchDirectory("models");
    const options = ["--upper", upper, "--devices"];
    const live = await mountForeground(image, ...options);
    const seed = Math.floor(Date.now() / 1000);
    const until = Date.now() + seconds * 1000;
    const ends = await Promise.allSettled(
      Object.entries(tasks(seed, models)).map(async ([name, task]) => {
        const done = await task(live.path, until).catch((cause) => {
          throw new Error(`${name}, seed ${seed}: ${cause.message}`);
        });
        return `${name}: ${done}`.trim();
      }),
    );
    const failures = ends.flatMap((end) => (end.status === "rejected" ? [String(end.reason.message)] : []));
    expect(failures.join("\n\n")).toBe("");
    const done = ends.flatMap((end) => (end.status === "fulfilled" ? [end.value] : []));
    process.stdout.write(`${done.join("; ")}\n`);

    await verifyChurn(live.path, models);
    expect(isRunning(live.pid)).toBe(true);
    expect(live.stderr()).toBe("");
    const before = await shownTree(live.path);
    await succeed(command, ["umount", live.path]);
    expect(await live.ended).toEqual({ code: 0, signal: null });
    expect(readdirSync(`${upper}.work/tmp`)).toEqual([]);

    const again = await mountForeground(image, ...options);
    await verifyChurn(again.path, models);
    expect(await compareTrees(before, await shownTree(again.path))).toBeGreaterThan(2000);
    expect(again.stderr()).toBe("");
    await succeed(command, ["umount", again.path]);
  });
});
