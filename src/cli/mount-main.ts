// Entry of a mount in the background that bin/imgfs starts: the command line and the process that serves in one, so that
// Node starts once. Descriptor 3 takes the command's exit code, when the mount is live or when there will be none.
import { closeSync, writeSync } from "node:fs";
import type { MountOptions } from "../daemon/options.js";
import { ServingThread } from "../daemon/thread.js";
import { closeInherited } from "./inherited.js";

const REPORT_FD = 3;

closeInherited(REPORT_FD + 1);

// Before anything else is loaded: the thread loads what serving needs while this one reads the command line.
const thread = new ServingThread();
let reported = false;

function report(exitCode: number): void {
  if (reported) return;
  reported = true;
  try {
    writeSync(REPORT_FD, String(exitCode));
    closeSync(REPORT_FD);
  } catch {
    // Whoever waited has gone; the mount goes on.
  }
}

async function serve(options: MountOptions): Promise<number> {
  const { serveDetached } = await import("../daemon/detached.js");
  return serveDetached(options, thread, () => report(0));
}

async function main(): Promise<void> {
  const { run } = await import("./command-line.js");
  const exitCode = await run(process.argv, serve);
  report(exitCode);
  // The thread may still wait for a message or a disk.
  const { exitNow } = await import("../sys/process.js");
  exitNow(exitCode);
}

void main();
