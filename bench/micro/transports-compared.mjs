// The same work on a writable mount by each transport, in turn (A B A B): what fuse-native costs beside the direct one.
// Prints for each the median rates, their ratio, and the ratio of the CPU time that client and daemon took together,
// which load by others disturbs least. Run by transport.mjs.
import { execFileSync } from "node:child_process";
import {
  closeSync,
  fstatSync,
  mkdirSync,
  openSync,
  readFileSync,
  readSync,
  rmSync,
  unlinkSync,
  writeFileSync,
  writeSync,
} from "node:fs";
import { join } from "node:path";
import { pathToFileURL } from "node:url";

const MIB = 1 << 20;
const LARGE = 64 * MIB;
const transports = ["direct", "fuse-native"];
const buffer = Buffer.alloc(MIB, 7);

/** Ticks of 10 ms that a process and the children it has waited for have run. */
function cpuTicks(pid) {
  const stat = readFileSync(`/proc/${pid}/stat`, "latin1");
  const fields = stat.slice(stat.lastIndexOf(")") + 2).split(" ");
  return [11, 12, 13, 14].reduce((sum, field) => sum + Number(fields[field]), 0);
}

function dropCaches() {
  writeFileSync("/proc/sys/vm/drop_caches", "3");
}

/** Name, unit, how many, and the work; `prepare` is not measured. */
const works = [
  {
    name: "fstat, one GETATTR each",
    unit: "/s",
    on: "synthetic",
    count: 20_000,
    prepare: ({ path }) => openSync(join(path, "entry-1/entry-1"), "r"),
    run: (_, fd) => {
      for (let i = 0; i < 20_000; i++) fstatSync(fd);
      closeSync(fd);
    },
  },
  {
    name: "find -size, cold",
    unit: "entries/s",
    count: ({ directories, files }) => directories * files,
    prepare: dropCaches,
    run: ({ path }) => execFileSync("find", [join(path, "tree"), "-size", "+1000"], { stdio: "ignore" }),
  },
  {
    name: "open, read 4 KiB, close, cold",
    unit: "/s",
    count: 2_000,
    prepare: dropCaches,
    run: ({ path, directories, files }) => {
      for (let i = 0; i < 2_000; i++) {
        const file = openSync(
          join(path, `tree/${i % directories}/${Math.floor(i / directories) % files}`),
          "r",
        );
        readSync(file, buffer, 0, 4096, 0);
        closeSync(file);
      }
    },
  },
  {
    name: "sequential read",
    unit: "MiB/s",
    count: LARGE / MIB,
    prepare: ({ path }) => {
      dropCaches();
      return openSync(join(path, "large"), "r");
    },
    run: (_, fd) => {
      for (let i = 0; i < LARGE / MIB; i++) readSync(fd, buffer, 0, MIB, i * MIB);
      closeSync(fd);
    },
  },
  ...[MIB, 4096].map((size) => ({
    name: `sequential write, ${size / 1024} KiB each`,
    unit: "MiB/s",
    count: (size === MIB ? LARGE : LARGE / 8) / MIB,
    prepare: ({ path }) => openSync(join(path, "written"), "w"),
    run: ({ path }, fd) => {
      const total = size === MIB ? LARGE : LARGE / 8;
      for (let at = 0; at < total; at += size) writeSync(fd, buffer, 0, size, at);
      closeSync(fd);
      unlinkSync(join(path, "written"));
    },
  })),
  {
    name: "create, write 1 KiB, close",
    unit: "/s",
    count: 1_000,
    prepare: ({ path }) => mkdirSync(join(path, "made")),
    run: ({ path }) => {
      for (let i = 0; i < 1_000; i++) {
        const file = openSync(join(path, `made/${i}`), "w");
        writeSync(file, buffer, 0, 1024, 0);
        closeSync(file);
      }
    },
    after: ({ path }) => rmSync(join(path, "made"), { recursive: true }),
  },
];

