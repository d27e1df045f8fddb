// A second `create` of an image whose layers the store has, beside a mount of the same index, in turn, A B C C B A:
//   node bench/compare/create.mjs oci:DIR:TAG [--rounds N] [--cpu N] [--registry] [--programs DIR]...
// The measure is `imgfs mount INDEX DIR --upper .. --work ..` of the index that the store has. With --registry (wants
// docker-registry and skopeo) the image is created from a registry on loopback too, which is asked for its manifest each
// time. Each --programs is another bin/ to compare with. With --cpu all of it runs on that core. Prints medians of wall time
// and of processor time up to the command's end, with what daemons have used by then, and the median of each round's ratio.
import { mkdtempSync, readdirSync, readFileSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { fileURLToPath } from "node:url";
import { parseArgs } from "node:util";
import { median, run, serveRegistry } from "../shared.mjs";

const bin = fileURLToPath(new URL("../../bin", import.meta.url));
const { values, positionals } = parseArgs({
  allowPositionals: true,
  options: {
    rounds: { type: "string", default: "15" },
    cpu: { type: "string" },
    registry: { type: "boolean", default: false },
    programs: { type: "string", multiple: true, default: [] },
  },
});
const [source] = positionals;
const rounds = Number(values.rounds);
if (!source?.startsWith("oci:") || !(rounds > 0)) {
  console.error(
    "usage: node bench/compare/create.mjs oci:DIR:TAG [--rounds N] [--cpu N] [--registry] [--programs DIR]...",
  );
  process.exit(2);
}

const work = mkdtempSync(join(process.env.TMPDIR ?? tmpdir(), "imgfs-create-bench-"));
const store = join(work, "store");
const rootfs = (id) => join(store, "images", id, "rootfs");
const [upper, scratch, mountpoint] = ["upper", "work", "mountpoint"].map((name) => join(work, name));
const pidFile = join(work, "pid");
const onCore = values.cpu === undefined ? [] : ["taskset", "-c", values.cpu];

/** Seconds of the processor that a process has used by now, all its threads. */
function usedBy(pid) {
  return readdirSync(`/proc/${pid}/task`).reduce((sum, thread) => {
    const [nanoseconds] = readFileSync(`/proc/${pid}/task/${thread}/schedstat`, "utf8").split(" ");
    return sum + Number(nanoseconds) / 1e9;
  }, 0);
}

/** Runs a command; milliseconds of wall, and of processor time: its own, and its daemon's so far. */
function measure(args, daemonPidFile) {
  const start = process.hrtime.bigint();
  const times = run("sh", ["-c", '"$@" >/dev/null || exit; times', "sh", ...onCore, ...args]);
  const wall = Number(process.hrtime.bigint() - start) / 1e6;
  const seconds = [...times.matchAll(/(\d+)m([\d.]+)s/g)].map(([, m, s]) => m * 60 + Number(s));
  const daemon = daemonPidFile === undefined ? 0 : usedBy(readFileSync(daemonPidFile, "utf8").trim());
  return { wall, cpu: (seconds.reduce((sum, time) => sum + time, 0) + daemon) * 1e3 };
}

let made = 0;

/** A create that is deleted again. `before` are options of ours or GrootFS's. */
function create(program, image, words = []) {
  return {
    command: (id) => [program, "--store", store, "create", ...words, image, id],
    pidFile: (id) => join(store, "images", id, "pid"),
    after: (id) => {
      readdirSync(rootfs(id));
      run(program, ["--store", store, "delete", id]);
    },
  };
}

let registry;
try {
  run(join(bin, "imgfs"), ["init-store", "--store", store]);
  // grootfs is the same program by another name, which an installation gives it.
  const named = (folder, name) => {
    const link = join(work, `${name}-${made++}`, name);
    run("sh", ["-c", 'mkdir -p "$(dirname "$2")" && ln -s "$1" "$2"', "sh", join(folder, "imgfs"), link]);
    return link;
  };
  const uri = `oci://${source.slice("oci:".length)}`;
  run(join(bin, "imgfs"), ["--store", store, "pull", source]);
  const [index] = readdirSync(join(store, "content")).filter((name) => name.endsWith(".index.imgfs"));
  const mount = {
    command: () => [
      ...[join(bin, "imgfs"), "mount", join(store, "content", index), mountpoint],
      ...["--upper", upper, "--work", scratch, "--pid-file", pidFile],
    ],
    pidFile: () => pidFile,
    before: () => run("mkdir", [mountpoint]),
    after: () => {
      readdirSync(mountpoint);
      run(join(bin, "imgfs"), ["umount", mountpoint]);
      for (const path of [upper, scratch, mountpoint]) rmSync(path, { recursive: true });
    },
  };
  const tasks = { "imgfs mount": mount };
  for (const folder of [bin, ...values.programs]) {
    const label = folder === bin ? "" : ` (${folder})`;
    tasks[`imgfs create oci:${label}`] = create(join(folder, "imgfs"), source);
    tasks[`grootfs create oci:${label}`] = create(named(folder, "grootfs"), uri);
  }
  if (values.registry) {
    const { host, image, ...started } = await serveRegistry(work, source);
    registry = started.registry;
    for (const folder of [bin, ...values.programs]) {
      const label = folder === bin ? "" : ` (${folder})`;
      tasks[`imgfs create docker:${label}`] = create(join(folder, "imgfs"), image, [
        "--insecure-registry",
        host,
      ]);
    }
  }
  const names = Object.keys(tasks);
  const taken = Object.fromEntries(names.map((name) => [name, []]));
  // The first round finds cold caches: it does not count.
  for (let round = -1; round < rounds; round++) {
    const sums = Object.fromEntries(names.map((name) => [name, { wall: 0, cpu: 0 }]));
    for (const name of [...names, ...names.toReversed()]) {
      const { command, pidFile, before, after } = tasks[name];
      const id = `image-${made++}`;
      before?.();
      const { wall, cpu } = measure(command(id), pidFile(id));
      after(id);
      sums[name].wall += wall / 2;
      sums[name].cpu += cpu / 2;
    }
    if (round >= 0) for (const name of names) taken[name].push(sums[name]);
  }
  const [reference] = Object.values(taken);
  const width = Math.max(...names.map((name) => name.length));
  console.log(`${"".padEnd(width)}      wall   ratio       cpu   ratio`);
  for (const name of names) {
    const column = (pick) => {
      const time = `${median(taken[name].map(pick)).toFixed(1)} ms`.padStart(10);
      const ratio = median(taken[name].map((each, i) => pick(each) / pick(reference[i]))).toFixed(2);
      return `${time}  ${ratio.padStart(6)}`;
    };
    console.log(`${name.padEnd(width)} ${column(({ wall }) => wall)} ${column(({ cpu }) => cpu)}`);
  }
} finally {
  registry?.kill("SIGKILL");
  for (const id of listImages()) run(join(bin, "imgfs"), ["--store", store, "delete", id]);
  rmSync(work, { recursive: true, force: true });
}

/** Images that are there still, of a round that was cut short. */
function listImages() {
  try {
    return readdirSync(join(store, "images"));
  } catch {
    return [];
  }
}
