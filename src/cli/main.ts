// Entry of the command line. A mount in the background gets a process of its own.
import { type MountOptions, mountDetached } from "../daemon/mount.js";
import { run } from "./command-line.js";

async function startMount(options: MountOptions): Promise<number> {
  await mountDetached(options);
  return 0;
}

void run(process.argv, startMount).then(async (exitCode) => {
  // Everything is printed. Node's own end waits for threads: one of ours may be in a call to a mount that hangs, and one of
  // its compiler's may be waiting for the main thread (nodejs/node issue 54918).
  const { exitNow } = await import("../sys/process.js");
  exitNow(exitCode);
});
