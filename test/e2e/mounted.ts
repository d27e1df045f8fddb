// Runs the compiled command, mounts with it, and cleans up whatever a test leaves: mounts, daemons
// and folders, also after a failure. Nothing here blocks the test's own thread on a mount, so a
// mount that hangs ends in a timeout and is then taken away.
import { spawn, spawnSync } from "node:child_process";
import { existsSync, mkdirSync, mkdtempSync, readFileSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join, resolve } from "node:path";
import { afterAll, afterEach } from "vitest";

const here = import.meta.dirname;
/** The command as people run it. */
export const command = resolve(here, "../../bin/imgfs");
const oracle = join(here, "oracle.py");

// ---------------------------------------------------------------- what this machine can do

/** Why the command itself cannot run, or undefined. */
export const noCommand: string | undefined = existsSync(resolve(here, "../../dist/bin/imgfs.cjs"))
  ? undefined
  : "no dist/: run npm run build";

/** Why no test with a mount can run here, or undefined. */
export const cannotMount: string | undefined =
  noCommand ??
  (process.getuid?.() === 0 ? undefined : "not root") ??
  (existsSync("/dev/fuse") ? undefined : "/dev/fuse is missing");

export function hasCommand(name: string): boolean {
  return spawnSync("sh", ["-c", `command -v ${name}`]).status === 0;
}

/** Names the reason a group of tests is skipped in its title. */
export function titleOf(name: string, reason: string | undefined): string {
  return reason === undefined ? name : `${name} (skipped: ${reason})`;
}

// ---------------------------------------------------------------- child processes

export interface Outcome {
  readonly code: number | null;
  readonly signal: NodeJS.Signals | null;
  readonly stdout: string;
  readonly stderr: string;
}

export interface RunOptions {
  /** Milliseconds after which it is killed. */
  readonly timeout?: number;
  readonly input?: string;
  readonly env?: Readonly<Record<string, string>>;
  readonly cwd?: string;
}

/** Runs a command to its end and never throws; a command that hangs is killed. */
export function run(command: string, args: readonly string[], options: RunOptions = {}): Promise<Outcome> {
  return new Promise((done, failed) => {
    const child = spawn(command, args, {
      stdio: ["pipe", "pipe", "pipe"],
      timeout: options.timeout ?? 100_000,
      killSignal: "SIGKILL",
      env: { ...process.env, ...options.env },
      ...(options.cwd === undefined ? {} : { cwd: options.cwd }),
    });
    const out: Buffer[] = [];
    const err: Buffer[] = [];
    child.stdout.on("data", (data) => out.push(data));
    child.stderr.on("data", (data) => err.push(data));
    child.stdin.on("error", () => {});
    child.stdin.end(options.input ?? "");
    child.on("error", failed);
    child.on("close", (code, signal) =>
      done({ code, signal, stdout: Buffer.concat(out).toString(), stderr: Buffer.concat(err).toString() }),
    );
  });
}

/** Runs a command that must succeed and returns its stdout. */
export async function succeed(
  command: string,
  args: readonly string[],
  options: RunOptions = {},
): Promise<string> {
  const outcome = await run(command, args, options);
  if (outcome.code !== 0) {
    const how = outcome.signal ?? `exit ${outcome.code}`;
    throw new Error(`${command} ${args.join(" ")}: ${how}\n${outcome.stdout}${outcome.stderr}`);
  }
  return outcome.stdout;
}

export const imgfs = (...args: readonly string[]): Promise<Outcome> => run(command, args);

export const shell = (script: string): Promise<string> => succeed("sh", ["-euc", script]);

/** A few lines of python for what node cannot see: xattrs, devices, SEEK_HOLE. */
export async function python(script: string, ...args: readonly string[]): Promise<string> {
  const stdout = await succeed("python3", ["-c", script, ...args]);
  return stdout.trim();
}

/** Waits until something another process does has happened; how long that takes is not tested. */
export async function until(what: string, holds: () => boolean): Promise<void> {
  for (let i = 0; i < 3000; i++) {
    if (holds()) return;
    await new Promise((done) => setTimeout(done, 10));
  }
  throw new Error(`waited in vain until ${what}`);
}

// ---------------------------------------------------------------- folders and images

let scratchFolder: string | undefined;
let names = 0;

/** A path of its own in a folder that goes away with the test file. */
export function scratch(name: string): string {
  scratchFolder ??= mkdtempSync(join(tmpdir(), "imgfs-e2e-"));
  names += 1;
  return join(scratchFolder, `${names}-${name}`);
}

export function scratchDirectory(name: string): string {
  const path = scratch(name);
  mkdirSync(path);
  return path;
}

