// How long a stat of one file takes while something large goes on elsewhere in the same mount: imgfs, imgfs over a zstd
// image, and fuse-overlayfs over the same tree. Every stat asks the filesystem (AT_STATX_FORCE_SYNC), one each millisecond.
//   node bench/compare/responsiveness.mjs [--rounds N] [--only copy-up,...] [--size MEGABYTES]
// Prints p50, p99 and the longest in milliseconds, over all rounds, the peers in turn. `idle` says what the machine itself
// does to them. Needs root and python3; a peer that is not installed is left out and said so.
import { execFileSync, spawn, spawnSync } from "node:child_process";
import {
  closeSync,
  ftruncateSync,
  mkdirSync,
  mkdtempSync,
  openSync,
  rmSync,
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
    rounds: { type: "string", default: "3" },
    only: { type: "string" },
    size: { type: "string", default: "300" },
  },
});
const megabytes = Number(values.size);
const work = mkdtempSync(join(process.env.TMPDIR ?? tmpdir(), "imgfs-responsiveness-"));
const mnt = join(work, "mnt");
const source = join(work, "source");
const upper = join(work, "upper");
const scratch = join(work, "upper.work");

const run = (command, ...args) =>
  execFileSync(command, args, { stdio: ["ignore", "pipe", "inherit"] }).toString();
const has = (command) => spawnSync("sh", ["-c", `command -v ${command}`]).status === 0;

/** Stats the files given until it is told to stop by the end of its input; prints the times in microseconds. */
const probe = `
import ctypes, os, select, sys, time
libc = ctypes.CDLL(None, use_errno=True)
out = ctypes.create_string_buffer(256)
paths = [os.fsencode(p) for p in sys.argv[1:]]
times, i = [], 0
print("ready", flush=True)
while not select.select([sys.stdin], [], [], 0.001)[0]:
    i += 1
    t = time.monotonic_ns()
    if libc.statx(-100, paths[i % len(paths)], 0x2000, 0x7ff, out) != 0:
        sys.exit(f"statx: errno {ctypes.get_errno()}")
    times.append((time.monotonic_ns() - t) // 1000)
print(" ".join(map(str, times)))
`;

const imgfs = (image) => ({
  mount: () => run(cli, "mount", join(work, image), mnt, "--upper", upper, "--work", scratch),
  unmount: () => run(cli, "umount", mnt),
});
const peers = {
  imgfs: imgfs("image"),
  "imgfs zstd": imgfs("image-zstd"),
  "fuse-overlayfs": {
    needs: "fuse-overlayfs",
    mount: () => run("fuse-overlayfs", "-o", `lowerdir=${source},upperdir=${upper},workdir=${scratch}`, mnt),
    unmount: () => run("umount", mnt),
  },
};

/** What goes on: `before` is not watched, `command` is. */
const workloads = {
  idle: { command: "sleep 3" },
  "copy-up": { command: "printf x | dd of=large conv=notrunc status=none" },
  "copy-up of a sparse file": { command: "printf x | dd of=sparse conv=notrunc status=none" },
  fsync: {
    before: `dd if=/dev/zero of=new bs=1M count=${megabytes} status=none`,
    command: "sync new",
  },
  write: { command: `dd if=/dev/zero of=new bs=1M count=${megabytes} status=none` },
  fallocate: { command: "fallocate -l 8G new" },
  "zero range": { before: "fallocate -l 2G new", command: "fallocate -z -l 2G new" },
  truncate: {
    before: `dd if=/dev/zero of=new bs=1M count=${megabytes} status=none`,
    command: "truncate -s 0 new",
  },
  "removal of a large file": {
    before: `dd if=/dev/zero of=new bs=1M count=${megabytes} status=none`,
    command: "rm new",
  },
  copy_file_range: { command: "cp --reflink=auto large copy" },
  "rm -r": { command: "rm -r tree" },
  "readdir of 50,000": { command: "ls -f wide > /dev/null; ls -f wide > /dev/null" },
  "rmdir of 20,000 whiteouts": { before: "rm -r tree/*", command: "rmdir tree" },
};

