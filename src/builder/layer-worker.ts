// The worker thread that converts layers: one task at a time, until it is told to end. Errors cross as their message.
// workerData is shared with pool.ts: a thread in the middle of a conversion hears no message.
import { availableParallelism, constants } from "node:os";
import { parentPort, workerData } from "node:worker_threads";
import { type ConvertedLayer, convertLayer, type LayerTask } from "./layer.js";
import { Shared, Stopped } from "./shared.js";

/** What a worker says; a task ends with `done` or `failed`. */
export type WorkerMessage =
  | { readonly type: "progress"; readonly done: number }
  | { readonly type: "warning"; readonly message: string }
  | { readonly type: "done"; readonly layer: ConvertedLayer }
  /** `isDamage` where the bytes are to blame, and not the disk or whoever ended the conversion. */
  | { readonly type: "failed"; readonly message: string; readonly isDamage: boolean };

export type WorkerRequest = { readonly type: "convert"; readonly task: LayerTask } | { readonly type: "end" };

const progressInterval = 100;

const port = parentPort;
if (port === null) throw new Error("layer-worker runs in a worker thread only");

const shared = workerData as Int32Array;
const isStopped = (): boolean => Atomics.load(shared, Shared.stop) !== 0;
const cores = availableParallelism();
/** A conversion uses two cores where there are two for each. */
const isCoreIdle = (): boolean => 2 * Atomics.load(shared, Shared.running) <= cores;

port.on("message", (request: WorkerRequest) => {
  if (request.type === "end") {
    port.close();
    return;
  }
  const say = (message: WorkerMessage): void => port.postMessage(message);
  let last = performance.now();
  const onProgress = (done: number): void => {
    const now = performance.now();
    if (now - last < progressInterval) return;
    last = now;
    say({ type: "progress", done });
  };
  const onWarning = (message: string): void => say({ type: "warning", message });
  convertLayer(request.task, { onProgress, onWarning, isStopped, isCoreIdle }).then(
    (layer) => say({ type: "done", layer }),
    (cause: unknown) =>
      say({
        type: "failed",
        message: cause instanceof Error ? cause.message : String(cause),
        isDamage: isDamage(cause),
      }),
  );
});

function isDamage(cause: unknown): boolean {
  const { code = "" } = cause as NodeJS.ErrnoException;
  return !(cause instanceof Stopped) && !(code in constants.errno);
}
