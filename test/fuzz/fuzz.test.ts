// Changed blobs, layers, streams and sources: an error that names the place, or correct output. A fixed list of seeds
// here; the long run (npm run test:soak) takes IMGFS_FUZZ_INPUTS (a million) from IMGFS_FUZZ_SEED (one of the day).
import { rmSync } from "node:fs";
import { dirname } from "node:path";
import { expect, it } from "vitest";
import { type Failure, fuzz, replay, type Share } from "./run.js";

const soak = process.env["IMGFS_SOAK"] === "1";
const again = process.env["IMGFS_FUZZ_REPLAY"];

/** Inputs of the short run by kind. */
const short = {
  "image-raw": 250,
  "image-sealed": 400,
  "layer-tar": 400,
  "layer-compressed": 200,
  decoders: 1000,
  sources: 200,
};

function shares(): Share[] {
  const kinds = Object.entries(short);
  if (!soak) return kinds.map(([kind, count]) => ({ kind, first: 1, count }));
  const inputs = Number(process.env["IMGFS_FUZZ_INPUTS"] ?? 1_000_000);
  const day = Math.floor(Date.now() / 86_400_000) % 400;
  const first = Number(process.env["IMGFS_FUZZ_SEED"] ?? day * 10_000_000 + 10_000);
  const total = kinds.reduce((sum, [, count]) => sum + count, 0);
  return kinds.map(([kind, count]) => ({ kind, first, count: Math.ceil((inputs * count) / total) }));
}

const told = ({ kind, seed, file, problem }: Failure): string =>
  `${kind}, seed ${seed}: ${problem}\nagain by IMGFS_FUZZ_REPLAY=${file} npx vitest run test/fuzz -t saved`;

const hours = 3_600_000;

if (again !== undefined) {
  it("a saved input is refused, or read as it should be", async () => {
    expect(await replay(again)).toBe("");
  });
} else {
  it("the fuzzer finds what is wrong, whatever becomes of the process, and runs the rest", async () => {
    const { runs, failures } = await fuzz([{ kind: "broken", first: 0, count: 8 }], () => {}, 5000);
    const found = failures.map(({ seed, problem }) => [seed, problem.split("\n")[0]]).sort();
    expect(found).toEqual([
      [1, "Wrong: seed 1 is wrong"],
      [2, expect.stringMatching(/^TypeError: /)],
      [3, "the process died: SIGKILL"],
      [4, "the process died: SIGSEGV"],
      [5, "no end after 5 s"],
    ]);
    expect(runs).toEqual({ broken: 5 });
    for (const { file } of failures) rmSync(dirname(file), { recursive: true, force: true });
  });

  it(
    "no changed input does more than be refused",
    async () => {
      const plan = shares();
      const { runs, failures } = await fuzz(plan, (line) => {
        if (soak) process.stdout.write(`fuzz: ${line}\n`);
      });
      expect(failures.map(told).join("\n\n")).toBe("");
      expect(runs).toEqual(Object.fromEntries(plan.map(({ kind, count }) => [kind, count])));
    },
    soak ? 48 * hours : 300_000,
  );
}
