// Real mounts for tests: a folder of its own for each test, the daemon of the built package, and an end that leaves
// nothing mounted and nothing running whatever the test did.
import { execFileSync, spawn, spawnSync } from "node:child_process";
import { mkdirSync, mkdtempSync, readdirSync, readFileSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join, resolve } from "node:path";
import { setTimeout as sleep } from "node:timers/promises";
import { pathToFileURL } from "node:url";

type MountRoom = typeof import("../../src/daemon/mount.js");
type MountOptions = import("../../src/daemon/options.js").MountOptions;

export const dist: string = process.env["IMGFS_DIST"] ?? resolve(import.meta.dirname, "../../dist");
export const memoryFileSystem: string = pathToFileURL(
  resolve(import.meta.dirname, "memory-filesystem.mjs"),
).href;
const foregroundProgram = resolve(import.meta.dirname, "foreground.mjs");

/** What the built package exports for mounting. */
export function mountRoom(): Promise<MountRoom> {
  return import(pathToFileURL(join(dist, "daemon/mount.js")).href) as Promise<MountRoom>;
}

export interface Mounted {
  readonly path: string;
  readonly pid: number;
  readonly logFile: string;
  log(): string;
}

export interface Foreground {
  readonly path: string;
  readonly pid: number;
  /** Resolves when the mount is live. */
  readonly live: Promise<void>;
  readonly exit: Promise<{ code: number | null; signal: string | null; stderr: string }>;
}

export type Overrides = Partial<Omit<MountOptions, "mountpoint">> & { readonly mountpoint?: string };

export class Bed {
  readonly folder: string = mkdtempSync(join(tmpdir(), "imgfs-test-"));
  private readonly paths: string[] = [];
  private readonly pids: number[] = [];
  private count = 0;

  options(settings: Readonly<Record<string, unknown>>, overrides: Overrides = {}): MountOptions {
    const path = overrides.mountpoint ?? this.newFolder(`mnt-${this.count++}`);
    this.paths.push(path);
    return {
      sources: [this.folder],
      upper: join(this.folder, "upper"),
      devices: false,
      statsOnExit: false,
      logLevel: "info",
      logFormat: "text",
      logFile: `${path}.log`,
      fileSystem: { url: memoryFileSystem, settings },
      ...overrides,
      mountpoint: path,
    };
  }

  newFolder(name: string): string {
    const path = join(this.folder, name);
    mkdirSync(path, { recursive: true });
    return path;
  }

  /** Mounts the memory filesystem in a process of its own. */
  async mount(settings: Readonly<Record<string, unknown>> = {}, overrides: Overrides = {}): Promise<Mounted> {
    const options = this.options(settings, overrides);
    const { mountDetached } = await mountRoom();
    const { pid } = await mountDetached(options);
    this.pids.push(pid);
    const logFile = options.logFile as string;
    return { path: options.mountpoint, pid, logFile, log: () => readFileSync(logFile, "utf8") };
  }

  /** Mounts in the foreground of a child, whose exit can be observed. `wrapper` runs the child. */
  foreground(
    settings: Readonly<Record<string, unknown>> = {},
    overrides: Overrides = {},
    wrapper: readonly string[] = [],
  ): Foreground {
    const options = this.options(settings, overrides);
    const command = [...wrapper, process.execPath, foregroundProgram, dist, JSON.stringify(options)];
    const child = spawn(command[0] as string, command.slice(1), { stdio: ["ignore", "ignore", "pipe"] });
    let stderr = "";
    child.stderr.on("data", (chunk) => {
      stderr += String(chunk);
    });
    this.pids.push(child.pid as number);
    const exit = new Promise<{ code: number | null; signal: string | null; stderr: string }>((done) => {
      child.on("close", (code, signal) => done({ code, signal, stderr }));
    });
    const live = until(() => isMounted(options.mountpoint) || child.exitCode !== null);
    return { path: options.mountpoint, pid: child.pid as number, live, exit };
  }

  /** Takes away every mount below the folder and every process started here. */
  async end(): Promise<void> {
    for (const path of this.paths.reverse()) {
      while (isMounted(path)) if (spawnSync("umount", ["-l", path]).status !== 0) break;
    }
    await until(() => this.pids.every((pid) => !isRunning(pid)), 3_000).catch(() => {});
    for (const pid of this.pids) if (isRunning(pid)) process.kill(pid, "SIGKILL");
    rmSync(this.folder, { recursive: true, force: true });
    for (const path of this.paths) rmSync(`${path}.log`, { force: true });
  }
}

/** Runs a test with a Bed that is taken down afterwards. */
export function withBed(test: (bed: Bed) => Promise<void>): () => Promise<void> {
  return async () => {
    const bed = new Bed();
    try {
      await test(bed);
    } finally {
      await bed.end();
    }
  };
}

export async function until(condition: () => boolean, limit = 20_000): Promise<void> {
  const deadline = performance.now() + limit;
  while (!condition()) {
    if (performance.now() > deadline) throw new Error(`not within ${limit} ms: ${condition}`);
    await sleep(10);
  }
}

export function isMounted(path: string): boolean {
  const escaped = path.replaceAll("\\", "\\134").replaceAll(" ", "\\040").replaceAll("\n", "\\012");
  return readFileSync("/proc/self/mountinfo", "utf8").includes(` ${escaped} `);
}

/** False once the last thread is gone: the first one may be a zombie while others still hold descriptors. */
export function isRunning(pid: number): boolean {
  try {
    const stat = readFileSync(`/proc/${pid}/stat`, "latin1");
    const zombie = /^[ZX]/.test(stat.slice(stat.lastIndexOf(")") + 2));
    return !zombie || readdirSync(`/proc/${pid}/task`).length > 1;
  } catch {
    return false;
  }
}

/** Standard output of a shell command; throws with its standard error. */
export function sh(command: string): string {
  return execFileSync("sh", ["-c", command], { encoding: "utf8", stdio: ["ignore", "pipe", "pipe"] });
}
