// Mounts side by side: imgfs, fuse-overlayfs, kernel overlayfs and (read-only) squashfuse over one image, the same
// work on each, interleaved A B C A B C. Prints medians and the ratio to imgfs, a larger ratio being slower.
//
//   node bench/compare/mounts.mjs SOURCE [--rounds N] [--only find-cold,...]
//
// SOURCE is what `imgfs build` takes. The layers are unpacked for the peers with umoci where the source is an OCI
// layout. Needs root; a peer that is not installed is left out and said so.
import { execFileSync, spawnSync } from "node:child_process";
import { existsSync, mkdirSync, mkdtempSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { fileURLToPath } from "node:url";
import { parseArgs } from "node:util";
import { median } from "../shared.mjs";

const cli = fileURLToPath(new URL("../../bin/imgfs", import.meta.url));
const { values, positionals } = parseArgs({
  allowPositionals: true,
  options: { rounds: { type: "string", default: "5" }, only: { type: "string" } },
});
const source = positionals[0];
if (source === undefined || !source.startsWith("oci:")) {
  console.error("usage: node bench/compare/mounts.mjs oci:DIR:TAG [--rounds N] [--only WORKLOAD,...]");
  process.exit(2);
}

const work = mkdtempSync(join(process.env.TMPDIR ?? tmpdir(), "imgfs-compare-"));
const mnt = join(work, "mnt");
const lower = join(work, "bundle", "rootfs");
const image = join(work, "image");
const squash = join(work, "image.squashfs");
const upper = join(work, "upper");
const scratch = join(work, "upper.work");
mkdirSync(mnt);

const run = (command, ...args) =>
  execFileSync(command, args, { stdio: ["ignore", "pipe", "inherit"] }).toString();
const has = (command) => spawnSync("sh", ["-c", `command -v ${command}`]).status === 0;
const imgfs = (...args) => run(cli, ...args);
const overlayOptions = `lowerdir=${lower},upperdir=${upper},workdir=${scratch}`;

const peers = {
  imgfs: {
    mount: (writable) =>
      imgfs("mount", image, mnt, "--devices", ...(writable ? ["--upper", upper, "--work", scratch] : [])),
    unmount: () => imgfs("umount", mnt),
  },
  "fuse-overlayfs": {
    needs: "fuse-overlayfs",
    mount: (writable) => run("fuse-overlayfs", "-o", writable ? overlayOptions : `lowerdir=${lower}`, mnt),
    unmount: () => run("umount", mnt),
  },
  overlayfs: {
    mount: (writable) =>
      run(
        "mount",
        "-t",
        "overlay",
        "overlay",
        "-o",
        writable ? overlayOptions : `lowerdir=${lower}:${join(work, "empty")}`,
        mnt,
      ),
    unmount: () => run("umount", mnt),
  },
  squashfuse: {
    needs: "squashfuse_ll",
    readOnly: true,
    mount: () => run("squashfuse_ll", "-o", "allow_other", squash, mnt),
    unmount: () => run("umount", mnt),
  },
};

/** Name to shell command in the mount; `warm` runs it before the timed run, `writable` mounts with an upper. */
const workloads = {
  "find-cold": { command: "find . -xdev > /dev/null" },
  "find-warm": { command: "find . -xdev > /dev/null", warm: 2 },
  "stat-cold": { command: "find . -xdev -printf '%s %T@ %n\\n' > /dev/null" },
  "tar-cold": { command: "tar cf - --one-file-system usr 2>/dev/null | cat > /dev/null" },
  "tar-warm": { command: "tar cf - --one-file-system usr 2>/dev/null | cat > /dev/null", warm: 1 },
  "missing-names": {
    command:
      "for i in 1 2 3 4 5 6 7 8 9 10; do for d in usr/bin usr/lib etc var; do test -e $d/no-$i-1; test -e $d/no-$i-2; done; done; true",
  },
  "find-writable-warm": { command: "find . -xdev > /dev/null", warm: 2, writable: true },
  "create-5000": {
    command: "mkdir new && cd new && seq 1 5000 | while read i; do echo $i > f$i; done",
    writable: true,
  },
  "write-256M": { command: "dd if=/dev/zero of=big bs=1M count=256 status=none", writable: true },
  "write-4k": { command: "dd if=/dev/zero of=small bs=4k count=20000 status=none", writable: true },
  "copy-up-2000": {
    command: "find usr -xdev -type f | head -2000 | tr '\\n' '\\0' | xargs -0 touch",
    writable: true,
    warm: 0,
  },
  "remove-tree": { command: "rm -rf usr/share", writable: true },
  "untar-tree": { command: "tar xf ../small.tar", writable: true },
};

function prepare() {
  mkdirSync(join(work, "empty"));
  imgfs("build", source, image, "--progress", "none");
  run("umoci", "unpack", "--image", source.slice("oci:".length), join(work, "bundle"));
  run("tar", "cf", join(work, "small.tar"), "-C", lower, "etc", "usr/lib/python3.11");
  if (has("mksquashfs")) run("mksquashfs", lower, squash, "-comp", "zstd", "-quiet", "-no-progress");
}

function measure(peer, workload) {
  rmSync(upper, { recursive: true, force: true });
  rmSync(scratch, { recursive: true, force: true });
  mkdirSync(upper);
  mkdirSync(scratch);
  peer.mount(workload.writable === true);
  try {
    for (let i = 0; i < (workload.warm ?? 0); i++) run("sh", "-c", `cd ${mnt} && ${workload.command}`);
    const start = process.hrtime.bigint();
    run("sh", "-c", `cd ${mnt} && ${workload.command}`);
    return Number(process.hrtime.bigint() - start) / 1e6;
  } finally {
    peer.unmount();
  }
}

try {
  prepare();
  const rounds = Number(values.rounds);
  const only = values.only?.split(",");
  const present = Object.entries(peers).filter(([name, peer]) => {
    const there =
      (peer.needs === undefined || has(peer.needs)) && (name !== "squashfuse" || existsSync(squash));
    if (!there) console.log(`${name}: not installed, left out`);
    return there;
  });
  const results = {};
  for (const [name, workload] of Object.entries(workloads)) {
    if (only !== undefined && !only.includes(name)) continue;
    const taking = present.filter(([, peer]) => !(workload.writable && peer.readOnly));
    const times = Object.fromEntries(taking.map(([peerName]) => [peerName, []]));
    for (let round = 0; round < rounds; round++) {
      for (const [peerName, peer] of taking) times[peerName].push(measure(peer, workload));
    }
    const base = median(times.imgfs);
    const cells = Object.entries(times).map(
      ([peerName, all]) => `${peerName} ${median(all).toFixed(0)} ms (${(median(all) / base).toFixed(2)})`,
    );
    console.log(`${name.padEnd(20)} ${cells.join("   ")}`);
    results[name] = times;
  }
  writeFileSync(join(tmpdir(), "imgfs-compare.json"), JSON.stringify(results, undefined, 2));
} finally {
  spawnSync("umount", ["-l", mnt], { stdio: "ignore" });
  rmSync(work, { recursive: true, force: true });
}
