// What writing costs with a quota, against writing without: two mounts of one image, with their uppers on one filesystem,
// the same slices of work on each in turn, A B B A. A third mount is like the first: what differs between these two is
// what this machine makes of equals.
//
//   taskset -c 1 node bench/compare/quota.mjs [--rounds N] [--only sequential,...] [--set] [--strace] [--dir DIR]
//
// Prints for each workload, of all rounds, the median of quota to none: wall time of the slice, and processor time of the
// thread that serves; in brackets the quartiles. On one core, by taskset: on several the kernel puts whoever serves now
// beside the caller and now elsewhere, which makes a factor of four between equals. --set has another thread set limits all
// the while. --strace counts system calls of one slice on each mount in place of times. DIR is where the uppers are
// (default: TMPDIR). Needs root.
import { execFileSync, spawn, spawnSync } from "node:child_process";
import {
  closeSync,
  ftruncateSync,
  mkdirSync,
  mkdtempSync,
  openSync,
  readdirSync,
  readFileSync,
  rmSync,
  unlinkSync,
  writeFileSync,
  writeSync,
} from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { fileURLToPath } from "node:url";
import { parseArgs } from "node:util";

const cli = fileURLToPath(new URL("../../bin/imgfs", import.meta.url));
const { values } = parseArgs({
  options: {
    rounds: { type: "string", default: "20" },
    only: { type: "string" },
    dir: { type: "string" },
    set: { type: "boolean" },
    strace: { type: "boolean" },
  },
});
const rounds = values.strace ? 1 : Number(values.rounds);
const work = mkdtempSync(join(values.dir ?? process.env.TMPDIR ?? tmpdir(), "imgfs-quota-cost-"));
const image = join(work, "image");
const run = (command, ...args) =>
  execFileSync(command, args, { stdio: ["ignore", "pipe", "inherit"] }).toString();

const MiB = 1 << 20;
const BLOCK = 4096;
const FILES = 500;
/** Files of the image that one round copies up, and of the tree that one round removes. */
const COPIES = 100;

const bytes = Buffer.alloc(MiB);
for (let at = 0; at < bytes.length; at += 8) bytes.writeDoubleLE(Math.random(), at);

let seed = 1;
/** The same numbers on each mount: every slice begins at the seed of its round. */
function random(below) {
  seed = (Math.imul(seed, 1664525) + 1013904223) >>> 0;
  return Math.floor((seed / 2 ** 32) * below);
}

function filled(path, size) {
  const fd = openSync(path, "w");
  for (let at = 0; at < size; at += MiB) writeSync(fd, bytes, 0, Math.min(MiB, size - at));
  closeSync(fd);
}

