// The daemon killed at each named step of each operation that changes the disk, and each step failing (crash.py says how):
// what was asked for happened entirely or not at all. The long run (IMGFS_SOAK=1) leaves no pass of a step out.
import { chmodSync, readdirSync } from "node:fs";
import { join } from "node:path";
import { beforeAll, describe, expect, it } from "vitest";
import { type FaultPoint, faultPoints } from "../../src/overlay/fault.js";
import { build, cannotMount, command, hasCommand, run, scratchDirectory, titleOf } from "../e2e/mounted.js";

const reason = cannotMount ?? (hasCommand("python3") ? undefined : "python3 is missing");
const script = join(import.meta.dirname, "crash.py");
const all = Object.keys(faultPoints) as FaultPoint[];
const ofEnd = all.filter((point) => point.startsWith("end."));
const ofSetup = all.filter((point) => point.startsWith("setup.") || point === "tree.mark");

interface Trace {
  readonly scenarios: ReadonlyArray<{ readonly name: string; readonly passes: readonly string[] }>;
}
interface Killed {
  readonly kills: number;
  readonly before: number;
  readonly after: number;
}
interface Failed {
  readonly scenarios: number;
  readonly refused: number;
}

it.runIf(process.env["CI"] !== undefined)("can kill a daemon here", () => {
  expect(reason).toBeUndefined();
});

describe.skipIf(reason !== undefined)(titleOf("the daemon killed at each step", reason), () => {
  // What the kernel lets it do: everything; no RENAME_WHITEOUT; no device 0:0 (then whiteouts are files with an xattr); no
  // owner but its own (then an xattr says whose an object is).
  const forms = ["whole", "no-rename", "no-mknod", "no-owners"] as const;
  const traces: Trace[] = [];
  let base: string;
  let image: string;

  async function call<T>(what: string, form: string, args: readonly string[], input?: unknown): Promise<T> {
    const folder = join(base, `${what}-${form}-${readdirSync(base).length}-${args[0]}`);
    const options = input === undefined ? {} : { input: JSON.stringify(input) };
    const all = [script, what, command, image, folder, form, ...args];
    const { code, stdout, stderr } = await run("python3", all, { ...options, timeout: 600_000 });
    expect(code, `${stdout}${stderr}`).toBe(0);
    return JSON.parse(stdout) as T;
  }

  /** What is passed in this form and in none before it, by two processes. */
  function inHalves<T>(what: string, number: number): Promise<T[]> {
    const given = [traces[number], ...traces.slice(0, number)];
    const form = forms[number] as string;
    return Promise.all(["0", "1"].map((half) => call<T>(what, form, [half, "2"], given)));
  }

  beforeAll(async () => {
    base = scratchDirectory("crash");
    // Ordinary users work in the mounts.
    for (const folder of [base, join(base, "..")]) chmodSync(folder, 0o711);
    const tree = join(base, "tree");
    expect(
      (await run("python3", [script, "tree", tree, process.env["IMGFS_SOAK"] === "1" ? "400" : "130"])).code,
    ).toBe(0);
    image = await build(tree);
    for (const form of forms) traces.push(await call<Trace>("trace", form, []));
  }, 120_000);

  it("passes every point by some operation, or at the start or end of a mount", () => {
    const passed = new Set(traces.flatMap(({ scenarios }) => scenarios.flatMap(({ passes }) => passes)));
    const known = [...ofSetup, ...ofEnd];
    expect(all.filter((point) => !passed.has(point) && !known.includes(point))).toEqual([]);
  });

  it.each(forms.map((form, i) => [form, i] as const))(
    "leaves each operation done or not done at all: %s",
    async (_, number) => {
      const halves = await inHalves<Killed>("kill", number);
      const sum = (key: keyof Killed): number => halves.reduce((total, half) => total + half[key], 0);
      expect(sum("before") + sum("after")).toBe(sum("kills"));
      expect(sum("kills")).toBeGreaterThan(10);
      expect(sum("before")).toBeGreaterThan(0);
    },
    600_000,
  );

  // What it does without RENAME_WHITEOUT it does without whiteouts by mknod, too.
  it.each([0, 2, 3].map((i) => [forms[i] as string, i] as const))(
    "changes nothing where a step fails, and works when it no longer does: %s",
    async (_, number) => {
      const halves = await inHalves<Failed>("errors", number);
      for (const { scenarios, refused } of halves) expect(refused).toBeGreaterThan(scenarios);
    },
    600_000,
  );

  it("sets an upper up at the next mount where the first was cut short or refused", async () => {
    const halves = [ofSetup.filter((_, i) => i % 2 === 0), ofSetup.filter((_, i) => i % 2 === 1)];
    const done = await Promise.all(
      halves.map((points) => call<{ points: string[] }>("setup", "whole", points)),
    );
    expect(done.flatMap(({ points }) => points).sort()).toEqual([...ofSetup].sort());
  }, 600_000);

  it("knows what an upper costs at the next mount where the end of one was cut short or failed", async () => {
    expect(await call("end", "whole", ofEnd)).toEqual({ points: ofEnd });
  }, 600_000);
});
