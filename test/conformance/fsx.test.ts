// Random operations on the data of files that start in the image (fsx.py says how), from both codecs. The seeds of every
// run are fixed; the long run (npm run test:soak) goes on from a seed of the day for IMGFS_SOAK_MINUTES and prints it.
import { truncateSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { beforeAll, describe, expect, it } from "vitest";
import { noise } from "../e2e/make-image.js";
import { build, cannotMount, command, run, scratchDirectory } from "../e2e/mounted.js";

const fsx = join(import.meta.dirname, "fsx.py");
const soak = process.env["IMGFS_SOAK"] === "1";
const inCi = process.env["CI"] !== undefined && process.env["CI"] !== "";

const files = {
  plain: noise(300_000, 1),
  large: noise(5_000_000, 2),
  text: Buffer.from("some text that compresses\n".repeat(60_000)),
  small: Buffer.from("tiny"),
};
const names = [...Object.keys(files), "sparse"];
const codecs = ["none", "zstd"];
it.runIf(inCi)("data of files of the image are changed at random in CI", () =>
  expect(cannotMount).toBeUndefined(),
);

describe.skipIf(cannotMount)("a file that starts in the image, beside a model in memory", () => {
  const images = new Map<string, string>();

  beforeAll(async () => {
    const source = scratchDirectory("source");
    for (const suffix of ["", ".pristine"]) {
      for (const [name, data] of Object.entries(files)) writeFileSync(join(source, name + suffix), data);
      const sparse = join(source, `sparse${suffix}`);
      writeFileSync(sparse, noise(9000, 3));
      truncateSync(sparse, 900_000);
      writeFileSync(sparse, noise(9000, 4), { flag: "a" });
      truncateSync(sparse, 2_000_000);
    }
    for (const codec of codecs) images.set(codec, await build(`dir:${source}`, "--codec", codec));
  });

  async function agree(
    codec: string,
    name: string,
    seed: number,
    operations: number,
    options: readonly string[] = [],
  ): Promise<void> {
    const image = images.get(codec) as string;
    const args = [fsx, command, image, scratchDirectory("run"), name, String(seed), String(operations)];
    const { code, stdout, stderr } = await run("python3", [...args, ...options]);
    expect(code, `${stdout}${stderr}`).toBe(0);
  }

  const each = codecs.flatMap((codec) => names.map((name, i) => [codec, name, i + 1] as const));
  it.each(each)("agrees with it: codec %s, %s, seed %i", async (codec, name, seed) =>
    agree(codec, name, seed, 400),
  );

  it.each(codecs)("agrees with it where every copy has its data: codec %s", async (codec) =>
    agree(codec, "plain", 11, 400, ["--metacopy=off"]),
  );

  it.runIf(soak)(
    "agrees with it for as long as the soak takes",
    async () => {
      const minutes = Number(process.env["IMGFS_SOAK_MINUTES"] ?? 10);
      const end = Date.now() + minutes * 60_000;
      for (let seed = Math.floor(Date.now() / 1000); Date.now() < end; seed++) {
        for (const codec of codecs) for (const name of names) await agree(codec, name, seed, 1500);
      }
    },
    24 * 3600_000,
  );
});
