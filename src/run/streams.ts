// The standard streams are the command's: those who stay beside it let go of them, and write with writeSync alone,
// because Node's own streams would change how a pipe behaves for everybody who has it.
import { closeSync, openSync, readSync, writeSync } from "node:fs";
import { RunFailure } from "./request.js";

/** Has /dev/null in place of standard input and output, so that who reads the command's output sees its end. */
export function releaseStreams(fds: readonly number[] = [0, 1]): void {
  for (const fd of fds) {
    try {
      closeSync(fd);
    } catch {
      // It was closed from the start.
    }
    // open(2) takes the lowest number that is free.
    openSync("/dev/null", "r+");
  }
}

export function tellFailure(cause: unknown): number {
  const { message, hint, exitCode } =
    cause instanceof RunFailure
      ? cause
      : { message: cause instanceof Error ? cause.message : String(cause), hint: undefined, exitCode: 125 };
  try {
    writeSync(2, `imgfs: run: ${message}\n${hint === undefined ? "" : `hint: ${hint}\n`}`);
  } catch {
    // Nobody reads stderr.
  }
  return exitCode;
}

/** One line of a descriptor, read a byte at a time so that what follows stays there. Empty at the end. */
export function readLine(fd: number): string {
  const bytes: number[] = [];
  const one = Buffer.alloc(1);
  while (readSync(fd, one, 0, 1, null) === 1) {
    if (one[0] === 10) break;
    bytes.push(one[0] as number);
  }
  return Buffer.from(bytes).toString();
}
