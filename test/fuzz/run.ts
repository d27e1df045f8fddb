// Runs inputs in processes of their own and watches them: one that hangs is killed, one that crashes is gone, and either
// way the input is known.
import { spawn, spawnSync } from "node:child_process";
import { accessSync, constants, mkdirSync, mkdtempSync, readFileSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { type Bundle, bundle } from "./bundle.js";

export interface Share {
  readonly kind: string;
  /** The first seed, and how many. */
  readonly first: number;
  readonly count: number;
}

export interface Failure {
  readonly kind: string;
  readonly seed: number;
  /** Where the input was saved. */
  readonly file: string;
  readonly problem: string;
}

export interface Report {
  /** Inputs run, by kind. */
  readonly runs: Readonly<Record<string, number>>;
  readonly failures: readonly Failure[];
}

/** Wall time without a new input. The limit of processor time, which the process keeps itself, is far below. */
const HANGS = 120_000;
/** Inputs for one process. */
const BATCH = 5_000;

/** Memory is the fastest place for small files. */
function fastFolder(): string {
  try {
    accessSync("/dev/shm", constants.W_OK);
    return mkdtempSync("/dev/shm/imgfs-fuzz-");
  } catch {
    return mkdtempSync(join(tmpdir(), "imgfs-fuzz-"));
  }
}

/** Runs all shares, two processes at a time. Inputs that failed stay in a folder of the system's temporary one. */
export async function fuzz(
  shares: readonly Share[],
  onProgress: (line: string) => void,
  hangs = HANGS,
): Promise<Report> {
  const made = await bundle();
  const folder = fastFolder();
  const saved = mkdtempSync(join(tmpdir(), "imgfs-fuzz-inputs-"));
  const runs: Record<string, number> = {};
  const failures: Failure[] = [];
  const waiting = shares.flatMap(({ kind, first, count }) =>
    Array.from({ length: Math.ceil(count / BATCH) }, (_, i) => ({
      kind,
      first: first + i * BATCH,
      count: Math.min(BATCH, count - i * BATCH),
    })),
  );
  let serial = 0;
  const work = async (): Promise<void> => {
    for (let share = waiting.shift(); share !== undefined; share = waiting.shift()) {
      const home = join(folder, String(serial++));
      mkdirSync(home);
      const { done, found, last } = await runShare(made, share, home, saved, hangs);
      rmSync(home, { recursive: true, force: true });
      runs[share.kind] = (runs[share.kind] ?? 0) + done;
      failures.push(...found);
      const total = Object.values(runs).reduce((sum, count) => sum + count, 0);
      onProgress(`${total} inputs, ${failures.length} failures; ${share.kind} from seed ${share.first}`);
      // What killed the process is one input: the others are still to be run.
      const next = last + 1 - share.first;
      if (last >= 0 && next < share.count) {
        waiting.unshift({ ...share, first: last + 1, count: share.count - next });
      }
    }
  };
  try {
    await Promise.all([work(), work()]);
  } finally {
    made.remove();
    rmSync(folder, { recursive: true, force: true });
    if (failures.length === 0) rmSync(saved, { recursive: true, force: true });
  }
  return { runs, failures };
}

/** `last`: the seed that the process died of, or -1. */
async function runShare(
  { path }: Bundle,
  { kind, first, count }: Share,
  home: string,
  saved: string,
  limit: number,
): Promise<{ done: number; found: Failure[]; last: number }> {
  const status = join(home, "status");
  const env = { ...process.env, TMPDIR: home };
  const args = ["--enable-source-maps", path];
  const child = spawn(process.execPath, [...args, "run", kind, String(first), String(count), status, saved], {
    env,
    cwd: home,
    stdio: ["ignore", "pipe", "pipe"],
  });
  let output = "";
  let errors = "";
  child.stdout.on("data", (piece: Buffer) => {
    output += piece.toString();
  });
  child.stderr.on("data", (piece: Buffer) => {
    errors = (errors + piece.toString()).slice(-4000);
  });
  let seen = -1;
  let since = Date.now();
  let hangs = false;
  const watch = setInterval(() => {
    const { seed } = placeOf(status);
    if (seed !== seen) since = Date.now();
    seen = seed;
    if (Date.now() - since < limit) return;
    hangs = true;
    child.kill("SIGKILL");
  }, 1000);
  const end = await new Promise<string>((resolve) =>
    child.on("close", (code, signal) => resolve(code === 0 ? "" : `${code ?? signal}`)),
  );
  clearInterval(watch);
  const found = output
    .split("\n")
    .filter((line) => line.startsWith('{"kind"'))
    .map((line) => JSON.parse(line) as Failure);
  const { seed, done, isOver } = placeOf(status);
  if (isOver && end === "") return { done, found, last: -1 };
  const file = join(saved, `${kind}.seed.${seed}`);
  const made = spawnSync(process.execPath, [...args, "make", kind, String(seed), saved], { env });
  const problem = hangs ? `no end after ${limit / 1000} s` : `the process died: ${end}\n${errors}`;
  found.push({ kind, seed, file: made.stdout?.toString().trim() || file, problem });
  return { done, found, last: seed };
}

function placeOf(status: string): { seed: number; done: number; isOver: boolean } {
  try {
    const bytes = readFileSync(status);
    return {
      seed: bytes.readDoubleLE(0),
      done: bytes.readDoubleLE(8),
      isOver: bytes.readDoubleLE(16) === 1,
    };
  } catch {
    return { seed: -1, done: 0, isOver: false };
  }
}

/** Runs one saved input again; what it printed. */
export async function replay(file: string): Promise<string> {
  const made = await bundle();
  const folder = fastFolder();
  try {
    const { stdout, stderr, status, signal } = spawnSync(
      process.execPath,
      ["--enable-source-maps", made.path, "replay", file],
      { env: { ...process.env, TMPDIR: folder }, encoding: "utf8", timeout: HANGS },
    );
    return status === 0 ? "" : `${signal ?? ""}${stdout}${stderr}`;
  } finally {
    made.remove();
    rmSync(folder, { recursive: true, force: true });
  }
}
