// Asks a mount which process serves it. The question can hang as long as that process does, and the thread that asks
// cannot be interrupted then, so a child process asks and is left behind when it does not come back.
// The child is ask.ts.
import { spawn } from "node:child_process";
import { readdirSync, readFileSync } from "node:fs";
import { fileURLToPath } from "node:url";

const program = fileURLToPath(new URL("./ask.js", import.meta.url));
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

/** Asks the mount at `path`; answers within {@link PATIENCE} milliseconds. */
export function probeMount(path: string): Promise<ProbeAnswer> {
  return new Promise((done) => {
    const child = spawn(process.execPath, [program, path], {
      cwd: "/",
      stdio: ["ignore", "pipe", "ignore"],
    });
    let text = "";
    const finish = (answer: ProbeAnswer): void => {
      clearTimeout(timer);
      child.stdout.destroy();
      child.unref();
      done(answer);
    };
    const timer = setTimeout(() => {
      child.kill("SIGKILL");
      finish({ kind: "hung" });
    }, PATIENCE);
    child.stdout.setEncoding("latin1").on("data", (chunk: string) => {
      text += chunk;
    });
    child.on("error", (error) => finish({ kind: "unknown", reason: error.message }));
    child.on("close", () => finish(readAnswer(text)));
  });
}

function readAnswer(text: string): ProbeAnswer {
  const daemon = /^ok (\d+) (\d+)\n$/.exec(text);
  if (daemon) return { kind: "daemon", pid: Number(daemon[1]), startTime: daemon[2] as string };
  if (/^error (ENOTCONN|ECONNABORTED)\n$/.test(text)) return { kind: "dead" };
  return { kind: "unknown", reason: text.trim() };
}

/**
 * Field 22 of /proc/PID/stat, in clock ticks since boot; undefined when there is no such process or only its zombie. The
 * first thread turns into a zombie while others still run and hold descriptors: then the process still is.
 */
export function processStartTime(pid: number): string | undefined {
  try {
    const text = readFileSync(`/proc/${pid}/stat`, "latin1");
    // The second field is a name in parentheses that may itself hold anything.
    const fields = text.slice(text.lastIndexOf(")") + 2).split(" ");
    const zombie = fields[0] === "Z" || fields[0] === "X";
    return zombie && readdirSync(`/proc/${pid}/task`).length <= 1 ? undefined : fields[19];
  } catch {
    return undefined;
  }
}
