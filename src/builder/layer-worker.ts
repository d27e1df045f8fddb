// The worker thread that converts layers: one task at a time, until it is terminated. Errors cross as their message.
import { parentPort } from "node:worker_threads";
import { type ConvertedLayer, convertLayer, type LayerTask } from "./layer.js";

/** What a worker says; a task ends with `done` or `failed`. */
export type WorkerMessage =
  | { readonly type: "progress"; readonly done: number }
  | { readonly type: "done"; readonly layer: ConvertedLayer }
  | { readonly type: "failed"; readonly message: string };

const progressInterval = 100;

const port = parentPort;
if (port === null) throw new Error("layer-worker runs in a worker thread only");

port.on("message", (task: LayerTask) => {
  const say = (message: WorkerMessage): void => port.postMessage(message);
  let last = performance.now();
  const onProgress = (done: number): void => {
    const now = performance.now();
    if (now - last < progressInterval) return;
    last = now;
    say({ type: "progress", done });
  };
  convertLayer(task, onProgress).then(
    (layer) => say({ type: "done", layer }),
    (cause: unknown) =>
      say({ type: "failed", message: cause instanceof Error ? cause.message : String(cause) }),
  );
});
