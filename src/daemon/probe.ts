// Asks a mount which process serves it. The question can hang as long as that process does, and the thread that asks
// cannot be interrupted then, so a thread of the C library asks and is left behind when it does not come back.
import { Errno, errnoName } from "../base/errno.js";
import { askXattrPath } from "../sys/xattr.js";

/** The root's attribute that holds `PID STARTTIME` of its process. */
const DAEMON_XATTR = Buffer.from("user.imgfs.daemon");
/** Milliseconds. */
const PATIENCE = 5_000;

export type ProbeAnswer =
  /** As the daemon sees itself; in another pid namespace the number may name another process. */
  | { readonly kind: "daemon"; readonly pid: number; readonly startTime: string }
  /** Its process is gone; every access is ENOTCONN. */
  | { readonly kind: "dead" }
  /** No answer in time. */
  | { readonly kind: "hung" }
  /** Alive, but says nothing of its process. */
  | { readonly kind: "unknown"; readonly reason: string };

/**
 * Asks the mount at `path`; answers within {@link PATIENCE}. After "hung" a thread still waits, and the process must be
 * ended by exitNow.
 */
export async function probeMount(path: string): Promise<ProbeAnswer> {
  let timer: NodeJS.Timeout | undefined;
  const patience = new Promise<ProbeAnswer>((done) => {
    timer = setTimeout(() => done({ kind: "hung" }), PATIENCE);
  });
  try {
    return await Promise.race([ask(path), patience]);
  } finally {
    clearTimeout(timer);
  }
}

async function ask(path: string): Promise<ProbeAnswer> {
  const value = await askXattrPath(Buffer.from(path), DAEMON_XATTR);
  if (typeof value === "number") {
    const dead = value === -Errno.ENOTCONN || value === -Errno.ECONNABORTED;
    return dead ? { kind: "dead" } : { kind: "unknown", reason: errnoName(-value) };
  }
  const daemon = /^(\d+) (\d+)$/.exec(Buffer.from(value).toString("latin1"));
  if (!daemon) return { kind: "unknown", reason: "says nothing of its process" };
  return { kind: "daemon", pid: Number(daemon[1]), startTime: daemon[2] as string };
}
