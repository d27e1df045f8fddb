// Settings and rights of a process and of a thread that Node has no call for.
import { readFileSync, readlinkSync } from "node:fs";
import { bindPlain } from "./libc.js";

const exitCall = bindPlain<[number]>("_exit", "void", ["int"]);

/**
 * Ends the process at once, whatever its threads wait for. process.exit() would join threads that block in a system
 * call. Nothing is flushed and no exit handler runs.
 */
export function exitNow(code: number): void {
  exitCall(code);
}

const setsid = bindPlain<[]>("setsid", "int", []);

/** Makes this process the leader of a session without a terminal; nothing changes when it leads a group already. */
export function newSession(): void {
  setsid();
}

const PR_SET_PDEATHSIG = 1;
const prctl = bindPlain<[number, number]>("prctl", "int", ["int", "unsigned long"]);

/** Which signal this process gets when its parent ends; 0 for none (prctl(2)). */
export function signalAtParentsEnd(signal: number): void {
  prctl(PR_SET_PDEATHSIG, signal);
}

const setfsuid = bindPlain<[number]>("setfsuid", "int", ["uint32_t"]);
const setfsgid = bindPlain<[number]>("setfsgid", "int", ["uint32_t"]);
const own = { uid: process.geteuid?.() ?? 0, gid: process.getegid?.() ?? 0 };

/**
 * Runs `call` with the rights of another user on files, in this thread alone: what it makes is that user's from its
 * first moment. Where the process may not become that user, or has no such id, nothing changes.
 */
export function asOwner(uid: number, gid: number, call: () => number): number {
  if (uid === own.uid && gid === own.gid) return call();
  setfsgid(gid);
  setfsuid(uid);
  try {
    return call();
  } finally {
    setfsuid(own.uid);
    setfsgid(own.gid);
  }
}

const CAP_DAC_OVERRIDE = 1n;
const CAP_FSETID = 4n;
const CAP_SETGID = 6n;
const CAP_SETUID = 7n;
const CAP_SYS_ADMIN = 21n;

const becomesOthers = hasCapability(CAP_SETGID) && hasCapability(CAP_SETUID);

/** Whether what {@link asOwner} makes for this user is that user's. */
export function makesFor(uid: number, gid: number): boolean {
  return becomesOthers || (uid === own.uid && gid === own.gid);
}

/** Whether modes do not bind this process: it may read and write what they forbid (capabilities(7)). */
export const overridesModes: boolean = hasCapability(CAP_DAC_OVERRIDE);

/** The user namespace that the system starts with (include/linux/proc_ns.h, PROC_USER_INIT_INO). */
const INITIAL_USER_NAMESPACE = "user:[4026531837]";

/** Whether writing to a file leaves its setuid and setgid bits to this process, which takes a right over the whole system. */
export const keepsSetuid: boolean = hasCapability(CAP_FSETID) && isInitialNamespace("self");

function isInitialNamespace(pid: number | "self"): boolean {
  try {
    return readlinkSync(`/proc/${pid}/ns/user`) === INITIAL_USER_NAMESPACE;
  } catch {
    return false;
  }
}

/**
 * Whether a thread may use trusted. xattrs: that takes CAP_SYS_ADMIN over the whole system (xattr(7)). False for one of
 * which this process may not know.
 */
export function mayUseTrusted(pid: number | "self"): boolean {
  return hasCapability(CAP_SYS_ADMIN, pid) && isInitialNamespace(pid);
}

/** Whether this process may. */
export const usesTrusted: boolean = mayUseTrusted("self");

function hasCapability(number: bigint, pid: number | "self" = "self"): boolean {
  try {
    const effective = /^CapEff:\s*([0-9a-f]+)$/m.exec(readFileSync(`/proc/${pid}/status`, "latin1"))?.[1];
    return effective !== undefined && ((BigInt(`0x${effective}`) >> number) & 1n) === 1n;
  } catch {
    return pid === "self" && process.geteuid?.() === 0;
  }
}
