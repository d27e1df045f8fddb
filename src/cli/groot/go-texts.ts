// Texts that come from Go's standard library and from the library that reads GrootFS's command line.
import { getSystemErrorMap } from "node:util";

/** What an `*os.PathError` says: `open /x: no such file or directory`. */
export function goPathError(operation: string, path: string, cause: unknown): string {
  const { errno } = cause as NodeJS.ErrnoException;
  const known = errno === undefined ? undefined : getSystemErrorMap().get(errno);
  const text = known?.[1] ?? (cause instanceof Error ? cause.message : String(cause));
  const shown = { "illegal operation on a directory": "is a directory" }[text] ?? text;
  return `${known?.[0] === "EISDIR" ? "read" : operation} ${path}: ${shown}`;
}

/** A whole number as strconv.ParseInt takes it with base 0, within 64 bits; undefined for anything else. */
export function goInt64(text: string): bigint | undefined {
  const match = /^([+-]?)(0[xX][0-9a-fA-F]+|0[bB][01]+|0[oO]?[0-7]+|[1-9][0-9]*|0)$/.exec(text);
  if (match === null) return undefined;
  const digits = (match[2] as string).replace(/^0(?=[0-7])/, "0o");
  const value = match[1] === "-" ? -BigInt(digits) : BigInt(digits);
  return BigInt.asIntN(64, value) === value ? value : undefined;
}
