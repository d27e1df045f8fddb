// `npm run demo`: the whole way once, on any Debian machine with Node and root. Makes an OCI image of
// this machine's own programs (no registry is asked), converts it, mounts it under a writable
// directory, runs programs inside, changes and deletes files, and unmounts. One line a step.
// Everything lives in one temporary folder; it and the mount are gone at the end, also after Ctrl-C.
import { spawn, spawnSync } from "node:child_process";
import { existsSync, lstatSync, mkdtempSync, readdirSync, readFileSync, realpathSync, rmSync } from "node:fs";
import { mkdir, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { fileURLToPath } from "node:url";
import { copyPrograms, packLayer, writeLayout } from "./demo-image.mjs";

const root = fileURLToPath(new URL("..", import.meta.url));
const command = join(root, "bin/imgfs");

// ---------------------------------------------------------------- output

const { NO_COLOR, FORCE_COLOR, TERM } = process.env;
const isTerminal = process.stdout.isTTY === true && TERM !== "dumb";
const coloured = !NO_COLOR && (isTerminal || (FORCE_COLOR !== undefined && FORCE_COLOR !== "0"));
const style = (code, text) => (coloured ? `\x1b[${code}m${text}\x1b[0m` : text);
const dim = (text) => style(2, text);
const bold = (text) => style(1, text);

function size(bytes) {
  if (bytes < 1000) return `${bytes} B`;
  return bytes < 1e6 ? `${(bytes / 1e3).toFixed(1)} kB` : `${(bytes / 1e6).toFixed(1)} MB`;
}

function duration(ms) {
  return ms < 1000 ? `${Math.round(ms)} ms` : `${(ms / 1000).toFixed(1)} s`;
}

/** Runs one step and prints its line: time, name, and what `work` says was done. */
async function step(name, work) {
  if (isTerminal) process.stdout.write(`${dim("     ...")}  ${bold(name)}`);
  const start = performance.now();
  const said = await work();
  const time = duration(performance.now() - start).padStart(8);
  process.stdout.write(`${isTerminal ? "\r\x1b[K" : ""}${dim(time)}  ${bold(name.padEnd(8))} ${said}\n`);
}

// ---------------------------------------------------------------- commands

let stopped;
const children = new Set();

/** Runs a command to its end and returns its stdout; a failure carries all it said. */
function run(command, ...args) {
  return new Promise((done, failed) => {
    if (stopped) return failed(new Error(`stopped by ${stopped}`));
    const child = spawn(command, args, { cwd: root, stdio: ["ignore", "pipe", "pipe"] });
    const out = [];
    const all = [];
    children.add(child);
    child.stdout.on("data", (data) => out.push(data) && all.push(data));
    child.stderr.on("data", (data) => all.push(data));
    child.on("error", failed);
    child.on("close", (code, signal) => {
      children.delete(child);
      if (code === 0) return done(Buffer.concat(out).toString());
      const text = Buffer.concat(all).toString().trim();
      failed(new Error(`${[command, ...args].join(" ")}: ${signal ?? `exit ${code}`}\n${text}`));
    });
  });
}

const imgfs = (...args) => run(command, ...args);
const inside = (script) => run("chroot", at.rootfs, "/bin/sh", "-euc", script);

// ---------------------------------------------------------------- the demo

const folder = mkdtempSync(join(tmpdir(), "imgfs-demo-"));
const at = Object.fromEntries(
  ["layout", "built", "rootfs", "upper", "one", "two", "three"].map((name) => [name, join(folder, name)]),
);
at.pid = join(folder, "pid");

/** Layer 1: a shell, a few tools and their libraries. */
async function userland() {
  copyPrograms(at.one, ["sh", "cat", "ls", "rm"]);
  await mkdir(join(at.one, "etc/conf.d"), { recursive: true });
  await writeFile(join(at.one, "etc/motd"), "hello from layer 1\n");
  await writeFile(join(at.one, "etc/issue"), "deleted below\n");
  await writeFile(join(at.one, "etc/conf.d/default"), "hidden by layer 3\n");
}

/** Layer 2: this very Node, and a program for it. */
async function node() {
  copyPrograms(at.two, [realpathSync(process.execPath)], "node");
  await mkdir(join(at.two, "app"), { recursive: true });
  await writeFile(join(at.two, "app/main.js"), "console.log('never seen: layer 3 replaces it')\n");
  await writeFile(join(at.two, "app/old.js"), "hidden by layer 3\n");
}

/** Layer 3: a replacement, a whiteout, and an opaque directory. */
async function changes() {
  await mkdir(join(at.three, "app"), { recursive: true });
  await mkdir(join(at.three, "etc/conf.d"), { recursive: true });
  const text = "console.log('node', process.version, 'of layer 2 runs this program of layer 3')\n";
  await writeFile(join(at.three, "app/main.js"), text);
  await writeFile(join(at.three, "app/.wh.old.js"), "");
  await writeFile(join(at.three, "etc/conf.d/.wh..wh..opq"), "");
  await writeFile(join(at.three, "etc/conf.d/mine"), "from layer 3\n");
}

async function makeImage() {
  await userland();
  await node();
  await changes();
  await mkdir(join(at.layout, "blobs/sha256"), { recursive: true });
  const layers = [];
  for (const source of [at.one, at.two, at.three]) layers.push(await packLayer(source, at.layout));
  await writeLayout(at.layout, layers);
  const [one, two, three] = layers.map(({ tarSize }) => size(tarSize));
  return `OCI layout of this machine, 3 gzip layers: shell ${one}, node ${two}, changes ${three}`;
}

async function convert() {
  const result = JSON.parse(await imgfs("build", `oci:${at.layout}`, at.built, "--progress=none", "--json"));
  const blobs = readdirSync(at.built).filter((name) => /^[0-9a-f]{64}\.imgfs$/.test(name));
  const bytes = blobs.reduce((sum, name) => sum + lstatSync(join(at.built, name)).size, 0);
  return `imgfs build oci:layout built: ${blobs.length} blobs, ${size(bytes)}, and an index of ${result.entries} entries`;
}

async function mountImage() {
  await mkdir(at.rootfs);
  await imgfs("mount", at.built, at.rootfs, "--upper", at.upper, "--devices", "--pid-file", at.pid);
  return "imgfs mount built rootfs --upper upper: live, and nothing was unpacked";
}

async function seeLayers() {
  const app = (await inside("ls /app")).trim();
  const conf = (await inside("ls /etc/conf.d")).trim();
  return `layer 3 hid old.js (whiteout) and conf.d below (opaque): /app has ${app}, conf.d ${conf}`;
}

async function changeFile() {
  await inside("echo 'and from the demo' >> /etc/motd");
  const text = readFileSync(join(at.upper, "etc/motd"), "utf8");
  const first = await imgfs("cat", at.built, "/etc/motd");
  if (!text.startsWith(first) || text === first) throw new Error(`etc/motd in the upper is ${text}`);
  return `echo >> /etc/motd: copied up to upper/etc/motd, ${text.length} bytes; the image still has ${first.length}`;
}

async function deleteFile() {
  await inside("rm /etc/issue; test ! -e /etc/issue");
  const mark = lstatSync(join(at.upper, "etc/issue"));
  const form = mark.isCharacterDevice() && mark.rdev === 0 ? "a character device 0:0" : "marked by an xattr";
  return `rm /etc/issue: gone inside; upper/etc/issue is its whiteout, ${form}`;
}

async function diskFree() {
  const table = await run("df", "-h", "--output=fstype,size,used,avail", at.rootfs);
  const [type, all, used, free] = table.trim().split("\n")[1].trim().split(/\s+/);
  return `df rootfs: ${type}, ${all} in all, ${used} used, ${free} free, as the upper's disk says`;
}

async function unmount() {
  await imgfs("umount", at.rootfs);
  if (isMounted()) throw new Error("still mounted");
  const pid = Number(readFileSync(at.pid, { encoding: "utf8", flag: "a+" }));
  if (pid > 0 && existsSync(`/proc/${pid}`)) throw new Error(`daemon ${pid} still runs`);
  return "imgfs umount rootfs: the daemon has ended, the upper holds the changes";
}

async function runCommand() {
  const said = await imgfs(
    "run",
    at.built,
    "--",
    "/bin/sh",
    "-c",
    "echo process $$ of its own namespace > /made; cat /made",
  );
  return `imgfs run built -- /bin/sh -c ...: ${said.trim()}; mount and changes are gone again`;
}

async function demo() {
  if (process.getuid() !== 0) throw new Error("the demo needs root, for chroot and /dev/fuse");
  await step("install", async () => {
    await run(process.execPath, "scripts/setup.mjs", "demo");
    return "npm packages of the lockfile, and what Debian has to add";
  });
  await step("compile", async () => {
    await run(process.execPath, "scripts/build.mjs");
    return "TypeScript to dist/";
  });
  await step("image", makeImage);
  await step("convert", convert);
  await step("mount", mountImage);
  await step("shell", async () =>
    `chroot rootfs /bin/sh -c 'cat /etc/motd': ${await inside("cat /etc/motd")}`.trim(),
  );
  await step("node", async () =>
    `chroot rootfs node /app/main.js: ${await inside("/bin/node /app/main.js")}`.trim(),
  );
  await step("layers", seeLayers);
  await step("change", changeFile);
  await step("delete", deleteFile);
  await step("df", diskFree);
  await step("unmount", unmount);
  await step("run", runCommand);
}

// ---------------------------------------------------------------- the end

const isMounted = () => readFileSync("/proc/self/mountinfo", "utf8").includes(` ${at.rootfs} `);

function cleanUp() {
  for (const child of children) child.kill("SIGTERM");
  if (isMounted()) spawnSync(command, ["umount", "-z", at.rootfs], { timeout: 10_000 });
  if (isMounted()) spawnSync("umount", ["-l", at.rootfs]);
  if (!isMounted()) rmSync(folder, { recursive: true, force: true });
}

for (const signal of ["SIGINT", "SIGTERM", "SIGHUP"]) {
  process.on(signal, () => {
    stopped = signal;
    for (const child of children) child.kill("SIGTERM");
  });
}

try {
  await demo();
} catch (cause) {
  const text = stopped ? `stopped by ${stopped}` : cause.message;
  process.stderr.write(`${isTerminal ? "\r\x1b[K" : ""}demo: ${text}\n`);
  process.exitCode = stopped === "SIGINT" ? 130 : stopped ? 143 : 1;
} finally {
  cleanUp();
}
