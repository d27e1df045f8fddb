// How long from `imgfs mount` to the first byte read from the mount, in turn with a start of Node that does nothing:
//   node bench/compare/start.mjs IMAGE FILE [--rounds N]
// IMAGE is what imgfs build made, FILE a path in it. Give images of different sizes to see that it does not matter.
import { spawnSync } from "node:child_process";
import { closeSync, mkdtempSync, openSync, readSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { fileURLToPath } from "node:url";
import { parseArgs } from "node:util";
import { median } from "../shared.mjs";

const { values, positionals } = parseArgs({
  allowPositionals: true,
  options: { rounds: { type: "string", default: "15" } },
});
const [image, file] = positionals;
if (image === undefined || file === undefined) {
  console.error("usage: node bench/compare/start.mjs IMAGE FILE [--rounds N]");
  process.exit(2);
}

const imgfs = fileURLToPath(new URL("../../bin/imgfs", import.meta.url));
const mountpoint = mkdtempSync(join(tmpdir(), "imgfs-start-"));

function run(command, ...args) {
  const { status, stderr } = spawnSync(command, args, { encoding: "utf8" });
  if (status !== 0) throw new Error(`${command} ${args.join(" ")}: exit ${status}: ${stderr}`);
}

function firstByte() {
  const fd = openSync(join(mountpoint, file), "r");
  readSync(fd, Buffer.alloc(1));
  closeSync(fd);
}

const work = {
  "node -e 0": () => run(process.execPath, "-e", "0"),
  "imgfs mount, to the first read": () => {
    run(imgfs, "mount", image, mountpoint);
    firstByte();
  },
};
const after = () => run(imgfs, "umount", mountpoint);
const times = Object.fromEntries([...Object.keys(work), "imgfs umount"].map((name) => [name, []]));

function timed(name, task) {
  const start = performance.now();
  task();
  times[name].push(performance.now() - start);
}

try {
  for (let round = 0; round < Number(values.rounds); round++) {
    for (const [name, task] of Object.entries(work)) timed(name, task);
    timed("imgfs umount", after);
  }
} finally {
  rmSync(mountpoint, { recursive: true });
}
const unit = median(times["node -e 0"]);
for (const [name, list] of Object.entries(times)) {
  console.log(
    `${median(list).toFixed(1).padStart(8)} ms ${(median(list) / unit).toFixed(2).padStart(6)}  ${name}`,
  );
}
