// When a process began: with its pid that names it for good.
import { readdirSync, readFileSync } from "node:fs";

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
