// The words by which bubblewrap runs a command on a mounted image (bwrap(1)). One id, no setuid programs, and the command
// is found here: bubblewrap itself says 1 for everything that fails.
import { closeSync, openSync, readFileSync, realpathSync, statSync } from "node:fs";
import { dirname } from "node:path";
import { findAccount } from "./account.js";
import { insideRoot } from "./inside-root.js";
import { makeMountPoint } from "./mount-point.js";
import { findProgram } from "./programs.js";
import { type Inside, RunFailure } from "./request.js";
import { findCommand } from "./start-command.js";

/** Those after `bwrap`. Makes the mount points in the image, where it can. Throws RunFailure as the command is not fit. */
export function bubblewrapWords(rootfs: string, { command, surroundings }: Inside): string[] {
  // A relative path is one from the working directory, as it is for the command.
  const at = (path: string): string =>
    insideRoot(rootfs, path.startsWith("/") ? path : `${command.workdir}/${path}`);
  const textOf = (path: string): string => {
    const file = at(path);
    return statSync(file, { throwIfNoEntry: false })?.isFile() ? readFileSync(file, "latin1") : "";
  };
  for (const [path, mode] of [
    ["/proc", 0o555],
    ["/dev", 0o755],
    ["/tmp", 0o1777],
    [command.workdir, 0o755],
  ] as const) {
    makeFolder(at(path), mode, path);
  }
  const { uid, gid, home } = findAccount(command.user, textOf("/etc/passwd"), textOf("/etc/group"));
  const env: Record<string, string> = { HOME: home, ...command.env };
  const { file, args } = findCommand(command.words, env["PATH"] ?? "", at);
  const binds = surroundings.binds.flatMap(({ host, inside, readOnly }) => {
    const place = at(inside);
    if (statSync(host).isDirectory()) makeFolder(place, 0o755, inside);
    else makeFile(place);
    return [readOnly ? "--ro-bind" : "--bind", host, place.slice(rootfs.length)];
  });
  const { hostname, network } = surroundings;
  return [
    "--unshare-user",
    "--unshare-pid",
    "--unshare-ipc",
    "--unshare-uts",
    ...(network === "none" ? ["--unshare-net"] : []),
    "--die-with-parent",
    ...["--info-fd", String(INFO_FD)],
    ...["--uid", String(uid), "--gid", String(gid)],
    ...(hostname === undefined ? [] : ["--hostname", hostname]),
    ...[surroundings.readOnly ? "--ro-bind" : "--bind", rootfs, "/"],
    ...["--proc", "/proc", "--dev", "/dev"],
    ...(network === "host" ? ["/etc/resolv.conf", "/etc/hosts"] : []).flatMap((path) =>
      hostFile(path, at(path), rootfs),
    ),
    ...binds,
    ...["--chdir", command.workdir],
    "--clearenv",
    ...Object.entries(env).flatMap(([name, value]) => ["--setenv", name, value]),
    "--",
    // What was found in PATH; a first word that is another would need a shell.
    ...[file, ...args.slice(1)],
  ];
}

/** Where bubblewrap tells the pid of its first process, as JSON. */
export const INFO_FD = 3;

/** The command's pid, from what bubblewrap has told; undefined before it runs, and where the kernel does not say. */
export function commandPid(info: string): number | undefined {
  const init = /"child-pid":\s*(\d+)/.exec(info)?.[1];
  if (init === undefined) return undefined;
  try {
    const [first] = readFileSync(`/proc/${init}/task/${init}/children`, "latin1").trim().split(" ");
    return first === "" || first === undefined ? undefined : Number(first);
  } catch {
    return undefined;
  }
}

/** bubblewrap, and what mounts for an ordinary user. Throws RunFailure that says what to install. */
export function findBubblewrap(): string {
  const file = findProgram("bwrap");
  if (file === undefined)
    throw new RunFailure("bwrap is not installed", 125, "install the package bubblewrap");
  return file;
}

function makeFolder(place: string, mode: number, shown = place): void {
  if (statSync(place, { throwIfNoEntry: false }) === undefined) makeMountPoint(place, mode, shown);
}

function makeFile(path: string): void {
  makeFolder(dirname(path), 0o755);
  try {
    closeSync(openSync(path, "ax", 0o644));
  } catch {
    // It is there; or read-only, as above.
  }
}

/** As surroundings.ts has it. */
function hostFile(path: string, shown: string, rootfs: string): string[] {
  const own = statSync(shown, { throwIfNoEntry: false });
  if (own !== undefined && !(own.isFile() && own.size === 0)) return [];
  try {
    const host = realpathSync.native(path);
    makeFile(shown);
    return ["--ro-bind", host, shown.slice(rootfs.length)];
  } catch {
    return [];
  }
}