/** `work` is timed; `before` and `after` are not. `each` says how much work a slice is. */
const workloads = {
  sequential: {
    each: "32 writes of 1 MiB",
    work(at) {
      const fd = openSync(at("new"), "w");
      for (let i = 0; i < 32; i++) writeSync(fd, bytes);
      closeSync(fd);
    },
    after: (at) => unlinkSync(at("new")),
  },
  "random-dense": {
    each: "2,000 writes of 4 KiB, 64 MiB",
    first: (at) => filled(at("dense"), 64 * MiB),
    work(at) {
      const fd = openSync(at("dense"), "r+");
      for (let i = 0; i < 2000; i++) writeSync(fd, bytes, 0, BLOCK, random(64 * 256) * BLOCK);
      closeSync(fd);
    },
  },
  "small-files": {
    each: `${FILES} files made`,
    before: (at) => mkdirSync(at("small")),
    work(at) {
      for (let i = 0; i < FILES; i++) {
        const fd = openSync(at(`small/${i}`), "wx");
        writeSync(fd, bytes, 0, 200 + random(8000));
        closeSync(fd);
      }
    },
    after: (at) => rmSync(at("small"), { recursive: true }),
  },
  "small-files-rm": {
    each: `${FILES} files removed`,
    before(at) {
      mkdirSync(at("small"));
      for (let i = 0; i < FILES; i++) writeFileSync(at(`small/${i}`), "text\n");
    },
    work(at) {
      for (let i = 0; i < FILES; i++) unlinkSync(at(`small/${i}`));
    },
    after: (at) => rmSync(at("small"), { recursive: true }),
  },
  append: {
    each: "2,000 appends of 4 KiB",
    work(at) {
      const fd = openSync(at("log"), "a");
      for (let i = 0; i < 2000; i++) writeSync(fd, bytes, 0, BLOCK);
      closeSync(fd);
    },
    after: (at) => unlinkSync(at("log")),
  },
  "random-sparse": {
    each: "2,000 writes of 4 KiB, 1 GiB of hole",
    before(at) {
      const fd = openSync(at("sparse"), "w");
      ftruncateSync(fd, 1024 * MiB);
      closeSync(fd);
    },
    work(at) {
      const fd = openSync(at("sparse"), "r+");
      for (let i = 0; i < 2000; i++) writeSync(fd, bytes, 0, BLOCK, random(1024 * 256) * BLOCK);
      closeSync(fd);
    },
    after: (at) => unlinkSync(at("sparse")),
  },
  "copy-up": {
    each: `${COPIES} files of the image`,
    work(at, round) {
      for (let i = 0; i < COPIES; i++) closeSync(openSync(at(`lower/${round}/${i}`), "r+"));
    },
  },
  "rm-rf": {
    each: `a tree of ${FILES} files, there before the mount`,
    work: (at, round) => rmSync(at(`old/${round}`), { recursive: true }),
  },
};

const only = values.only?.split(",") ?? Object.keys(workloads);
for (const name of only.filter((each) => workloads[each] === undefined)) {
  console.error(`no workload ${name}: ${Object.keys(workloads).join(", ")}`);
  process.exit(2);
}

function prepare() {
  const source = join(work, "source");
  for (let round = 0; round < rounds; round++) {
    mkdirSync(join(source, "lower", String(round)), { recursive: true });
    for (let i = 0; i < COPIES; i++) {
      writeFileSync(
        join(source, "lower", String(round), String(i)),
        bytes.subarray(0, 1000 + random(30_000)),
      );
    }
  }
  run(cli, "build", source, image, "--progress", "none");
}

/** A mount, after one before has made the tree that is there from the start. */
function mount(name, ...options) {
  const folder = join(work, name);
  const mnt = join(folder, "mnt");
  const pidFile = join(folder, "pid");
  mkdirSync(mnt, { recursive: true });
  const words = ["mount", image, mnt, "--upper", join(folder, "upper"), "--volatile", "--pid-file", pidFile];
  words.push("--writeback=off", "--passthrough=off", ...options);
  const at = (path) => join(mnt, path);
  if (only.includes("rm-rf")) {
    run(cli, ...words);
    for (let round = 0; round < rounds; round++) {
      for (let d = 0; d < 5; d++) mkdirSync(at(`old/${round}/${d}`), { recursive: true });
      for (let i = 0; i < FILES; i++) writeFileSync(at(`old/${round}/${i % 5}/${i}`), "text\n");
    }
    run(cli, "umount", mnt);
  }
  run(cli, ...words);
  return { name, mnt, at, pid: Number(readFileSync(pidFile, "utf8")) };
}

/** Nanoseconds that the threads of a mount have run, but for its main one, which serves no request. */
function served({ pid }) {
  let sum = 0n;
  for (const thread of readdirSync(`/proc/${pid}/task`)) {
    if (Number(thread) === pid) continue;
    sum += BigInt(readFileSync(`/proc/${pid}/task/${thread}/schedstat`, "latin1").split(" ")[0]);
  }
  return sum;
}

function slice(place, workload, round) {
  seed = round + 1;
  workload.before?.(place.at, round);
  const before = served(place);
  const start = process.hrtime.bigint();
  workload.work(place.at, round);
  const wall = Number(process.hrtime.bigint() - start) / 1e6;
  const cpu = Number(served(place) - before) / 1e6;
  workload.after?.(place.at, round);
  return { wall, cpu };
}

