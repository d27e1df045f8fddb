// Process-wide settings that Node has no call for.
import { bindPlain } from "./libc.js";

const exitCall = bindPlain<[number]>("_exit", "void", ["int"]);

/**
 * Ends the process at once, whatever its threads wait for. process.exit() would join threads that block in a system
 * call. Nothing is flushed and no exit handler runs.
 */
export function exitNow(code: number): void {
  exitCall(code);
}
