// The fuzzing process as one file that plain node runs. It lies in the repository, where packages are found.
import { mkdtempSync, rmSync } from "node:fs";
import { join, resolve } from "node:path";
import { build } from "esbuild";

export interface Bundle {
  readonly path: string;
  remove(): void;
}

export async function bundle(): Promise<Bundle> {
  const folder = mkdtempSync(resolve(import.meta.dirname, "../../.vitest-fuzz-"));
  const path = join(folder, "child.mjs");
  await build({
    entryPoints: [join(import.meta.dirname, "child.ts")],
    outfile: path,
    bundle: true,
    platform: "node",
    format: "esm",
    target: "node20",
    packages: "external",
    alias: { vitest: join(import.meta.dirname, "vitest-stub.ts") },
    sourcemap: "inline",
    logLevel: "error",
  });
  return { path, remove: () => rmSync(folder, { recursive: true, force: true }) };
}