/** Builds an image and returns its folder. */
export async function build(source: string, ...options: readonly string[]): Promise<string> {
  const dest = scratch("image");
  await succeed(command, ["build", source, dest, "--progress=none", ...options]);
  return dest;
}

// ---------------------------------------------------------------- mounts

export interface Mounted {
  readonly path: string;
  readonly pid: number;
  /** The path of something inside the mount. */
  at(name: string): string;
  /** Ends the mount with `imgfs umount` and waits for the daemon. */
  unmount(): Promise<void>;
}

const mounted: Array<{ path: string; pidFile: string }> = [];

export function isMounted(path: string): boolean {
  return readFileSync("/proc/self/mountinfo", "utf8").includes(` ${path} `);
}

/** Whether a process is there; one that has ended and was not yet waited for is not. */
export function isRunning(pid: number): boolean {
  try {
    return !/^State:\s+Z/m.test(readFileSync(`/proc/${pid}/status`, "utf8"));
  } catch {
    return false;
  }
}

/** 0 when the file is not there, or no longer: a daemon that ends removes it. */
function readPid(file: string): number {
  try {
    return Number(readFileSync(file, "utf8"));
  } catch {
    return 0;
  }
}

/** Mounts one image or several blobs; `options` are the command's own. */
export async function mount(sources: string | readonly string[], ...options: string[]): Promise<Mounted> {
  const path = scratchDirectory("mnt");
  return mountAt(path, sources, ...options);
}

/**
 * `imgfs umount`, again where another process of this machine looks at the mount just then; where another mount namespace
 * has a copy of it the daemon ends only with that.
 */
async function unmountQuietly(path: string, pid: number): Promise<void> {
  for (let i = 0; i < 50; i++) {
    const { code, stderr } = await imgfs("umount", path);
    if (code === 0) return;
    if (stderr.includes("still serves it")) return until("the daemon has ended", () => !isRunning(pid));
    if (!stderr.includes("target is busy")) break;
    await new Promise((done) => setTimeout(done, 50));
  }
  await succeed(command, ["umount", path]);
}

export async function mountAt(
  path: string,
  sources: string | readonly string[],
  ...options: string[]
): Promise<Mounted> {
  const pidFile = scratch("pid");
  mounted.push({ path, pidFile });
  const images = typeof sources === "string" ? [sources] : sources;
  await succeed(command, ["mount", ...images, path, "--pid-file", pidFile, ...options]);
  const pid = readPid(pidFile);
  return {
    path,
    pid,
    at: (name) => join(path, name),
    unmount: async () => {
      await unmountQuietly(path, pid);
      if (isMounted(path)) throw new Error(`${path} is still mounted after imgfs umount`);
      if (isRunning(pid)) throw new Error(`daemon ${pid} still runs after imgfs umount`);
    },
  };
}

/** Takes away a mount a test made by other means than {@link mount}. */
export function cleanLater(path: string, pidFile: string): void {
  mounted.push({ path, pidFile });
}

function cleanMounts(): void {
  for (const { path, pidFile } of mounted.splice(0)) {
    if (isMounted(path)) spawnSync("umount", ["-l", path]);
    const pid = readPid(pidFile);
    if (pid > 0 && isRunning(pid)) {
      try {
        process.kill(pid, "SIGKILL");
      } catch {
        // It ended by itself in between.
      }
    }
  }
}

function cleanAll(): void {
  cleanMounts();
  if (scratchFolder !== undefined) rmSync(scratchFolder, { recursive: true, force: true });
  scratchFolder = undefined;
}

process.once("exit", cleanAll);
afterEach(cleanMounts);
afterAll(cleanAll);

// ---------------------------------------------------------------- comparing trees

/** Dumps of the same columns: what the layers say, what a mount shows. */
export async function expectedTree(source: string, ...options: readonly string[]): Promise<string> {
  const file = scratch("expected.json");
  await shell(`python3 ${oracle} layers '${source}' ${options.join(" ")} > ${file}`);
  return file;
}

export async function shownTree(path: string, ...options: readonly string[]): Promise<string> {
  const file = scratch("shown.json");
  await shell(`python3 ${oracle} tree '${path}' ${options.join(" ")} > ${file}`);
  return file;
}

/** Fails with the differences, grouped; the number of paths compared otherwise. */
export async function compareTrees(
  expected: string,
  shown: string,
  ...options: readonly string[]
): Promise<number> {
  const { code, stdout, stderr } = await run("python3", [oracle, "diff", expected, shown, ...options]);
  if (code !== 0) throw new Error(`A is what the layers say, B what the mount shows\n${stdout}${stderr}`);
  return Number(/^(\d+) paths in A/m.exec(stdout)?.[1]);
}
