// Stores of tests, and what is done to them by processes of their own (driver.mjs).
import { mkdirSync, readdirSync } from "node:fs";
import { join, resolve } from "node:path";
import { afterAll } from "vitest";
import { initStore } from "../../src/store/store.js";
import { command, run, scratch } from "../e2e/mounted.js";
import { type Layers, writeLayout } from "../e2e/oci-writer.js";
import { layerTar } from "../e2e/tar-writer.js";

const driver = join(import.meta.dirname, "driver.mjs");
const dist = resolve(import.meta.dirname, "../../dist");

export interface Done {
  readonly ok: boolean;
  readonly kind?: string;
  readonly code?: string;
  readonly message?: string;
  readonly result?: {
    readonly rootfs?: string;
    readonly cleaned?: boolean;
    readonly mounts?: unknown;
    readonly images?: readonly string[];
  };
  readonly warnings?: readonly string[];
  /** Layers converted by this process. */
  readonly unpacked?: number;
  /** It was killed. */
  readonly killed: boolean;
}

/** Does an operation in a process of its own. */
export async function act(
  store: string,
  args: readonly string[],
  env: Readonly<Record<string, string>> = {},
): Promise<Done> {
  const { signal, stdout, stderr } = await run("node", [driver, dist, store, ...args], { env });
  if (signal !== null) return { ok: false, killed: true };
  if (stdout === "") throw new Error(`${args.join(" ")}: ${stderr}`);
  return { ...(JSON.parse(stdout) as Omit<Done, "killed">), killed: false };
}

const stores: string[] = [];

// What a failed test has left mounted.
afterAll(async () => {
  for (const store of stores) {
    for (const id of readdirSync(join(store, "images"))) {
      await run(command, ["umount", "-z", join(store, "images", id, "rootfs")]);
    }
  }
});

export async function newStore(): Promise<string> {
  const path = scratch("store");
  stores.push(path);
  await initStore(path, { uid: [], gid: [] });
  return path;
}

/** An OCI layout of two layers; another `seed`, another upper layer. */
export function newLayout(seed = "", bytes = 200_000): string {
  const layout = scratch("layout");
  mkdirSync(layout);
  const layers: Layers = [
    layerTar([{ name: "base", data: Buffer.alloc(bytes, "base") }]),
    layerTar([{ name: `top${seed}`, data: Buffer.from(`top ${seed}\n`) }]),
  ];
  writeLayout(layout, layers);
  return `oci:${layout}`;
}
