// Stores through shared mappings into a full quota (mapped.py): an error of msync, fsync or close, and never a signal.
import { writeFileSync } from "node:fs";
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
  titleOf,
} from "../e2e/mounted.js";

const reason = cannotMount ?? (hasCommand("python3") ? undefined : "python3 is missing");
const inCi = process.env["CI"] !== undefined && process.env["CI"] !== "";
const script = join(import.meta.dirname, "mapped.py");

it.runIf(inCi)("mapped writes over a quota are run in CI", () => expect(reason).toBeUndefined());

describe.skipIf(reason)(titleOf("a store through a mapping that a quota has no room for", reason), () => {
  let image: string;
  beforeAll(async () => {
    const source = scratchDirectory("source");
    writeFileSync(join(source, "image"), "i".repeat(10 * 4096));
    image = await build(`dir:${source}`);
  });

  it.each([
    ["is told by msync, page by page", "msync"],
    ["is told by fsync, once, and what fits is there", "fsync"],
    ["is told by close", "close"],
    ["takes all the data of a file of the image or nothing", "copied"],
    ["of a file without a name is charged until that is gone", "unlinked"],
    ["by eight processes at once takes what fits", "several"],
    ["is taken where the page is charged already", "dense"],
  ])("%s", async (_, way) => {
    const upper = scratch("upper");
    const mounted = await mount(image, "--upper", upper, "--quota", "128K");
    const { code, signal, stdout, stderr } = await run("python3", [script, mounted.path, upper, way]);
    expect({ code, signal, stdout, stderr }).toEqual({ code: 0, signal: null, stdout: "done\n", stderr: "" });
    await mounted.unmount();
  });
});
