// `imgfs build` and `imgfs pull` from a registry on loopback beside the same image in a layout, in turn, A B C A B C:
//   node bench/compare/registry.mjs oci:DIR:TAG [--rounds N] [--codec CODEC] [--jobs N]
// Needs docker-registry and skopeo. The measure of a build is the build from the layout, that of a pull into an empty store
// the pull from the layout; the other way to an image in a registry is `skopeo copy` into a layout and a build from that.
// Prints medians, processor time of the client and of the registry, and the median of each round's ratio to its measure.
import { spawnSync } from "node:child_process";
import { mkdtempSync, readFileSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { fileURLToPath } from "node:url";
import { parseArgs } from "node:util";
import { median, run, serveRegistry } from "../shared.mjs";

const imgfs = fileURLToPath(new URL("../../bin/imgfs", import.meta.url));
const { values, positionals } = parseArgs({
  allowPositionals: true,
  options: { rounds: { type: "string", default: "5" }, codec: { type: "string" }, jobs: { type: "string" } },
});
const source = positionals[0];
const rounds = Number(values.rounds);
if (!source?.startsWith("oci:") || !(rounds > 0)) {
  console.error("usage: node bench/compare/registry.mjs oci:DIR:TAG [--rounds N] [--codec CODEC] [--jobs N]");
  process.exit(2);
}

const work = mkdtempSync(join(process.env.TMPDIR ?? tmpdir(), "imgfs-registry-bench-"));
const target = join(work, "target");
const copy = join(work, "copy");
const store = join(work, "images");
const quoted = (word) => `'${word.replaceAll("'", "'\\''")}'`;

/** Seconds of processor time that the registry has used. */
function registryTime() {
  const [user, system] = readFileSync(`/proc/${registry.pid}/stat`, "utf8")
    .split(") ")[1]
    .split(" ")
    .slice(11);
  return (Number(user) + Number(system)) / 100;
}

/** Seconds of wall and processor time of a shell command and its children. */
function measure(command) {
  for (const path of [target, copy, store]) rmSync(path, { recursive: true, force: true });
  run(imgfs, ["init-store", "--store", store]);
  const before = registryTime();
  const start = process.hrtime.bigint();
  const done = spawnSync(
    "sh",
    ["-c", `{ ${command}; } >/dev/null 2>"$0" || { cat "$0" >&2; exit 1; }; times`, join(work, "log")],
    {
      encoding: "utf8",
    },
  );
  const wall = Number(process.hrtime.bigint() - start) / 1e9;
  if (done.status !== 0) throw new Error(`${command}: exit ${done.status}: ${done.stderr}`);
  const times = [...done.stdout.matchAll(/(\d+)m([\d.]+)s/g)].map(
    ([, minutes, seconds]) => minutes * 60 + Number(seconds),
  );
  return { wall, cpu: times.reduce((sum, time) => sum + time, 0), registry: registryTime() - before };
}

let registry;
try {
  const served = await serveRegistry(work, source);
  registry = served.registry;
  const { image } = served;
  const options = `--progress none${values.codec ? ` --codec ${values.codec}` : ""}`;
  const jobs = values.jobs ? ` --jobs ${values.jobs}` : "";
  const build = (from, more = "") =>
    `${quoted(imgfs)} build ${quoted(from)} ${quoted(target)} ${options}${jobs}${more}`;
  const pull = (from, more = "") =>
    `${quoted(imgfs)} pull ${quoted(from)} --store ${quoted(store)} ${options}${more}`;
  const commands = {
    "build oci:": build(source),
    "build docker://": build(image, " --tls-verify=false"),
    "skopeo copy, build oci:": `skopeo copy -q --src-tls-verify=false ${quoted(image)} ${quoted(`oci:${copy}:x`)}; ${build(`oci:${copy}:x`)}`,
    "pull oci:": pull(source),
    "pull docker://": pull(image, " --tls-verify=false"),
  };
  const measureOf = (name) => taken[name.startsWith("pull") ? "pull oci:" : "build oci:"];
  const taken = Object.fromEntries(Object.keys(commands).map((name) => [name, []]));
  // The first round finds cold caches and memory that nobody has touched yet: it does not count.
  for (let round = -1; round < rounds; round++) {
    for (const [name, command] of Object.entries(commands)) {
      const time = measure(command);
      if (round >= 0) taken[name].push(time);
    }
  }
  console.log(`${"".padEnd(26)}   wall     cpu  server   ratio`);
  for (const [name, times] of Object.entries(taken)) {
    const seconds = (pick) => `${median(times.map(pick)).toFixed(2)} s`.padStart(7);
    const ratio = median(times.map(({ wall }, i) => wall / measureOf(name)[i].wall)).toFixed(2);
    console.log(
      `${name.padEnd(26)} ${seconds(({ wall }) => wall)} ${seconds(({ cpu }) => cpu)} ${seconds((time) => time.registry)}   ${ratio.padStart(5)}`,
    );
  }
} finally {
  registry?.kill("SIGKILL");
  rmSync(work, { recursive: true, force: true });
}
