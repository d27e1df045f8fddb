// Entry of `create` that bin/imgfs starts: the command line and, where the image's layers are known, the process that serves
// its mount in one, so that Node starts once. The shell in front hands signals on and ends with this process, or with the
// code that it is told when the mount is live.
// Invariant: until the command is done this process does not outlive the shell, whatever that died of: it gets a signal then
// that ends the command as any other does.
import { fileURLToPath } from "node:url";
import type { LiveMount } from "../daemon/here.js";
import type { MountOptions } from "../daemon/options.js";
import { ServingThread } from "../daemon/thread.js";
import { closeInherited } from "./inherited.js";

const SIGTERM = 15;
const TERMINATED = 128 + SIGTERM;

closeInherited(3);
/** The shell: the first word is its pid. */
const front = Number(process.argv.splice(2, 1)[0]);
// Who starts our command line again, for a clean, starts the program that has all commands.
process.argv[1] = fileURLToPath(new URL("./main.js", import.meta.url));

// Before anything else is loaded: the thread loads what serving needs while this one reads the command line.
const thread = new ServingThread();
let live: LiveMount | undefined;

async function mountImage(options: MountOptions): Promise<LiveMount> {
  const { mountHere } = await import("../daemon/here.js");
  live = await mountHere(options, thread);
  // What a program was started with stays in the list of processes as long as it runs.
  process.title = `imgfs ${options.sources.join(" ")} ${options.mountpoint}`;
  const { undo } = live;
  return {
    ...live,
    async undo() {
      live = undefined;
      await undo();
    },
  };
}

/** Says what the command came to, until the shell has gone with it. */
function tell(exitCode: number): void {
  const again = (): void => {
    if (process.ppid !== front) return;
    try {
      process.kill(front, exitCode === 0 ? "SIGUSR1" : "SIGUSR2");
    } catch {
      // It has just gone.
    }
    setTimeout(again, 100);
  };
  again();
}

async function main(): Promise<void> {
  const { exitNow, signalAtParentsEnd } = await import("../sys/process.js");
  signalAtParentsEnd(SIGTERM);
  // It may have died before that.
  if (process.ppid !== front) exitNow(TERMINATED);
  const { run } = await import("./command-line.js");
  const { mountDetached } = await import("../daemon/mount.js");
  const startMount = (options: MountOptions): Promise<number> => mountDetached(options).then(() => 0);
  const exitCode = await run(process.argv, startMount, mountImage);
  if (live === undefined) exitNow(exitCode);
  signalAtParentsEnd(0);
  const ended = live?.serve();
  tell(exitCode);
  exitNow((await ended) ?? 1);
}

void main();
