// Starting a program as posix_spawn(3) does, and waiting for it: with a choice of descriptors and of blocked signals
// that child_process does not give. Children started here are not Node's: whoever starts them waits for them here.
import { bind, bindAsync, bindPlain } from "./libc.js";
import { allocatePages, type Region } from "./memory.js";

type Address = number;
const spawnCall = bindPlain<[Address, string, Address, Address, Address, Address]>("posix_spawn", "int", [
  "uintptr_t",
  "str",
  "uintptr_t",
  "uintptr_t",
  "uintptr_t",
  "uintptr_t",
]);
const one = (name: string): ((at: Address) => number) => bindPlain<[Address]>(name, "int", ["uintptr_t"]);
const actionsInit = one("posix_spawn_file_actions_init");
const actionsDestroy = one("posix_spawn_file_actions_destroy");
const addDup = bindPlain<[Address, number, number]>("posix_spawn_file_actions_adddup2", "int", [
  "uintptr_t",
  "int",
  "int",
]);
const attributesInit = one("posix_spawnattr_init");
const attributesDestroy = one("posix_spawnattr_destroy");
const setFlags = bindPlain<[Address, number]>("posix_spawnattr_setflags", "int", ["uintptr_t", "int16_t"]);
const setMask = bindPlain<[Address, Address]>("posix_spawnattr_setsigmask", "int", [
  "uintptr_t",
  "uintptr_t",
]);
const setDefault = bindPlain<[Address, Address]>("posix_spawnattr_setsigdefault", "int", [
  "uintptr_t",
  "uintptr_t",
]);
const fillSet = one("sigfillset");
const emptySet = one("sigemptyset");
const fcntlCall = bind<[number, number, number]>("fcntl64", "int", ["int", "int", "int"]);
const closeCall = bind<[number]>("close", "int", ["int"]);
const waitCall = bindAsync<[number, Address, number]>("waitpid", "int", ["int", "uintptr_t", "int"]);

const SETSIGDEF = 4;
const SETSIGMASK = 8;
const F_DUPFD_CLOEXEC = 1030;
/** Copies of descriptors are made from here on, above every number that a child is given. */
const ABOVE = 64;

export interface Spawn {
  /** The file to run; no PATH is looked at. */
  readonly file: string;
  readonly args: readonly string[];
  readonly env: Readonly<Record<string, string>>;
  /** Number in the child to a descriptor of ours, beside the standard ones, which are ours unless given here. */
  readonly fds?: ReadonlyMap<number, number>;
  /** Whether the child begins with every signal blocked; otherwise with none. Handlers are the default ones. */
  readonly blocked: boolean;
}

/** The pid of the started program, or a negative errno: also that of execve(2) in the child. */
export function spawnProgram({ file, args, env, fds = new Map(), blocked }: Spawn): number {
  const strings = [...args, ...Object.entries(env).map(([name, value]) => `${name}=${value}`)];
  const texts = strings.map((text) => Buffer.from(`${text}\0`));
  const length = texts.reduce((sum, text) => sum + text.length, 0);
  // Pointers, NULL after the arguments and after the environment; then what they point at; then the structs.
  const pointers = (strings.length + 2) * 8;
  const structs = (pointers + length + 15) & ~15;
  const { address, bytes, view } = allocatePages(structs + 2048);
  let at = pointers;
  texts.forEach((text, i) => {
    bytes.set(text, at);
    view.setBigUint64((i < args.length ? i : i + 1) * 8, BigInt(address + at), true);
    at += text.length;
  });
  const actions = address + structs;
  const attributes = actions + 512;
  const signals = attributes + 1024;
  const pid = signals + 256;
  actionsInit(actions);
  attributesInit(attributes);
  // Node has marked its own standard streams as close-on-exec.
  const given = new Map([[0, 0], [1, 1], [2, 2], ...fds]);
  const copies = [...given].map(([number, fd]) => [number, fcntlCall(fd, F_DUPFD_CLOEXEC, ABOVE)] as const);
  try {
    for (const [, copy] of copies) if (copy < 0) return copy;
    for (const [number, copy] of copies) addDup(actions, copy, number);
    (blocked ? fillSet : emptySet)(signals);
    setMask(attributes, signals);
    fillSet(signals);
    setDefault(attributes, signals);
    setFlags(attributes, SETSIGDEF | SETSIGMASK);
    const failed = spawnCall(pid, file, actions, attributes, address, address + (args.length + 1) * 8);
    return failed === 0 ? view.getInt32(pid - address, true) : -failed;
  } finally {
    for (const [, copy] of copies) if (copy >= 0) closeCall(copy);
    actionsDestroy(actions);
    attributesDestroy(attributes);
  }
}

/** A child that has ended: as a shell has it in `$?`, 128 and the signal's number where a signal ended it. */
export interface Ended {
  readonly pid: number;
  readonly code: number;
}

/** Memory for the answers, as many as there were waits at a time. */
const answers: Region[] = [];

/** Waits in a thread of Node's pool for a child, or for any with -1. Undefined when there is no such child. */
export async function waitForChild(pid: number): Promise<Ended | undefined> {
  const answer = answers.pop() ?? allocatePages(4096);
  try {
    const ended = await waitCall(pid, answer.address, 0);
    if (ended < 0) return undefined;
    const word = answer.view.getInt32(0, true);
    const signal = word & 0x7f;
    return { pid: ended, code: signal === 0 ? (word >> 8) & 0xff : 128 + signal };
  } finally {
    answers.push(answer);
  }
}