function prepare() {
  for (const folder of [mnt, source, join(source, "probe"), join(source, "wide")]) mkdirSync(folder);
  for (let i = 0; i < 20; i++) writeFileSync(join(source, "probe", `f${i}`), `${i}`);
  for (let i = 0; i < 50_000; i++) writeFileSync(join(source, "wide", `f${i}`), "");
  for (let d = 0; d < 100; d++) {
    mkdirSync(join(source, "tree", `d${d}`), { recursive: true });
    for (let i = 0; i < 200; i++) writeFileSync(join(source, "tree", `d${d}`, `f${i}`), `${d} ${i}`);
  }
  const piece = Buffer.alloc(1 << 20);
  const large = openSync(join(source, "large"), "w");
  const sparse = openSync(join(source, "sparse"), "w");
  for (let i = 0; i < megabytes; i++) {
    for (let at = 0; at < piece.length; at += 8) piece.writeDoubleLE(Math.random(), at);
    writeSync(large, piece);
    writeSync(sparse, piece, 0, 4096, i * 4 * piece.length);
  }
  ftruncateSync(sparse, megabytes * 4 * piece.length);
  for (const fd of [large, sparse]) closeSync(fd);
  run(cli, "build", source, join(work, "image"), "--progress", "none");
  run(cli, "build", source, join(work, "image-zstd"), "--progress", "none", "--codec", "zstd");
}

const shell = (command) =>
  new Promise((done, fail) => {
    const child = spawn("sh", ["-euc", command], { cwd: mnt, stdio: ["ignore", "ignore", "inherit"] });
    child.on("close", (code) => (code === 0 ? done() : fail(new Error(`${command}: exit ${code}`))));
  });

/** The times of the stats made while the workload ran, in microseconds. */
async function watch(peer, { before, command }) {
  for (const folder of [upper, scratch]) {
    rmSync(folder, { recursive: true, force: true });
    mkdirSync(folder);
  }
  peer.mount();
  try {
    if (before !== undefined) await shell(before);
    const files = Array.from({ length: 20 }, (_, i) => join(mnt, "probe", `f${i}`));
    const child = spawn("python3", ["-c", probe, ...files], { stdio: ["pipe", "pipe", "inherit"] });
    let text = "";
    const ended = new Promise((done) => child.on("close", done));
    await new Promise((done) => {
      child.stdout.on("data", (data) => {
        text += data;
        done();
      });
    });
    await shell(command);
    child.stdin.end();
    await ended;
    return text.split("\n")[1].split(" ").map(Number);
  } finally {
    peer.unmount();
  }
}

const at = (sorted, part) => sorted[Math.min(sorted.length - 1, Math.floor(sorted.length * part))] / 1000;

try {
  prepare();
  const only = values.only?.split(",");
  const present = Object.entries(peers).filter(([name, { needs }]) => {
    if (needs === undefined || has(needs)) return true;
    console.log(`${name}: not installed, left out`);
    return false;
  });
  for (const [name, workload] of Object.entries(workloads)) {
    if (only !== undefined && !only.includes(name)) continue;
    const times = new Map(present.map(([peer]) => [peer, []]));
    for (let round = 0; round < Number(values.rounds); round++) {
      for (const [peerName, peer] of present) times.get(peerName).push(...(await watch(peer, workload)));
    }
    for (const [peer, all] of times) {
      const sorted = all.toSorted((a, b) => a - b);
      const figures = [at(sorted, 0.5), at(sorted, 0.99), at(sorted, 1)].map((ms) =>
        ms.toFixed(2).padStart(8),
      );
      console.log(
        `${name.padEnd(26)} ${peer.padEnd(15)} p50 ${figures[0]}  p99 ${figures[1]}  max ${figures[2]} ms  of ${all.length}`,
      );
    }
  }
} finally {
  spawnSync("umount", ["-l", mnt], { stdio: "ignore" });
  rmSync(work, { recursive: true, force: true });
}
