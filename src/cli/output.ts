// Data goes to stdout, everything else to stderr. With --json a result is one JSON object with a schemaVersion.
import { writeSync } from "node:fs";

export const schemaVersion = 1;

/** The reader of stdout has gone: nothing is left to do, and that is no failure. */
export class ClosedPipe extends Error {}

/** Writes all of it, also into a pipe that takes less at a time. */
function writeAll(fd: number, data: string | Uint8Array): void {
  let rest = typeof data === "string" ? Buffer.from(data) : data;
  while (rest.length > 0) {
    try {
      rest = rest.subarray(writeSync(fd, rest));
    } catch (cause) {
      const { code } = cause as NodeJS.ErrnoException;
      if (code === "EPIPE") throw new ClosedPipe();
      if (code === "EBADF") throw new Error("standard output is closed");
      if (code !== "EAGAIN") throw cause;
      Atomics.wait(new Int32Array(new SharedArrayBuffer(4)), 0, 0, 1);
    }
  }
}

export function print(data: string | Uint8Array): void {
  writeAll(1, data);
}

export function printError(text: string): void {
  writeQuietly(2, text);
}

/** Writes a line of a log: that it cannot be written is no failure of what it tells about. */
function writeQuietly(fd: number, text: string): void {
  try {
    writeAll(fd, text);
  } catch {
    // Nobody reads it: there is no place left to say so.
  }
}

/** Prints a result as JSON, or as the text `format` makes of it. */
export function printResult<T extends object>(value: T, json: boolean, format: (value: T) => string): void {
  print(json ? `${JSON.stringify({ schemaVersion, ...value }, undefined, 2)}\n` : format(value));
}

/** A byte count for people: 1024-based, three digits. */
export function formatBytes(bytes: number): string {
  const units = ["B", "KiB", "MiB", "GiB", "TiB"];
  let value = bytes;
  let unit = 0;
  while (value >= 1024 && unit < units.length - 1) {
    value /= 1024;
    unit += 1;
  }
  if (unit === 0) return `${value} B`;
  return `${value >= 1000 ? Math.round(value) : value.toPrecision(3)} ${units[unit]}`;
}

/** Text that another process gave, fit for a terminal: no control characters. */
export function visible(text: string): string {
  return text.replace(/\p{Cc}/gu, "?");
}

/** `count` with the noun it counts. */
export function plural(count: number, one: string, many = `${one}s`): string {
  return `${count} ${count === 1 ? one : many}`;
}

/** Rows of cells as left-aligned columns two spaces apart. */
export function table(rows: readonly (readonly string[])[]): string {
  const widths: number[] = [];
  for (const row of rows) {
    for (const [i, cell] of row.entries()) widths[i] = Math.max(widths[i] ?? 0, cell.length);
  }
  return rows
    .map((row) =>
      row.map((cell, i) => (i === row.length - 1 ? cell : cell.padEnd(widths[i] ?? 0))).join("  "),
    )
    .map((line) => `${line}\n`)
    .join("");
}
