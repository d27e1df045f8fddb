// Makes the mounted image the root of this mount namespace, with what a program expects around it: /proc, a small /dev,
// the host's paths that were asked for.
// Invariants: once pivoted, paths of the image are resolved by the kernel inside the image, so that no symlink of it leads
// to the host; paths of the host are relative to the old root, which is the working directory until it is taken away.
import { closeSync, lstatSync, mkdirSync, openSync, readlinkSync, statSync, symlinkSync } from "node:fs";
import { dirname, resolve } from "node:path";
import { errnoName, errnoText } from "../base/errno.js";
import { changeDirectory, makeReadOnly, pivotHere, raiseLoopback, setHostname } from "../sys/container.js";
import { AT_FDCWD, closeFd, O_DIRECTORY, O_PATH, openAt } from "../sys/files.js";
import { MNT_DETACH, mountAt, unmountAt } from "../sys/mount.js";
import { MS_NODEV, MS_NOEXEC, MS_NOSUID, MS_RDONLY, MS_STRICTATIME } from "../sys/mount-flags.js";
import { insideRoot } from "./inside-root.js";
import { makeMountPoint } from "./mount-point.js";
import { type Bind, RunFailure, type Surroundings } from "./request.js";

const MS_BIND = 4096;
const MS_REC = 16384;

function check(result: number, what: string): void {
  if (result < 0) throw new RunFailure(`${what}: ${errnoText(errnoName(-result))}`);
}

function mount(source: string, target: string, type: string, flags: number, data = ""): number {
  return mountAt(source, Buffer.from(target), type, flags, data);
}

/** A path of the host, seen from the old root. */
function ofHost(path: string): string {
  return path === "/" ? "." : path.slice(1);
}

/** Enters the image and makes `workdir` there. `hostRoot`: the command will be the host's own root. */
export function enterRoot(
  rootfs: string,
  surroundings: Surroundings,
  workdir: string,
  hostRoot: boolean,
): void {
  const { binds, readOnly, network, hostname } = surroundings;
  if (hostname !== undefined) check(setHostname(hostname), `hostname ${hostname}`);
  if (network === "none") raiseLoopback();
  // A mount of its own: the one at the mountpoint may be locked to those around it (mount_namespaces(7)).
  check(mount(rootfs, rootfs, "", MS_BIND | MS_REC), rootfs);
  const oldRoot = openAt(AT_FDCWD, Buffer.from("/"), O_PATH | O_DIRECTORY);
  check(oldRoot, "/");
  process.chdir(rootfs);
  check(pivotHere(), "pivot_root");
  check(changeDirectory(oldRoot), "the host's root");
  closeFd(oldRoot);
  makeProc();
  makeDev();
  makeFolder("/tmp", 0o1777);
  if (network === "host") for (const file of ["/etc/resolv.conf", "/etc/hosts"]) showHostFile(file);
  for (const bind of binds) bindInside(bind);
  makeFolder(workdir);
  if (hostRoot) closeMachine();
  check(unmountAt(Buffer.from("."), MNT_DETACH), "the host's root");
  process.chdir("/");
  if (readOnly) check(makeReadOnly("/", false), "--read-only");
}

/** Makes a directory of the image where it is missing; what cannot be made is told by whoever needs it. */
function makeFolder(path: string, mode = 0o755): void {
  if (statSync(path, { throwIfNoEntry: false }) !== undefined) return;
  makeMountPoint(insideRoot("/", path), mode, path);
}

function makeFile(path: string): void {
  makeFolder(dirname(path));
  try {
    closeSync(openSync(path, "ax", 0o644));
  } catch {
    // It is there.
  }
}

function makeProc(): void {
  makeFolder("/proc", 0o555);
  const made = mount("proc", "/proc", "proc", MS_NOSUID | MS_NODEV | MS_NOEXEC);
  // In a container whose own /proc is covered in places the kernel gives no other one: then the host's is shown.
  if (made < 0) check(mount("proc", "/proc", "", MS_BIND | MS_REC), "/proc");
}

const devices = ["null", "zero", "full", "random", "urandom", "tty"];
const deviceLinks = [
  ["/proc/self/fd", "/dev/fd"],
  ["/proc/self/fd/0", "/dev/stdin"],
  ["/proc/self/fd/1", "/dev/stdout"],
  ["/proc/self/fd/2", "/dev/stderr"],
  ["pts/ptmx", "/dev/ptmx"],
] as const;

