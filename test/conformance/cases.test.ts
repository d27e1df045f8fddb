// The conformance cases (cases/, in Python: they share no code with what they test) on every backend, each case a test
// of its own. What a backend lacks is declared with the reason (lacks.py); such a case must fail, any other must pass.
// Nothing of this may be skipped where root runs the tests.
import { execFileSync } from "node:child_process";
import { join } from "node:path";
import { beforeAll, describe, expect, it } from "vitest";
import { lacks } from "../../src/fuse/native/lacks.js";
import { cannotMount, type Outcome, run } from "../e2e/mounted.js";
import { makeCorner } from "../e2e/private.js";
import { noNative } from "../e2e/transports.js";

interface Result {
  readonly topic: string;
  readonly case: string;
  readonly outcome: "passed" | "failed" | "lacking" | "stale";
  readonly why: string;
}

const runner = join(import.meta.dirname, "runner.py");
const listing: Record<string, { cases: string[]; lacks: string[] }> = JSON.parse(
  execFileSync("python3", [runner, "--list"], { encoding: "utf8" }),
);

const inCi = process.env["CI"] !== undefined && process.env["CI"] !== "";
it.runIf(inCi)("the conformance cases run in CI", () => expect(cannotMount).toBeUndefined());

it("the lacks of fuse-native are those that it declares", () => {
  const declared = listing["fuse-native"]?.lacks.filter((lack) => !lack.includes(" ")) ?? [];
  expect(declared.filter((lack) => !(lack in lacks))).toEqual([]);
});

/** An ordinary user's mounts are made where there is a fusermount3 and a /dev/fuse for him. */
function start(backend: string): Promise<Outcome> {
  if (!backend.startsWith("rootless")) return run("python3", [runner, backend]);
  return makeCorner().asUser(
    `TMPDIR="$HOME" python3 "$prefix/lib/node_modules/imgfs/test/conformance/runner.py" ${backend}`,
  );
}

/** Each starts when the one before the last has ended: what a case waits for leaves room for another. */
const started = new Map<string, Promise<Outcome>>();
function ended(backend: string): Promise<Outcome> {
  const i = backends.indexOf(backend);
  for (const each of backends.slice(i, i + 2)) if (!started.has(each)) started.set(each, start(each));
  return started.get(backend) as Promise<Outcome>;
}

const backends = [
  "plain",
  "plain-user",
  "plain-read-only",
  "upper",
  "lower",
  "copied",
  "metacopied",
  "user-upper",
  "user-lower",
  "rootless-upper",
  "rootless-lower",
  "read-only",
  "read-only-upper",
  ...(noNative === undefined ? ["fuse-native"] : []),
];

describe.skipIf(cannotMount).each(backends)("conformance on %s", (backend) => {
  const results = new Map<string, Result>();
  let said = "";

  beforeAll(async () => {
    const { stdout, stderr, code } = await ended(backend);
    for (const line of stdout.split("\n").filter((each) => each.startsWith("{"))) {
      const result: Result = JSON.parse(line);
      results.set(`${result.topic}: ${result.case}`, result);
    }
    said = `the runner ended with ${code}\n${stderr}`;
  });

  it.each(listing[backend]?.cases ?? [])("%s", (name) => {
    const result = results.get(name);
    expect(result, said).toBeDefined();
    expect(["passed", "lacking"], `${result?.outcome}: ${result?.why}`).toContain(result?.outcome);
  });
});
