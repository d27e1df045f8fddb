// `imgfs build` beside what else can be done with the layers of an image, in turn, A B C A B C:
//   node bench/compare/build.mjs oci:DIR:TAG [--plain oci:DIR:TAG] [--zstd oci:DIR:TAG] [--rounds N] [--codec CODEC]
// The measure is two parallel `gzip -dc` of the layers to /dev/null: nothing is read for less. --plain and --zstd name
// the same image with layers in that form. Peers: `tar x` of the layers, one after another, and `umoci unpack`, where
// they are installed. Prints medians, processor time of all threads, and the median of each round's ratio to gzip.
import { spawnSync } from "node:child_process";
import { mkdtempSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { fileURLToPath } from "node:url";
import { parseArgs } from "node:util";
import { openSource } from "../../dist/oci/open.js";
import { median } from "../shared.mjs";

const imgfs = fileURLToPath(new URL("../../bin/imgfs", import.meta.url));
const { values, positionals } = parseArgs({
  allowPositionals: true,
  options: {
    rounds: { type: "string", default: "5" },
    plain: { type: "string" },
    zstd: { type: "string" },
    codec: { type: "string" },
  },
});
const source = positionals[0];
const rounds = Number(values.rounds);
if (!source?.startsWith("oci:") || !(rounds > 0)) {
  console.error(
    "usage: node bench/compare/build.mjs oci:DIR:TAG [--plain oci:DIR:TAG] [--zstd oci:DIR:TAG] [--rounds N] [--codec CODEC]",
  );
  process.exit(2);
}

const work = mkdtempSync(join(process.env.TMPDIR ?? tmpdir(), "imgfs-build-"));
const target = join(work, "target");
const has = (command) => spawnSync("sh", ["-c", `command -v ${command}`]).status === 0;
const quoted = (word) => `'${word.replaceAll("'", "'\\''")}'`;

/** Layer files, and those from the largest to the smallest. */
async function layersOf(name) {
  const { layers } = await openSource(name);
  const inOrder = layers.map(({ bytes }) => bytes);
  return {
    paths: inOrder.map(({ path }) => quoted(path)),
    largestFirst: inOrder.toSorted((a, b) => b.size - a.size).map(({ path }) => quoted(path)),
    size: inOrder.reduce((sum, { size }) => sum + size, 0),
  };
}

const build = (from) =>
  `${quoted(imgfs)} build ${values.codec ? `--codec ${values.codec} ` : ""}${quoted(from)} ${quoted(target)} --progress none`;

/** Seconds of wall and processor time of a shell command and its children. */
function measure(command) {
  rmSync(target, { recursive: true, force: true });
  const start = process.hrtime.bigint();
  const run = spawnSync(
    "sh",
    ["-c", `{ ${command}; } >/dev/null 2>"$0" || { cat "$0" >&2; exit 1; }; times`, join(work, "log")],
    {
      encoding: "utf8",
    },
  );
  const wall = Number(process.hrtime.bigint() - start) / 1e9;
  if (run.status !== 0) throw new Error(`${command}: exit ${run.status}: ${run.stderr}`);
  const times = [...run.stdout.matchAll(/(\d+)m([\d.]+)s/g)].map(
    ([, minutes, seconds]) => minutes * 60 + Number(seconds),
  );
  return { wall, user: times[0] + times[2], system: times[1] + times[3] };
}

try {
  const layers = await layersOf(source);
  const commands = {
    "gzip -dc, two at a time": `printf '%s\\0' ${layers.largestFirst.join(" ")} | xargs -0 -P 2 -n 1 gzip -dc`,
    "imgfs build": build(source),
  };
  let plainSize;
  if (values.plain) {
    plainSize = (await layersOf(values.plain)).size;
    commands["imgfs build, plain layers"] = build(values.plain);
  }
  if (values.zstd) commands["imgfs build, zstd layers"] = build(values.zstd);
  // Whiteouts come out as files and devices may be refused: what is measured is the reading and writing.
  const untar = (path) => `tar -x -f ${path} -C ${quoted(target)} || true`;
  commands["tar x"] = `mkdir ${quoted(target)}; ${layers.paths.map(untar).join("; ")}`;
  if (has("umoci")) {
    commands["umoci unpack"] =
      `umoci unpack --image ${quoted(source.slice("oci:".length))} ${quoted(target)}`;
  } else console.log("umoci: not installed, left out");

  const taken = Object.fromEntries(Object.keys(commands).map((name) => [name, []]));
  // The first round finds cold caches and memory that nobody has touched yet: it does not count.
  for (let round = -1; round < rounds; round++) {
    for (const [name, command] of Object.entries(commands)) {
      const time = measure(command);
      if (round >= 0) taken[name].push(time);
    }
  }
  const [reference] = Object.values(taken);
  console.log(`${"".padEnd(28)}   wall    user     sys   wall:gzip  cpu:gzip`);
  for (const [name, times] of Object.entries(taken)) {
    const of = (pick) => median(times.map(pick));
    const cpu = ({ user, system }) => user + system;
    const ratio = (pick) => median(times.map((time, i) => pick(time) / pick(reference[i]))).toFixed(2);
    const seconds = (pick) => `${of(pick).toFixed(2)} s`.padStart(7);
    const speed =
      name === "imgfs build, plain layers"
        ? `   ${(plainSize / 1e6 / of(({ wall }) => wall)).toFixed(0)} MB/s`
        : "";
    console.log(
      `${name.padEnd(28)} ${seconds(({ wall }) => wall)} ${seconds(({ user }) => user)} ${seconds(({ system }) => system)}` +
        `   ${ratio(({ wall }) => wall).padStart(7)}   ${ratio(cpu).padStart(7)}${speed}`,
    );
  }
} finally {
  rmSync(work, { recursive: true, force: true });
}
