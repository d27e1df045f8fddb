// The requests that cost least on two builds in turn: node bench/micro/two-builds.mjs DIST-A DIST-B [ROUNDS]
// Prints the medians of A and of B, and the median of the ratios B/A of neighbouring rounds: what a change of the hot path
// costs. Pinned to one core the figures are steadier: taskset -c 1 node ...
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

const here = import.meta.dirname;
const dists = process.argv.slice(2, 4).map((dist) => resolve(dist));
const rounds = Number(process.argv[4] ?? 21);
const folder = mkdtempSync(join(tmpdir(), "imgfs-bench-"));
writeFileSync(join(folder, "backing"), Buffer.alloc(1 << 20, 7));
const directories = 50;
const files = 200;

const rooms = [];
for (const dist of dists) {
  const { mountDetached, unmount } = await import(pathToFileURL(join(dist, "daemon/mount.js")).href);
  const mountpoint = join(folder, `mnt-${rooms.length}`);
  mkdirSync(mountpoint);
  await mountDetached({
    sources: ["bench"],
    mountpoint,
    devices: false,
    statsOnExit: false,
    logLevel: "error",
    logFormat: "text",
    readdirplus: "never",
    fileSystem: {
      url: pathToFileURL(join(here, "synthetic-filesystem.mjs")).href,
      settings: { dist, backing: join(folder, "backing"), directories, files, size: 4096, timeout: 0 },
    },
  });
  rooms.push({ path: mountpoint, unmount: () => unmount(mountpoint, { lazy: false }) });
}

const buffer = Buffer.alloc(4096);
const works = {
  "fstat (GETATTR)": {
    count: 20_000,
    prepare: (path) => openSync(join(path, "entry-1/entry-1"), "r"),
    run: (_, fd) => fstatSync(fd),
    end: closeSync,
  },
  "stat by path (2 LOOKUP, GETATTR)": {
    count: 6_000,
    run: (path, _, i) => statSync(join(path, `entry-${i % directories}/entry-${i % files}`)),
  },
  "open, read 4 KiB, close": {
    count: 3_000,
    run: (path, _, i) => {
      const fd = openSync(join(path, `entry-${i % directories}/entry-${i % files}`), "r");
      readSync(fd, buffer, 0, 4096, 0);
      closeSync(fd);
    },
  },
};

const median = (values) => [...values].sort((a, b) => a - b)[Math.floor(values.length / 2)];

try {
  for (const [name, { count, prepare, run, end }] of Object.entries(works)) {
    const measure = ({ path }) => {
      const held = prepare?.(path);
      const start = process.hrtime.bigint();
      for (let i = 0; i < count; i++) run(path, held, i);
      const rate = count / (Number(process.hrtime.bigint() - start) / 1e9);
      end?.(held);
      return rate;
    };
    const [a, b] = rooms;
    for (let i = 0; i < 3; i++) for (const room of rooms) measure(room);
    const rates = [[], []];
    const ratios = [];
    for (let i = 0; i < rounds; i++) {
      // Each goes first as often as the other.
      const [first, second] = i % 2 === 0 ? [a, b] : [b, a];
      const one = measure(first);
      const two = measure(second);
      const [ofA, ofB] = i % 2 === 0 ? [one, two] : [two, one];
      rates[0].push(ofA);
      rates[1].push(ofB);
      ratios.push(ofB / ofA);
    }
    const shown = rates.map((each) => `${(median(each) / 1000).toFixed(1)}k/s`);
    console.log(`${name.padEnd(36)} A ${shown[0]}  B ${shown[1]}  B/A ${median(ratios).toFixed(3)}`);
  }
} finally {
  for (const { unmount } of rooms.reverse()) await unmount().catch((error) => console.error(error.message));
  rmSync(folder, { recursive: true, force: true });
}