function makeDev(): void {
  makeFolder("/dev");
  check(mount("tmpfs", "/dev", "tmpfs", MS_NOSUID | MS_STRICTATIME, "mode=755,size=65536k"), "/dev");
  for (const name of devices) {
    makeFile(`/dev/${name}`);
    check(mount(`dev/${name}`, `/dev/${name}`, "", MS_BIND), `/dev/${name}`);
  }
  for (const [target, path] of deviceLinks) symlinkSync(target, path);
  for (const name of ["pts", "shm", "mqueue"]) mkdirSync(`/dev/${name}`);
  const terminals = "newinstance,ptmxmode=0666,mode=620";
  const flags = MS_NOSUID | MS_NOEXEC;
  // Group 5 is tty wherever there is one; in a user namespace it may have no id.
  if (mount("devpts", "/dev/pts", "devpts", flags, `${terminals},gid=5`) < 0) {
    check(mount("devpts", "/dev/pts", "devpts", flags, terminals), "/dev/pts");
  }
  check(mount("shm", "/dev/shm", "tmpfs", flags | MS_NODEV, "mode=1777"), "/dev/shm");
  mount("mqueue", "/dev/mqueue", "mqueue", flags | MS_NODEV);
  showTerminal();
}

/** The caller's terminal is of another devpts: at /dev/console ttyname(3) finds it. */
function showTerminal(): void {
  for (const fd of [0, 1, 2]) {
    const path = terminalOf(fd);
    if (path === undefined) continue;
    makeFile("/dev/console");
    mount(ofHost(path), "/dev/console", "", MS_BIND);
    return;
  }
}

function terminalOf(fd: number): string | undefined {
  try {
    const path = readlinkSync(`/proc/self/fd/${fd}`);
    return /^\/dev\/(pts\/\d+|tty\w+)$/.test(path) ? path : undefined;
  } catch {
    return undefined;
  }
}

/** Where the image has none, an empty one, or a symlink to nowhere, the host's shows, read-only. */
function showHostFile(path: string): void {
  const host = realPathOnHost(path);
  const own = statSync(path, { throwIfNoEntry: false });
  if (host === undefined || (own !== undefined && !(own.isFile() && own.size === 0))) return;
  const target = insideRoot("/", path);
  makeFile(target);
  if (mount(ofHost(host), target, "", MS_BIND) >= 0) makeReadOnly(target, false);
}

/** The host's file behind a path, absolute; undefined where there is none. Relative to the old root as long as that is. */
function realPathOnHost(path: string): string | undefined {
  for (let i = 0; i < 40; i++) {
    const stat = lstatSync(ofHost(path), { throwIfNoEntry: false });
    if (stat?.isSymbolicLink() !== true) return stat?.isFile() === true ? path : undefined;
    path = resolve(dirname(path), readlinkSync(ofHost(path)));
  }
  return undefined;
}

function bindInside({ host, inside, readOnly }: Bind): void {
  const what = `--bind ${host}:${inside}`;
  const source = statSync(ofHost(host), { throwIfNoEntry: false });
  if (source === undefined) throw new RunFailure(`${what}: ${host}: ${errnoText("ENOENT")}`);
  if (source.isDirectory()) makeFolder(inside);
  else makeFile(inside);
  check(mount(ofHost(host), inside, "", MS_BIND | MS_REC), what);
  if (readOnly) check(makeReadOnly(inside, true), what);
}

/** What of /proc acts on the whole machine, as docker closes it. */
const unwritable = ["/proc/bus", "/proc/fs", "/proc/irq", "/proc/sys", "/proc/sysrq-trigger"];
const unreadable = [
  "/proc/kcore",
  "/proc/keys",
  "/proc/latency_stats",
  "/proc/timer_list",
  "/proc/sched_debug",
];

function closeMachine(): void {
  for (const path of unwritable) {
    if (mount(path, path, "", MS_BIND | MS_REC) >= 0) makeReadOnly(path, true);
  }
  for (const path of unreadable) mount("/dev/null", path, "", MS_BIND);
  for (const path of ["/proc/acpi", "/proc/scsi"]) mount("tmpfs", path, "tmpfs", MS_RDONLY);
}
