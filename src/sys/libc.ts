// The C library through koffi. This folder is the only one that imports koffi.
// Every call returns its result, or the negative errno where it failed: nothing here throws on the hot path.
import { createRequire } from "node:module";
import { errnoName, FsError } from "../base/errno.js";

const koffi = createRequire(import.meta.url)("koffi") as typeof import("koffi");
const lib = koffi.load("libc.so.6");
const kept: unknown[] = [];

type Arguments = ReadonlyArray<number | bigint | string | Uint8Array | BigInt64Array | BigUint64Array | null>;

/**
 * Binds a libc function whose result is an int (or int64) with -1 and errno for failure. The wrappers have a fixed
 * number of parameters each, because rest parameters would allocate an array a call.
 */
export function bind<A extends Arguments>(
  name: string,
  result: "int" | "int64_t",
  parameters: readonly string[],
): (...args: A) => number {
  type Call = (a?: unknown, b?: unknown, c?: unknown, d?: unknown, e?: unknown, f?: unknown) => number;
  const call = lib.func(name, result, [...parameters]) as Call;
  const done = (value: number): number => (value < 0 ? -koffi.errno() : value);
  const byArity: readonly Call[] = [
    () => done(call()),
    (a) => done(call(a)),
    (a, b) => done(call(a, b)),
    (a, b, c) => done(call(a, b, c)),
    (a, b, c, d) => done(call(a, b, c, d)),
    (a, b, c, d, e) => done(call(a, b, c, d, e)),
    (a, b, c, d, e, f) => done(call(a, b, c, d, e, f)),
  ];
  return byArity[parameters.length] as unknown as (...args: A) => number;
}

/** Binds a libc function whose result is no errno matter (a pid, an address, a pointer). */
export function bindPlain<A extends Arguments>(
  name: string,
  result: string,
  parameters: readonly string[],
): (...args: A) => number {
  return lib.func(name, result, [...parameters]) as (...args: A) => number;
}

/**
 * As {@link bind}, in a thread of Node's pool: for a call that may never return. What its pointers point at must stay.
 * Node's own end waits for such a call; only {@link ./process.ts exitNow} does not.
 */
export function bindAsync<A extends Arguments>(
  name: string,
  result: "int" | "int64_t",
  parameters: readonly string[],
): (...args: A) => Promise<number> {
  const call = lib.func(name, result, [...parameters]);
  return (...args) =>
    new Promise((done, fail) => {
      call.async(...args, (error: Error | null, value: number) => {
        if (error) fail(error);
        else done(value < 0 ? -koffi.errno() : value);
      });
    });
}

/** errno of the last failed {@link bindPlain} call, positive. */
export function lastErrno(): number {
  return koffi.errno();
}

/** A JavaScript view of `length` bytes of native memory at `address`. The memory must outlive the view. */
export function viewAt(address: number, length: number): ArrayBuffer {
  return koffi.view(BigInt(address), length);
}

/** `result` unless it is a negative errno; then an FsError whose message names `what`. */
export function check(result: number, what: string): number {
  if (result < 0) throw new FsError(-result, what);
  return result;
}

/**
 * Loads a shared library and keeps it: what is loaded later and needs a library of that name (DT_NEEDED against
 * DT_SONAME) gets this one. Throws an Error of dlopen's words.
 */
export function keepLibrary(path: string): void {
  kept.push(koffi.load(path));
}

/** The address of a buffer's first byte, which holds as long as the buffer does and its memory is not moved. */
export function addressOf(bytes: Uint8Array): number {
  return Number(koffi.address(bytes));
}

/** The text of a result that may be a negative errno, for log lines. */
export function resultText(result: number): string {
  return result < 0 ? errnoName(-result) : String(result);
}
