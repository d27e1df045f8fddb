// A mount made in this process, beside work that may still fail: whoever does that has the mount taken away then, or leaves
// the process to it at the end.
import { EventEmitter } from "node:events";
import { exitNow, newSession } from "../sys/process.js";
import { leaveStream } from "./detached.js";
import { type MountOptions, resolveOptions } from "./options.js";
import { runMount, stopSignals } from "./process.js";
import type { ServingThread } from "./thread.js";

export interface LiveMount {
  /** Takes the mount away, and resolves when nothing of it is left. */
  undo(): Promise<void>;
  /**
   * Leaves the caller behind, session, directory and streams: from here on signals end the mount. Resolves to the exit code
   * when that is gone. Before, signals are whoever's that listens to them: none ends the process.
   */
  serve(): Promise<number>;
}

/** Resolves when the mount is live. Rejects with MountFailure; then nothing is mounted. The log must have a file. */
export async function mountHere(options: MountOptions, thread: ServingThread): Promise<LiveMount> {
  const signals = new EventEmitter();
  let serving = false;
  for (const name of stopSignals) process.on(name, () => serving && signals.emit(name, name));
  return new Promise((done, fail) => {
    const ended = runMount(resolveOptions(options), { onReady, onAbandon: exitNow, signals }, thread);
    ended.catch(fail);
    function onReady(): void {
      done({
        async undo() {
          signals.emit("SIGTERM", "SIGTERM");
          await ended.catch(() => {});
        },
        serve() {
          serving = true;
          newSession();
          process.chdir("/");
          for (const fd of [0, 1, 2]) leaveStream(fd);
          return ended;
        },
      });
    }
  });
}
