// Results of system calls as errors, and errors as words.
import { errnoName, errnoText, FsError } from "../base/errno.js";

/** `result` unless it is a negative errno: then FsError. */
export function check(result: number): number {
  if (result < 0) throw new FsError(-result);
  return result;
}

/** A negative errno in words. */
export function textOf(result: number): string {
  return errnoText(errnoName(-result));
}

/** An error at `path`: of an FsError what it says, the errno in words. */
export function at(path: string, cause: unknown): Error {
  if (!(cause instanceof FsError)) return new Error(path, { cause });
  const { message, code } = cause;
  const what = message.endsWith(`: ${code}`) ? message.slice(0, -code.length) : "";
  return new Error(`${path}: ${what}${errnoText(code)}`);
}
