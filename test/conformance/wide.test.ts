// A directory with 200,000 names (wide.py says what is looked at).
import { join } from "node:path";
import { describe, it } from "vitest";
import { build, cannotMount, mount, scratch, succeed } from "../e2e/mounted.js";

const wide = join(import.meta.dirname, "wide.py");

describe.skipIf(cannotMount)("a directory with 200,000 names", () => {
  it("is listed whole and each name once, whatever comes and goes, and again after a remount", async () => {
    const layer = scratch("layer.tar");
    await succeed("python3", [wide, "make", layer]);
    const image = await build(`tar:${layer}`);
    const upper = scratch("upper");
    const one = await mount(image, "--upper", upper);
    await succeed("python3", [wide, "check", one.at("wide"), "first"]);
    await one.unmount();
    const two = await mount(image, "--upper", upper);
    await succeed("python3", [wide, "check", two.at("wide"), "again"]);
    await two.unmount();
  });
});
