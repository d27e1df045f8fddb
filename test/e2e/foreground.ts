// `imgfs mount -f` as a child of the test: its end can be waited for, and SIGUSR1 asks it for the
// request counters it prints.
import { spawn } from "node:child_process";
import { existsSync } from "node:fs";
import { stat } from "node:fs/promises";
import { cleanLater, command, isMounted, scratch, scratchDirectory, until } from "./mounted.js";

export interface Foreground {
  readonly path: string;
  readonly pid: number;
  readonly ended: Promise<{ readonly code: number | null; readonly signal: NodeJS.Signals | null }>;
  /** All it wrote to stderr so far. */
  stderr(): string;
  /** Requests so far, by opcode. Asking sends none. */
  counters(): Promise<Counts>;
}

export type Counts = Readonly<Record<string, number>>;

/** Mounts and returns once the mount is live. */
export async function mountForeground(image: string, ...options: string[]): Promise<Foreground> {
  const path = scratchDirectory("mnt");
  const pidFile = scratch("pid");
  cleanLater(path, pidFile);
  const child = spawn(command, ["mount", "-f", "--pid-file", pidFile, image, path, ...options], {
    stdio: ["ignore", "ignore", "pipe"],
  });
  let text = "";
  child.stderr.on("data", (data) => {
    text += data;
  });
  const ended = new Promise<{ code: number | null; signal: NodeJS.Signals | null }>((done) => {
    child.on("close", (code, signal) => done({ code, signal }));
  });
  await until(
    "the mount is there",
    () => (isMounted(path) && existsSync(pidFile)) || child.exitCode !== null || child.signalCode !== null,
  );
  if (!isMounted(path)) throw new Error(`imgfs mount -f ended: ${text}`);
  // The first answer comes after the handshake with the kernel: from then on the mount is live.
  await stat(path);
  const pid = child.pid as number;
  return {
    path,
    pid,
    ended,
    stderr: () => text,
    counters: async () => {
      const from = text.length;
      process.kill(pid, "SIGUSR1");
      await until("the counters are printed", () => /^opcode .*\n(\S+ +\d+.*\n)*$/m.test(text.slice(from)));
      return parseCounters(text.slice(from));
    },
  };
}

/** The rows `OPCODE requests errors` under the table's head. */
export function parseCounters(text: string): Counts {
  const rows = [...text.matchAll(/^([A-Z_0-9]+) +(\d+) +(\d+)$/gm)];
  return Object.fromEntries(rows.map(([, opcode, requests]) => [opcode as string, Number(requests)]));
}
