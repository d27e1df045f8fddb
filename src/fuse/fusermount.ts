// Mounting and unmounting by libfuse's setuid helper, for users who may not call mount(2). The helper opens /dev/fuse,
// mounts it and sends the descriptor over the socket that _FUSE_COMMFD names (libfuse, util/fusermount.c).
// Never: auto_unmount. The helper has ended when its answer is read.
import { spawn } from "node:child_process";
import { accessSync, constants } from "node:fs";
import { basename, join } from "node:path";
import { Errno, errnoName } from "../base/errno.js";
import { closeFd } from "../sys/files.js";
import {
  MS_DIRSYNC,
  MS_NOATIME,
  MS_NODEV,
  MS_NOEXEC,
  MS_NOSUID,
  MS_RDONLY,
  MS_SYNCHRONOUS,
} from "../sys/mount-flags.js";
import { createSocketPair, receiveFd } from "../sys/socket.js";
import type { MountRequest } from "./channel.js";

/** A refusal in one line, with what may help. */
export interface Refusal {
  readonly reason: string;
  readonly hint?: string;
}

/** The flags the helper knows, as libfuse does; others it would hand to the kernel as data, which refuses them. */
export const flagNames: readonly (readonly [number, string])[] = [
  [MS_RDONLY, "ro"],
  [MS_NOSUID, "nosuid"],
  [MS_NODEV, "nodev"],
  [MS_NOEXEC, "noexec"],
  [MS_SYNCHRONOUS, "sync"],
  [MS_DIRSYNC, "dirsync"],
  [MS_NOATIME, "noatime"],
];

/** The helper's path, or undefined: the usual places come before PATH, in which a user may have anything. */
function findFusermount(): string | undefined {
  const path = process.env["PATH"] ?? "";
  const folders = ["/usr/bin", "/bin", ...path.split(":").filter((folder) => folder.startsWith("/"))];
  for (const name of ["fusermount3", "fusermount"]) {
    for (const folder of folders) {
      const file = join(folder, name);
      try {
        accessSync(file, constants.X_OK);
        return file;
      } catch {
        // Not here.
      }
    }
  }
  return undefined;
}

const missing: Refusal = {
  reason: "mounting is not permitted to this user, and fusermount3 is not installed",
  hint: "install the package fuse3, or mount as root",
};

/** The text of the helper's -o: values have their commas and backslashes escaped. */
function helperOptions(request: MountRequest): string {
  const escaped = (text: string): string => text.replace(/[\\,]/g, "\\$&");
  const flags = flagNames.filter(([flag]) => (request.flags & flag) !== 0).map(([, name]) => name);
  return [
    ...flags,
    "default_permissions",
    ...(request.allowOther === true ? ["allow_other"] : []),
    ...(request.maxRead === undefined ? [] : [`max_read=${request.maxRead}`]),
    `subtype=${escaped(request.subtype)}`,
    `fsname=${escaped(request.source)}`,
  ].join(",");
}

/** Mounts; the descriptor of the connection, close-on-exec, or why there is none. */
export async function openByFusermount(request: MountRequest): Promise<number | Refusal> {
  const helper = findFusermount();
  if (helper === undefined) return missing;
  const [ours, theirs] = createSocketPair();
  try {
    const running = run(helper, ["-o", helperOptions(request), "--", request.mountpoint], theirs);
    closeFd(theirs);
    const { code, said } = await running;
    if (code !== 0) return explain(helper, said, code);
    const fd = receiveFd(ours);
    if (fd !== undefined && fd >= 0) return fd;
    return { reason: `${helper} sent no descriptor${fd === undefined ? "" : `: ${errnoName(-fd)}`}` };
  } finally {
    closeFd(ours);
  }
}

function explain(helper: string, said: string, code: number | string): Refusal {
  const reason = said === "" ? `${helper} ended with ${code}` : said;
  if (/user_allow_other/.test(said)) {
    return {
      reason,
      hint: "have root put the line user_allow_other into /etc/fuse.conf, or mount without allow_other",
    };
  }
  if (/mount failed: Operation not permitted/.test(said)) {
    return {
      reason,
      hint: `${helper} must be setuid root, and the process without no_new_privs and in root's user namespace`,
    };
  }
  return { reason };
}

/** Unmounts what this user has mounted. 0, or an errno as negative number and what the helper said. */
export async function unmountByFusermount(
  mountpoint: string,
  lazy: boolean,
): Promise<{ readonly status: number; readonly said: string }> {
  const helper = findFusermount();
  if (helper === undefined) return { status: -Errno.EPERM, said: missing.reason };
  const { code, said } = await run(helper, ["-u", ...(lazy ? ["-z"] : []), "--", mountpoint]);
  if (code === 0) return { status: 0, said };
  return { status: /resource busy/.test(said) ? -Errno.EBUSY : -Errno.EPERM, said };
}

/** Runs the helper to its end, with `socket` as its descriptor 3. */
function run(
  helper: string,
  args: readonly string[],
  socket?: number,
): Promise<{ readonly code: number | string; readonly said: string }> {
  return new Promise((done) => {
    const child = spawn(helper, args, {
      argv0: basename(helper),
      cwd: "/",
      env: { ...process.env, LC_ALL: "C", ...(socket === undefined ? {} : { _FUSE_COMMFD: "3" }) },
      stdio: ["ignore", "ignore", "pipe", ...(socket === undefined ? [] : [socket])],
    });
    let text = "";
    child.stderr?.setEncoding("utf8").on("data", (chunk: string) => {
      text += chunk;
    });
    child.on("error", ({ message }) => done({ code: 127, said: message }));
    child.on("close", (code, signal) => done({ code: code ?? signal ?? 1, said: lastWord(text) }));
  });
}

/** The last line that is no mere warning. */
function lastWord(text: string): string {
  const lines = text.split("\n").filter((line) => line !== "" && !/ignored$|unknown parameter/.test(line));
  return lines.at(-1) ?? "";
}
