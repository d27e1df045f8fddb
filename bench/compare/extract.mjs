// Unpacking side by side: `imgfs extract` of a built image (with codec none and zstd, and of a flattened file) beside
// `umoci unpack` of its layers, and `tar -x` of the tar that `imgfs extract --tar` makes; interleaved A B A B.
// Prints medians of wall and CPU time (user + sys, of all that the command starts), and the ratio to imgfs.
//
//   node bench/compare/extract.mjs oci:DIR:TAG [--rounds N]
//
// umoci inflates the layers each time, imgfs did so when the image was built: the time of that build is printed, too.
// Needs root; a program that is not installed is left out and said so.
import { execFileSync, spawnSync } from "node:child_process";
import { mkdirSync, mkdtempSync, openSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { fileURLToPath } from "node:url";
import { parseArgs } from "node:util";
import { median } from "../shared.mjs";

const command = fileURLToPath(new URL("../../bin/imgfs", import.meta.url));
const { values, positionals } = parseArgs({
  allowPositionals: true,
  options: { rounds: { type: "string", default: "5" } },
});
const source = positionals[0];
if (source === undefined || !source.startsWith("oci:")) {
  console.error("usage: node bench/compare/extract.mjs oci:DIR:TAG [--rounds N]");
  process.exit(2);
}

const work = mkdtempSync(join(process.env.TMPDIR ?? tmpdir(), "imgfs-extract-"));
const dest = join(work, "dest");
const image = join(work, "image");
const packed = join(work, "packed");
const flat = join(work, "flat.imgfs");
const tarFile = join(work, "image.tar");
const has = (command) => spawnSync("sh", ["-c", `command -v ${command}`]).status === 0;

/** Runs a command and returns its wall and CPU time, ms. */
function timed(command, ...args) {
  const childBefore = childTimes();
  const start = process.hrtime.bigint();
  execFileSync(command, args, { stdio: ["ignore", "ignore", "inherit"] });
  const wall = Number(process.hrtime.bigint() - start) / 1e6;
  return { wall, cpu: childTimes() - childBefore };
}

/** CPU time of all children that have ended, ms: fields 16 and 17 of /proc/self/stat, in ticks of 10 ms. */
function childTimes() {
  const fields = execFileSync("cat", [`/proc/${process.pid}/stat`])
    .toString()
    .split(") ")[1]
    .split(" ");
  return (Number(fields[13]) + Number(fields[14])) * 10;
}

const imgfs = (...args) => timed(command, ...args);
const contenders = {
  "imgfs extract": { run: () => imgfs("extract", image, dest) },
  "umoci unpack": { needs: "umoci", run: () => timed("umoci", "unpack", "--image", source.slice(4), dest) },
  "imgfs extract, zstd": { run: () => imgfs("extract", packed, dest) },
  "imgfs extract, flattened": { run: () => imgfs("extract", flat, dest) },
  "tar -x": {
    needs: "tar",
    run: () => {
      mkdirSync(dest);
      return timed("tar", "--xattrs", "--xattrs-include=*", "--numeric-owner", "-xpf", tarFile, "-C", dest);
    },
  },
};

try {
  const built = imgfs("build", source, image, "--progress", "none");
  imgfs("build", source, packed, "--codec", "zstd", "--progress", "none");
  imgfs("flatten", image, flat);
  execFileSync(command, ["extract", "--tar", image], {
    stdio: ["ignore", openSync(tarFile, "w"), "inherit"],
  });
  const taking = Object.entries(contenders).filter(([name, { needs }]) => {
    const there = needs === undefined || has(needs);
    if (!there) console.log(`${name}: not installed, left out`);
    return there;
  });
  const results = Object.fromEntries(taking.map(([name]) => [name, []]));
  for (let round = 0; round < Number(values.rounds); round++) {
    for (const [name, { run }] of taking) {
      spawnSync("sync");
      results[name].push(run());
      rmSync(dest, { recursive: true, force: true });
    }
  }
  const wall = (name) => median(results[name].map((result) => result.wall));
  const cpu = (name) => median(results[name].map((result) => result.cpu));
  const [first] = Object.keys(results);
  console.log(`${"".padEnd(26)} wall ms (ratio)   CPU ms (ratio)`);
  for (const name of Object.keys(results)) {
    const ratio = (of) => (of(name) / of(first)).toFixed(2);
    console.log(
      `${name.padEnd(26)} ${wall(name).toFixed(0).padStart(6)} (${ratio(wall)})    ${String(cpu(name)).padStart(6)} (${ratio(cpu)})`,
    );
  }
  console.log(
    `${"imgfs build, once".padEnd(26)} ${built.wall.toFixed(0).padStart(6)}           ${String(built.cpu).padStart(6)}`,
  );
} finally {
  rmSync(work, { recursive: true, force: true });
}
