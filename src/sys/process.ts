// Process-wide settings that Node has no call for.
import { bind, bindPlain } from "./libc.js";
import { allocatePages } from "./memory.js";

const getrlimit = bind<[number, number]>("getrlimit64", "int", ["int", "uintptr_t"]);
const setrlimit = bind<[number, number]>("setrlimit64", "int", ["int", "uintptr_t"]);
const RLIMIT_NOFILE = 7;

/** Raises the soft limit of open files to the hard one and returns it, or a negative errno. */
export function raiseOpenFileLimit(): number {
  const limit = allocatePages(16);
  const got = getrlimit(RLIMIT_NOFILE, limit.address);
  if (got < 0) return got;
  const hard = limit.view.getBigUint64(8, true);
  limit.view.setBigUint64(0, hard, true);
  const set = setrlimit(RLIMIT_NOFILE, limit.address);
  return set < 0 ? set : Number(hard);
}

const exitCall = bindPlain<[number]>("_exit", "void", ["int"]);

/**
 * Ends the process at once, whatever its threads wait for. process.exit() would join threads that block in a system
 * call. Nothing is flushed and no exit handler runs.
 */
export function exitNow(code: number): void {
  exitCall(code);
}
