// The daemon of a mount with a quota killed in the middle of heavy writing, 50 times: what the next mount takes the upper to
// cost is what is there. And after an end as it should be it knows without counting.
import { spawn } from "node:child_process";
import {
  existsSync,
  linkSync,
  mkdirSync,
  readFileSync,
  symlinkSync,
  truncateSync,
  writeFileSync,
} from "node:fs";
import { join } from "node:path";
import { setTimeout } from "node:timers/promises";
import { beforeAll, describe, expect, it } from "vitest";
import {
  build,
  cannotMount,
  cleanLater,
  command,
  hasCommand,
  run,
  scratch,
  scratchDirectory,
  succeed,
  titleOf,
  until,
} from "../e2e/mounted.js";

const reason = cannotMount ?? (hasCommand("python3") ? undefined : "python3 is missing");
const storm = join(import.meta.dirname, "storm.py");
const inCi = process.env["CI"] !== undefined && process.env["CI"] !== "";
const ROUNDS = 50;
const WRITERS = 6;
const BLOCK = 4096;

it.runIf(inCi)("a daemon with a quota is killed in CI", () => expect(reason).toBeUndefined());

describe.skipIf(reason)(titleOf("a quota whose daemon is killed", reason), () => {
  let image: string;
  const mountpoint = scratchDirectory("mnt");
  const upper = scratch("upper");
  const usage = join(`${upper}.work`, "usage");
  const pidFile = scratch("pid");

  beforeAll(async () => {
    const tree = scratchDirectory("tree");
    for (let d = 0; d < 8; d++) {
      const folder = join(tree, `image/d${d}`);
      mkdirSync(folder, { recursive: true });
      for (let i = 0; i < 20; i++) writeFileSync(join(folder, `f${i}`), "y".repeat(i * i * 100));
      truncateSync(join(folder, "f19"), 1 << 20);
      for (let i = 0; i < 5; i++) linkSync(join(folder, `f${i + 10}`), join(folder, `same${i}`));
      for (let i = 0; i < 5; i++) symlinkSync("f1", join(folder, `link${i}`));
      mkdirSync(join(tree, `image/m${d}/below`), { recursive: true });
      writeFileSync(join(tree, `image/m${d}/below/file`), "z".repeat(9000));
    }
    image = await build(`dir:${tree}`);
    cleanLater(mountpoint, pidFile);
  }, 60_000);

  async function mount(): Promise<number> {
    const options = ["--upper", upper, "--quota", "200M", "--pid-file", pidFile];
    await succeed(command, ["mount", image, mountpoint, ...options]);
    return Number(readFileSync(pidFile, "utf8"));
  }

  async function figures(what: "quota" | "du"): Promise<{ bytes: number; inodes: number }> {
    const text = await succeed(command, [what, what === "du" ? upper : mountpoint, "--json"]);
    const { bytes, inodes } = JSON.parse(text);
    return { bytes, inodes };
  }

  /** Writes until the daemon has been killed, at some moment. */
  async function killed(pid: number, seed: number): Promise<void> {
    const child = spawn("python3", [storm, mountpoint, String(WRITERS), String(seed)], {
      stdio: ["ignore", "pipe", "pipe"],
    });
    let said = "";
    child.stderr.on("data", (data) => {
      said += data;
    });
    await new Promise((done) => child.stdout.once("data", done));
    const ended = new Promise<number | null>((done) => child.once("close", done));
    await setTimeout(60 + ((seed * 7919) % 300));
    process.kill(pid, "SIGKILL");
    await until("the daemon is dead", () => !existsSync(`/proc/${pid}`) || isZombie(pid));
    // Requests that nobody will answer end with the connection.
    await succeed("umount", ["-l", mountpoint]);
    expect({ code: await ended, said }).toEqual({ code: 0, said: "" });
  }

  it(`counts what is there after each of ${ROUNDS} deaths, and nothing but deaths makes it count`, async () => {
    let pid = await mount();
    for (let round = 1; round <= ROUNDS; round++) {
      await killed(pid, round);
      expect(existsSync(usage)).toBe(false);
      pid = await mount();
      const found = await figures("quota");
      expect(found, `round ${round}`).toEqual(await figures("du"));
      expect(found.inodes).toBeGreaterThan(0);
      if (round % 10 !== 0) continue;
      await succeed(command, ["umount", mountpoint]);
      expect(readFileSync(usage, "utf8")).toContain(`bytes ${found.bytes}\ninodes ${found.inodes}\n`);
      // A count would not find one block more.
      const more = found.bytes + BLOCK;
      writeFileSync(usage, readFileSync(usage, "utf8").replace(`bytes ${found.bytes}\n`, `bytes ${more}\n`));
      pid = await mount();
      expect(await figures("quota")).toEqual({ ...found, bytes: more });
    }
    await succeed(command, ["umount", mountpoint]);
    const { code, stdout } = await run(command, ["check", "--upper", upper, image]);
    expect({ code, stdout }).toEqual({ code: 0, stdout: expect.stringContaining("no damage found") });
  }, 300_000);
});

function isZombie(pid: number): boolean {
  try {
    return readFileSync(`/proc/${pid}/status`, "utf8").includes("State:\tZ");
  } catch {
    return true;
  }
}
