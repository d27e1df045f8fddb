// Where the control sockets of mounts are, and what they are called: known alike to the process that serves a mount and to
// the command that looks for it. A folder is used by its descriptor once it has been looked at, so nobody can put another
// in its place, and the length of its path does not matter to sun_path.
// Invariant: a folder is its owner's alone (0700): what is in it was made by that user or by root.
import { closeSync, constants, fchmodSync, fstatSync, mkdirSync, openSync, readFileSync } from "node:fs";
import { isAbsolute, join, sep } from "node:path";
import { codeOf, errnoText } from "../base/errno.js";

/** A folder that is open. */
export interface ControlFolder {
  readonly path: string;
  readonly fd: number;
  readonly owner: number;
}

/** What the environment of a process says of places for files of its run time. */
export interface PlaceHints {
  readonly XDG_RUNTIME_DIR?: string | undefined;
  readonly TMPDIR?: string | undefined;
}

/** Places for the sockets of the user `uid` (as the initial user namespace has it), the best first. */
export function controlFolders(uid: number, isRoot: boolean, hints: PlaceHints): string[] {
  const runtime = hints.XDG_RUNTIME_DIR ?? "";
  const temporary = hints.TMPDIR ?? "";
  const places = [
    ...(isRoot ? ["/run/imgfs"] : []),
    ...(isAbsolute(runtime) ? [join(runtime, "imgfs")] : []),
    `/run/user/${uid}/imgfs`,
    `/tmp/imgfs-${uid}`,
    ...(isAbsolute(temporary) ? [join(temporary, `imgfs-${uid}`)] : []),
  ];
  return [...new Set(places)];
}

/** The number that whoever is outside this user namespace knows one of its user ids by. */
export function outerUid(uid: number): number {
  let text: string;
  try {
    text = readFileSync("/proc/self/uid_map", "latin1");
  } catch {
    return uid;
  }
  for (const line of text.trim().split("\n")) {
    const [first = 0, outer = 0, count = 0] = line.trim().split(/\s+/).map(Number);
    if (uid >= first && uid < first + count) return outer + (uid - first);
  }
  return uid;
}

/** The folder in which this process keeps its sockets, made where it is missing. Throws an Error that names what was tried. */
export function openOwnFolder(mountpoint: string): ControlFolder {
  const uid = process.geteuid?.() ?? 0;
  const problems: string[] = [];
  for (const path of controlFolders(outerUid(uid), uid === 0, process.env)) {
    // A mount would cover it; with some transports this thread would even ask itself.
    if (`${path}${sep}`.startsWith(mountpoint === sep ? sep : `${mountpoint}${sep}`)) {
      problems.push(`${path}: lies in the mountpoint`);
      continue;
    }
    try {
      const folder = makeFolder(path);
      if (folder.owner === uid) return folder;
      closeSync(folder.fd);
      problems.push(`${path}: belongs to user ${folder.owner}`);
    } catch (cause) {
      problems.push(`${path}: ${errnoText(codeOf(cause))}`);
    }
  }
  throw new Error(problems.join("; "));
}

/** Opens a folder, made where it is missing, and where it is this process's sees to its mode. Throws a system error. */
function makeFolder(path: string): ControlFolder {
  try {
    mkdirSync(path, 0o700);
  } catch (cause) {
    if (codeOf(cause) !== "EEXIST") throw cause;
  }
  const folder = openFolder(path);
  try {
    // Also where that changes nothing: it tells a filesystem that is read-only.
    if (folder.owner === process.geteuid?.()) fchmodSync(folder.fd, 0o700);
    return folder;
  } catch (cause) {
    closeSync(folder.fd);
    throw cause;
  }
}

/** Opens a folder that is one itself, not a link to one. Throws a system error. */
export function openFolder(path: string): ControlFolder {
  const fd = openSync(path, constants.O_RDONLY | constants.O_DIRECTORY | constants.O_NOFOLLOW);
  try {
    return { path, fd, owner: fstatSync(fd).uid };
  } catch (cause) {
    closeSync(fd);
    throw cause;
  }
}

/** A path to a name in an open folder. */
export function pathIn({ fd }: ControlFolder, name: string): string {
  return `/proc/self/fd/${fd}/${name}`;
}

/** What a socket's name says. */
export interface SocketName {
  /** `major:minor` of the mount; undefined where its process has not mounted it itself. */
  readonly device: string | undefined;
  readonly pid: number;
  /** As /proc/PID/stat has it. */
  readonly startTime: string;
}

const SUFFIX = ".sock";
/** While it is being made. */
export const NEW_SUFFIX = ".new";

/** `0:57.1234-99887.sock`; `fd` stands for a device that is not known. */
export function socketName({ device, pid, startTime }: SocketName): string {
  return `${device ?? "fd"}.${pid}-${startTime}${SUFFIX}`;
}

/** The name's parts, also of one that is only being made; undefined for any other file. */
export function parseSocketName(name: string): SocketName | undefined {
  const match = /^(\d+:\d+|fd)\.(\d+)-(\d+)\.sock(?:\.new)?$/.exec(name);
  if (match === null) return undefined;
  const [, device, pid, startTime] = match as unknown as [string, string, string, string];
  return { device: device === "fd" ? undefined : device, pid: Number(pid), startTime };
}
