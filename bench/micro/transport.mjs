// Rates of the FUSE transport over a synthetic read-only tree: node bench/micro/transport.mjs [DIST] [ROUNDS]
// DIRECTORIES and FILES (in each) shape the tree. Prints the median and range of each. Pin both sides to one core for steadier figures: taskset -c 1 node ...
// The last lines compare the transports: transports-compared.mjs.
// `with a suspended request` repeats the first row while the loop polls its eventfd beside the device.
import { execFileSync, spawn } from "node:child_process";
import {
  closeSync,
  fstatSync,
  mkdirSync,
  mkdtempSync,
  openSync,
  readSync,
  rmSync,
  statSync,
  writeFileSync,
} from "node:fs";
import { tmpdir } from "node:os";
import { join, resolve } from "node:path";
import { pathToFileURL } from "node:url";
import { compareTransports } from "./transports-compared.mjs";

const here = import.meta.dirname;
const dist = resolve(process.argv[2] ?? join(here, "../../dist"));
const rounds = Number(process.argv[3] ?? 5);
const { mountDetached, unmount } = await import(pathToFileURL(join(dist, "daemon/mount.js")).href);
const folder = mkdtempSync(join(tmpdir(), "imgfs-bench-"));
const MIB = 1 << 20;
const directories = Number(process.env["DIRECTORIES"] ?? 50);
const files = Number(process.env["FILES"] ?? 200);
const big = 64 * MIB;
writeFileSync(join(folder, "backing"), Buffer.alloc(big, 7));

const mounts = [];
let holds = 0;
async function mount(name, settings, readdirplus = "auto") {
  const mountpoint = join(folder, name);
  mkdirSync(mountpoint);
  const { pid } = await mountDetached({
    sources: ["bench"],
    mountpoint,
    devices: false,
    statsOnExit: false,
    logLevel: "warn",
    logFormat: "text",
    readdirplus,
    fileSystem: {
      url: pathToFileURL(join(here, "synthetic-filesystem.mjs")).href,
      settings: {
        dist,
        backing: join(folder, "backing"),
        directories,
        files,
        size: 4096,
        timeout: 1e5,
        ...settings,
      },
    },
  });
  mounts.push(mountpoint);
  return { path: mountpoint, pid };
}

function rate(count, run) {
  const start = process.hrtime.bigint();
  run();
  return count / (Number(process.hrtime.bigint() - start) / 1e9);
}

function report(name, unit, rates) {
  const sorted = [...rates].sort((a, b) => a - b);
  const show = (value) => (value >= 10_000 ? `${(value / 1000).toFixed(1)}k` : value.toFixed(0));
  const median = sorted[Math.floor(sorted.length / 2)];
  console.log(
    `${name.padEnd(46)} ${show(median).padStart(8)} ${unit}  [${show(sorted[0])} to ${show(sorted.at(-1))}]`,
  );
}

const dropCaches = () => writeFileSync("/proc/sys/vm/drop_caches", "2");
const times = (run) => Array.from({ length: rounds }, run);

try {
  const uncached = await mount("uncached", { timeout: 0 });
  const fd = openSync(join(uncached.path, "entry-1/entry-1"), "r");
  const fstats = () =>
    rate(20_000, () => {
      for (let i = 0; i < 20_000; i++) fstatSync(fd);
    });
  fstats();
  report("fstat, one GETATTR each", "/s", times(fstats));
  report(
    "stat by path, nothing cached",
    "/s",
    times(() =>
      rate(5_000, () => {
        for (let i = 0; i < 5_000; i++)
          statSync(join(uncached.path, `entry-${i % directories}/entry-${i % files}`));
      }),
    ),
  );

  // A request that stays suspended: its job syncs a file of a mount whose process has been stopped.
  const slow = await mount("slow", {});
  const held = await mount("held", { timeout: 0, hold: join(slow.path, "entry-0/entry-0") });
  const heldFd = openSync(join(held.path, "entry-1/entry-1"), "r");
  const heldStats = () =>
    rate(20_000, () => {
      for (let i = 0; i < 20_000; i++) fstatSync(heldFd);
    });
  heldStats();
  const free = [];
  const polling = [];
  for (let i = 0; i < rounds; i++) {
    free.push(heldStats());
    const holder = await hold(slow, held);
    polling.push(heldStats());
    await holder.release();
  }
  report("fstat on another mount, nothing suspended", "/s", free);
  report("fstat with a suspended request", "/s", polling);
  closeSync(heldFd);

  for (const mode of ["never", "auto", "always"]) {
    const tree = await mount(`find-${mode}`, {}, mode);
    const find = () => {
      dropCaches();
      return rate(directories * files, () =>
        execFileSync("find", [tree.path, "-size", "+1000"], { stdio: "ignore" }),
      );
    };
    find();
    report(`find -size, cold, readdirplus ${mode}`, "entries/s", times(find));
  }

  const tree = await mount("read", {});
  const buffer = Buffer.alloc(MIB);
  report(
    "open, read 4 KiB, close, cold",
    "/s",
    times(() => {
      dropCaches();
      writeFileSync("/proc/sys/vm/drop_caches", "1");
      return rate(2_000, () => {
        for (let i = 0; i < 2_000; i++) {
          const file = openSync(
            join(tree.path, `entry-${i % directories}/entry-${Math.floor(i / directories)}`),
            "r",
          );
          readSync(file, buffer, 0, 4096, 0);
          closeSync(file);
        }
      });
    }),
  );
  const large = await mount("large", { size: big });
  report(
    "sequential read, 64 MiB",
    "MiB/s",
    times(() => {
      const file = openSync(join(large.path, "entry-0/entry-0"), "r");
      const result = rate(64, () => {
        for (let i = 0; i < 64; i++) readSync(file, buffer, 0, MIB, i * MIB);
      });
      closeSync(file);
      return result;
    }),
  );
  closeSync(fd);
  await compareTransports({ dist, rounds, folder, directories, files });
} finally {
  for (const path of mounts.reverse())
    await unmount(path, { lazy: false }).catch((error) => console.error(error.message));
  rmSync(folder, { recursive: true, force: true });
}

async function hold(slow, held) {
  process.kill(slow.pid, "SIGSTOP");
  const child = spawn("stat", [join(held.path, `hold-${holds++}`)], { stdio: "ignore" });
  await new Promise((done) => setTimeout(done, 200));
  return {
    async release() {
      process.kill(slow.pid, "SIGCONT");
      await new Promise((done) => child.on("close", done));
    },
  };
}
