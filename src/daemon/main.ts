// Entry of a detached mount's process. Options come as JSON on descriptor 0; descriptor 3 takes `ready`, or
// `error EXITCODE MESSAGE` and on a second line perhaps a hint, and is then closed; descriptor 4 is a given channel.
// Started by mount.ts; loads no more than serving needs.
import { closeSync, readFileSync, writeSync } from "node:fs";
import { MountFailure, type MountOptions, oneLine } from "./options.js";
import { runMount } from "./process.js";
import { ServingThread } from "./thread.js";

const REPORT_FD = 3;

function report(line: string): void {
  writeSync(REPORT_FD, `${line}\n`);
  closeSync(REPORT_FD);
}

function reportFailure(cause: unknown): void {
  const { exitCode, hint } = cause instanceof MountFailure ? cause : { exitCode: 1, hint: undefined };
  try {
    report(`error ${exitCode} ${oneLine(cause)}${hint === undefined ? "" : `\n${hint}`}`);
  } catch {
    // The parent has gone, or has been told `ready` before.
  }
}

async function endNow(exitCode: number): Promise<void> {
  // Only here does this thread load the C library: the start is not to wait for it.
  const { exitNow } = await import("../sys/process.js");
  exitNow(exitCode);
}

async function main(): Promise<number> {
  const thread = new ServingThread();
  try {
    const options = JSON.parse(readFileSync(0, "utf8")) as MountOptions;
    return await runMount(
      options,
      {
        onReady: () => report("ready"),
        onAbandon: (exitCode, failure) => {
          if (failure !== undefined) reportFailure(failure);
          void endNow(exitCode);
        },
      },
      thread,
    );
  } catch (cause) {
    reportFailure(cause);
    return 1;
  }
}

// A helper thread that still waits for a disk must not keep the process.
void main().then(endNow);
