// What the daemon of a mount holds in memory that is its own (RssAnon), after every name was stated and every byte read:
//   node bench/compare/memory.mjs IMAGE...
// IMAGE is what imgfs build made.
import { spawnSync } from "node:child_process";
import { mkdtempSync, readFileSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { fileURLToPath } from "node:url";

const images = process.argv.slice(2);
if (images.length === 0) {
  console.error("usage: node bench/compare/memory.mjs IMAGE...");
  process.exit(2);
}

const imgfs = fileURLToPath(new URL("../../bin/imgfs", import.meta.url));
const folder = mkdtempSync(join(tmpdir(), "imgfs-memory-"));
const mountpoint = mkdtempSync(join(folder, "mnt"));
const pidFile = join(folder, "pid");

function run(command, ...args) {
  const { status, stderr } = spawnSync(command, args, {
    encoding: "utf8",
    stdio: ["ignore", "ignore", "pipe"],
  });
  if (status !== 0) throw new Error(`${command} ${args.join(" ")}: exit ${status}: ${stderr}`);
}

/** RssAnon of /proc/PID/status in kilobytes (of 1024). */
function anonymous(pid) {
  return Number(/^RssAnon:\s+(\d+)/m.exec(readFileSync(`/proc/${pid}/status`, "utf8"))?.[1]);
}

try {
  for (const image of images) {
    for (const options of [[], ["--upper", join(folder, "upper")]]) {
      run(imgfs, "mount", image, mountpoint, "--pid-file", pidFile, ...options);
      const pid = Number(readFileSync(pidFile, "utf8"));
      const before = anonymous(pid);
      run("find", mountpoint, "-printf", "%s\n");
      run("sh", "-c", 'tar cf - "$0" 2> /dev/null | cat > /dev/null', mountpoint);
      const after = anonymous(pid);
      run(imgfs, "umount", mountpoint);
      const how = options.length === 0 ? "read-only" : "writable ";
      console.log(
        `${how}  ${(before / 1024).toFixed(1)} MiB at first, ${(after / 1024).toFixed(1)} MiB after  ${image}`,
      );
      rmSync(join(folder, "upper"), { recursive: true, force: true });
      rmSync(join(folder, "upper.work"), { recursive: true, force: true });
    }
  }
} finally {
  rmSync(folder, { recursive: true, force: true });
}