function buildImage({ folder, dist, directories, files }) {
  const tree = join(folder, "source/tree");
  for (let d = 0; d < directories; d++) {
    mkdirSync(join(tree, String(d)), { recursive: true });
    for (let f = 0; f < files; f++) {
      writeFileSync(join(tree, `${d}/${f}`), Buffer.alloc(4096, `${d} ${f} `));
    }
  }
  writeFileSync(join(folder, "source/large"), Buffer.alloc(LARGE, "large"));
  const tar = join(folder, "image.tar");
  execFileSync("tar", ["cf", tar, "-C", join(folder, "source"), "."]);
  const image = join(folder, "image");
  execFileSync(join(dist, "../bin/imgfs"), ["build", `tar:${tar}`, image, "--progress=none"], {
    stdio: "ignore",
  });
  return image;
}

const median = (values) => [...values].sort((a, b) => a - b)[Math.floor(values.length / 2)];

export async function compareTransports({ dist, rounds, folder, directories, files }) {
  const { mountDetached, unmount } = await import(pathToFileURL(join(dist, "daemon/mount.js")).href);
  const place = { directories, files };
  const image = buildImage({ folder, dist, ...place });
  const mounts = [];
  const mount = async (transport, kind, more) => {
    const path = join(folder, `${kind}-${transport}`);
    mkdirSync(path);
    const common = { devices: false, statsOnExit: false, logLevel: "warn", logFormat: "text" };
    const { pid } = await mountDetached({
      ...common,
      sources: [image],
      mountpoint: path,
      upper: `${path}.upper`,
      transport,
      ...more,
    });
    mounts.push(path);
    return { path, pid, ...place };
  };
  try {
    const pairs = { overlay: {}, synthetic: {} };
    const synthetic = {
      url: pathToFileURL(join(import.meta.dirname, "synthetic-filesystem.mjs")).href,
      settings: { dist, backing: join(folder, "backing"), ...place, size: 4096, timeout: 0 },
    };
    for (const transport of transports) {
      pairs.overlay[transport] = await mount(transport, "overlay", {});
      pairs.synthetic[transport] = await mount(transport, "synthetic", { fileSystem: synthetic });
    }
    console.log(`\n${"fuse-native beside direct".padEnd(34)} direct fuse-native            ratio  CPU ratio`);
    for (const work of works) report(work, pairs[work.on ?? "overlay"], rounds);
  } catch (error) {
    console.log(`\nfuse-native not compared: ${error.message}`);
  } finally {
    for (const path of mounts.reverse()) {
      await unmount(path, { lazy: false }).catch((error) => console.error(error.message));
    }
  }
}

function report(work, pair, rounds) {
  const rates = { direct: [], "fuse-native": [] };
  const cpu = { direct: 0, "fuse-native": 0 };
  for (let round = -1; round < rounds; round++) {
    for (const transport of transports) {
      const target = pair[transport];
      const count = typeof work.count === "number" ? work.count : work.count(target);
      const prepared = work.prepare(target);
      const before = cpuTicks("self") + cpuTicks(target.pid);
      const start = process.hrtime.bigint();
      work.run(target, prepared);
      const seconds = Number(process.hrtime.bigint() - start) / 1e9;
      const ticks = cpuTicks("self") + cpuTicks(target.pid) - before;
      work.after?.(target);
      // The first round warms both up.
      if (round < 0) continue;
      rates[transport].push(count / seconds);
      cpu[transport] += ticks;
    }
  }
  const [direct, native] = transports.map((transport) => median(rates[transport]));
  const show = (value) => (value >= 10_000 ? `${(value / 1000).toFixed(1)}k` : value.toFixed(0));
  console.log(
    `${work.name.padEnd(32)} ${show(direct).padStart(8)} ${show(native).padStart(11)} ${work.unit.padEnd(10)} ${(native / direct).toFixed(2).padStart(6)} ${(cpu["fuse-native"] / Math.max(cpu.direct, 1)).toFixed(1).padStart(9)}`,
  );
}
