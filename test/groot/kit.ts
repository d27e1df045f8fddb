// Stores for the tests of their commands, called under both names; whatever is mounted in them goes away with the test.
import { spawnSync } from "node:child_process";
import { mkdirSync, readFileSync, symlinkSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { afterEach } from "vitest";
import { command, type Outcome, run, scratch, scratchDirectory } from "../e2e/mounted.js";
import { writeLayout } from "../e2e/oci-writer.js";
import { layerTar, type TarEntry } from "../e2e/tar-writer.js";

export const MiB = 1 << 20;

/** The two names. */
export const names = ["imgfs", "grootfs"] as const;
export type Name = (typeof names)[number];

const links = new Map<Name, string>();

/** The program under a name. */
export function program(name: Name): string {
  if (name === "imgfs") return command;
  let path = links.get(name);
  if (path === undefined) {
    path = join(scratchDirectory("bin"), name);
    symlinkSync(command, path);
    links.set(name, path);
  }
  return path;
}

/** What a caller may have set must not count. */
const clean = { IMGFS_STORE: "", IMGFS_CONFIG: "", XDG_CONFIG_HOME: "/nonexistent", CI: "1" };

export interface CallOptions {
  readonly env?: Readonly<Record<string, string>>;
  readonly input?: string;
}

export interface TestStore {
  readonly path: string;
  /** Runs a command on this store. */
  call(name: Name, ...words: readonly string[]): Promise<Outcome>;
  /** The same with variables, and with what it reads on stdin. */
  callWith(options: CallOptions, name: Name, ...words: readonly string[]): Promise<Outcome>;
  /** The same, and it must end with 0 and say nothing on stderr; its stdout. */
  say(name: Name, ...words: readonly string[]): Promise<string>;
  image(id: string, ...below: readonly string[]): string;
}

const stores: TestStore[] = [];

/** A store that is not made yet. */
export function newStore(path = scratch("store")): TestStore {
  const store: TestStore = {
    path,
    call: (name, ...words) => store.callWith({}, name, ...words),
    callWith: ({ env, ...options }, name, ...words) =>
      run(program(name), ["--store", path, ...words], { ...options, env: { ...clean, ...env } }),
    say: async (name, ...words) => {
      const outcome = await store.call(name, ...words);
      if (outcome.code !== 0 || outcome.stderr !== "") {
        throw new Error(
          `${name} ${words.join(" ")}: exit ${outcome.code}\n${outcome.stdout}${outcome.stderr}`,
        );
      }
      return outcome.stdout;
    },
    image: (id, ...below) => join(path, "images", id, ...below),
  };
  stores.push(store);
  return store;
}

/** A store that is made. */
export async function madeStore(...options: readonly string[]): Promise<TestStore> {
  const store = newStore();
  await store.say("grootfs", "init-store", ...options);
  return store;
}

afterEach(async () => {
  for (const { path } of stores.splice(0)) {
    await run(command, ["delete-store", "--store", path], { env: clean });
    // What is left of a test that failed.
    const left = readFileSync("/proc/self/mountinfo", "latin1").matchAll(/^\S+ \S+ \S+ \S+ (\S+) /gm);
    for (const [, mountpoint = ""] of left) {
      if (mountpoint.startsWith(`${path}/`)) spawnSync("umount", ["-l", mountpoint]);
    }
  }
});

/** Runs without a store, as a caller with a clean environment. */
export const call = (name: Name, ...words: readonly string[]): Promise<Outcome> =>
  run(program(name), [...words], { env: clean });

export const folder = (name: string, more: Partial<TarEntry> = {}): TarEntry => ({
  name,
  type: "dir",
  ...more,
});
export const file = (name: string, data: string | Buffer, more: Partial<TarEntry> = {}): TarEntry => ({
  name,
  data: Buffer.from(data),
  ...more,
});

/** A tar of one layer on disk. */
export function tarOf(...entries: readonly TarEntry[]): string {
  const path = scratch("rootfs.tar");
  writeFileSync(path, layerTar([...entries]));
  return path;
}

/** An OCI layout on disk; its config has PATH=/bin as Env. */
export function layoutOf(...layers: readonly Buffer[]): string {
  const path = scratch("layout");
  mkdirSync(path);
  writeLayout(path, layers);
  return path;
}

/** A failure as each of the names tells it. */
export function told(name: Name, text: string, code: number): Partial<Outcome> {
  return name === "grootfs"
    ? { stdout: `${text}\n`, stderr: "", code: 1 }
    : { stdout: "", stderr: `imgfs: ${text}\n`, code };
}
