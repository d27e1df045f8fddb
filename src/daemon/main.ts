// Entry of a detached mount's process. Options come as JSON on descriptor 0; descriptor 3 takes one line, `ready` or
// `error EXITCODE MESSAGE`, and is then closed. Started by mount.ts; loads no more than serving needs.
import { closeSync, readFileSync, writeSync } from "node:fs";
import { MountFailure, type MountOptions, oneLine } from "./options.js";
import { runMount } from "./process.js";
import { ServingThread } from "./thread.js";

const REPORT_FD = 3;

function report(line: string): void {
  writeSync(REPORT_FD, `${line}\n`);
  closeSync(REPORT_FD);
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
        onAbandon: (exitCode) => void endNow(exitCode),
      },
      thread,
    );
  } catch (cause) {
    try {
      report(`error ${cause instanceof MountFailure ? cause.exitCode : 1} ${oneLine(cause)}`);
    } catch {
      // The parent has gone, or has been told `ready` before.
    }
    return 1;
  }
}

// A helper thread that still waits for a disk must not keep the process.
void main().then(endNow);
