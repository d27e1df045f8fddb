// Entry of the command line. A mount in the background gets a process of its own.
import { type MountOptions, mountDetached } from "../daemon/mount.js";
import { run } from "./command-line.js";

async function startMount(options: MountOptions): Promise<number> {
  await mountDetached(options);
  return 0;
}

void run(process.argv, startMount).then((exitCode) => {
  process.exitCode = exitCode;
});
