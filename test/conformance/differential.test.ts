// Random operations on a mount and on a plain copy of its tree (differ.py says how). The seeds of every run are fixed;
// the long run (npm run test:soak) goes on from a seed of the day for IMGFS_SOAK_MINUTES and prints it.
import { spawnSync } from "node:child_process";
import { chmodSync, mkdirSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { beforeAll, describe, expect, it } from "vitest";
import { build, cannotMount, command, hasCommand, run, scratch, titleOf } from "../e2e/mounted.js";
import { type Layers, writeLayout } from "../e2e/oci-writer.js";
import { conformanceLayers } from "./image.js";

const reason = cannotMount ?? (hasCommand("python3") ? undefined : "python3 is missing");
const differ = join(import.meta.dirname, "differ.py");
const noNamespaces = spawnSync("unshare", ["-Urm", "true"]).status !== 0;
const soak = process.env["IMGFS_SOAK"] === "1";

describe.skipIf(reason !== undefined)(titleOf("a mount beside a plain copy of its tree", reason), () => {
  let image: string;
  let ownerless: string;

  async function buildLayers(layers: Layers): Promise<string> {
    const layout = scratch("layout");
    mkdirSync(layout);
    writeLayout(layout, layers);
    return build(`oci:${layout}`);
  }

  beforeAll(async () => {
    image = await buildLayers(conformanceLayers());
    ownerless = await buildLayers(conformanceLayers(false));
  });

  /** Fails with the seed and the shortest list of operations found. `prefix` runs it in a user namespace. */
  async function agree(
    seed: number,
    operations: number,
    {
      prefix = [],
      options = [],
      cli = command,
    }: Partial<Record<"prefix" | "options", string[]>> & { cli?: string } = {},
  ): Promise<void> {
    const folder = scratch("run");
    mkdirSync(folder);
    const shown = prefix.length > 0 ? ownerless : image;
    const args = [
      differ,
      "run",
      cli,
      shown,
      folder,
      String(seed),
      String(operations),
      "--devices",
      ...options,
    ];
    const [program = "", ...rest] = [...prefix, "python3", ...args];
    const { code, stdout, stderr } = await run(program, rest, { env: { IMGFS_SHRINK: "40" } });
    expect(code, `${stdout}${stderr}`).toBe(0);
  }

  it.each([1, 2, 3, 4, 5, 6, 7, 8])("agrees with it, seed %i", async (seed) => agree(seed, 1000));

  // Every owner of the image moves, none is lost; what is new and what is copied must fit together.
  it.each([21, 22])("agrees with it under an id map, seed %i", async (seed) => {
    const ranges = "0:100000:65536:65536:200000:4200000000:4294967294:7:1";
    await agree(seed, 700, { options: ["--uid-map", ranges, "--gid-map", ranges] });
  });

  // As root of a user namespace: whiteouts, opaque marks and copies are made without privilege.
  it.skipIf(noNamespaces).each([11, 12])("agrees with it in a user namespace, seed %i", async (seed) =>
    agree(seed, 700, { prefix: ["unshare", "-Urm"] }),
  );

  // A root that may mount and nothing else, as in a container: every owner, mode and kind is kept beside its object. Seeds
  // that do not give away symlinks and special files that have several names (EPERM) or were made by programs (st_ino).
  it.each([5002, 5004])("agrees with it where the daemon may set nothing, seed %i", async (seed) => {
    const capless = scratch("capless");
    const dropped = "chown dac_override dac_read_search fowner fsetid mknod setfcap setuid setgid".split(" ");
    const drop = dropped.map((name) => `cap_${name}`).join();
    writeFileSync(capless, `#!/bin/sh\nexec capsh --drop=${drop} -- -c 'exec "$0" "$@"' '${command}' "$@"\n`);
    chmodSync(capless, 0o755);
    await agree(seed, 600, { cli: capless });
  });

  it.runIf(soak)(
    "agrees with it for as long as the soak takes",
    async () => {
      const minutes = Number(process.env["IMGFS_SOAK_MINUTES"] ?? 10);
      const end = Date.now() + minutes * 60_000;
      for (let seed = Math.floor(Date.now() / 1000); Date.now() < end; seed++) await agree(seed, 2000);
    },
    24 * 3600_000,
  );
});