/** System calls of the serving process in one slice, by name. */
async function calls(place, workload) {
  seed = 1;
  workload.before?.(place.at, 0);
  const file = join(work, "strace");
  const strace = spawn("strace", ["-c", "-f", "-U", "calls,name", "-o", file, "-p", String(place.pid)], {
    stdio: ["ignore", "ignore", "pipe"],
  });
  await new Promise((done) => strace.stderr.once("data", done));
  await new Promise((done) => setTimeout(done, 300));
  workload.work(place.at, 0);
  strace.kill("SIGINT");
  await new Promise((done) => strace.on("close", done));
  workload.after?.(place.at, 0);
  const rows = readFileSync(file, "utf8").matchAll(/^\s*(\d+) (\w+)$/gm);
  return new Map([...rows].filter(([, , name]) => name !== "total").map(([, n, name]) => [name, Number(n)]));
}

const quantile = (sorted, part) => sorted[Math.min(sorted.length - 1, Math.floor(sorted.length * part))];

/** Median and quartiles of b to a, round by round. */
function ratio(a, b, key) {
  const all = a.map((each, i) => b[i][key] / each[key]).toSorted((x, y) => x - y);
  const [low, middle, high] = [0.25, 0.5, 0.75].map((part) => quantile(all, part).toFixed(3));
  return `${middle} [${low} ${high}]`;
}

const median = (all, key) =>
  quantile(
    all.map((each) => each[key]).toSorted((x, y) => x - y),
    0.5,
  ).toFixed(1);

/** A client of the control socket that sets other limits of a mount, a millisecond after each answer. */
const setter = `
import { openControl } from ${JSON.stringify(new URL("../../dist/daemon/control-client.js", import.meta.url))};
const control = await openControl(process.argv[1]);
for (let limit = 2 ** 40; ; limit += 4096) {
  await control.ask("set-quota", { bytes: limit });
  await new Promise((done) => setTimeout(done, 1));
}
`;

function setLimits({ mnt }) {
  const words = ["--input-type=module", "-e", setter, mnt];
  return spawn(process.execPath, words, { stdio: ["ignore", "inherit", "inherit"] });
}

const mounts = [];
let client;
try {
  prepare();
  mounts.push(mount("none"), mount("same"), mount("quota", "--quota", "1T"));
  const [none, same, quota] = mounts;
  if (values.set) client = setLimits(quota);
  for (const name of only) {
    const workload = workloads[name];
    if (values.strace) {
      for (const place of mounts) workload.first?.(place.at);
      const [a, b] = [await calls(none, workload), await calls(quota, workload)];
      const names = [...new Set([...a.keys(), ...b.keys()])].toSorted();
      console.log(`${name} (${workload.each})`);
      for (const each of names) console.log(`  ${each.padEnd(18)} ${a.get(each) ?? 0} ${b.get(each) ?? 0}`);
      continue;
    }
    const times = new Map(mounts.map((place) => [place, []]));
    for (const place of mounts) workload.first?.(place.at);
    for (let round = 0; round < rounds; round++) {
      const order = round % 2 === 0 ? mounts : mounts.toReversed();
      for (const place of order) times.get(place).push(slice(place, workload, round));
    }
    const [a, b, c] = [none, same, quota].map((place) => times.get(place));
    console.log(
      `${name.padEnd(15)} quota/none wall ${ratio(a, c, "wall")} cpu ${ratio(a, c, "cpu")}` +
        `   none/none wall ${ratio(a, b, "wall")} cpu ${ratio(a, b, "cpu")}` +
        `   ${median(a, "wall")} ms, cpu ${median(a, "cpu")} ms: ${workload.each}`,
    );
  }
} finally {
  client?.kill();
  for (const { mnt } of mounts) spawnSync("umount", ["-l", mnt], { stdio: "ignore" });
  rmSync(work, { recursive: true, force: true });
}
