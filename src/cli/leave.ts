// The end of a command that may have asked a mount whose process hangs.
import { exitNow } from "../sys/process.js";

/**
 * Ends the process once the command has printed what it has to say and its exit code is set, also while a thread waits
 * for an answer that may never come: Node's own end would wait with it.
 */
export function leaveSoon(): void {
  setImmediate(() => exitNow(Number(process.exitCode ?? 0)));
}
