// Layers in parallel: a few worker threads take tasks, the largest first, so that the longest one does not start last.
// Invariant: when the promise settles no worker is alive, so nothing can write to a task's target any more.
// Never: Worker.terminate(). A thread that is ended inside a call of the C library takes the whole process with it.
import { Worker, type WorkerOptions } from "node:worker_threads";
import type { ConvertedLayer, LayerTask, Watch } from "./layer.js";
import type { WorkerMessage, WorkerRequest } from "./layer-worker.js";
import { Shared } from "./shared.js";

/**
 * Flags of this process, such as --input-type, may not suit a file. Most of what a worker allocates dies young; a
 * small young generation keeps it from piling up in every worker.
 */
const baseOptions: WorkerOptions = { execArgv: [], resourceLimits: { maxYoungGenerationSizeMb: 16 } };

export interface PoolOptions {
  /** Workers at most; never more than there are tasks. */
  readonly jobs: number;
  readonly signal: AbortSignal | undefined;
  readonly onStart: (task: number) => void;
  /** Source bytes read so far; at most ten a second for each task. */
  readonly onProgress: (task: number, done: number) => void;
  readonly onWarning: (task: number, message: string) => void;
  readonly onDone: (task: number, layer: ConvertedLayer) => void;
}

/**
 * Converts all tasks; the result has their order. The first failure, or the signal, ends every worker and rejects.
 * `fault` makes the Error of a task that failed.
 */
export async function convertAll(
  tasks: readonly LayerTask[],
  fault: (task: number, message: string) => Error,
  options: PoolOptions,
): Promise<ConvertedLayer[]> {
  options.signal?.throwIfAborted();
  const queue = tasks.map((_, i) => i).sort((a, b) => sizeOf(tasks, b) - sizeOf(tasks, a));
  const results: ConvertedLayer[] = [];
  const workers: Worker[] = [];
  const exits: Promise<unknown>[] = [];
  const shared = new Int32Array(new SharedArrayBuffer(4 * Shared.length));
  let stop: (reason: unknown) => void = () => {};
  const stopped = new Promise<never>((_, reject) => {
    stop = reject;
  });
  stopped.catch(() => {});
  const onAbort = (): void => stop(options.signal?.reason);
  options.signal?.addEventListener("abort", onAbort);

  const work = async (): Promise<void> => {
    const worker = new Worker(new URL("./layer-worker.js", import.meta.url), {
      ...baseOptions,
      workerData: shared,
    });
    workers.push(worker);
    exits.push(new Promise((exited) => worker.once("exit", exited)));
    for (let task = queue.shift(); task !== undefined; task = queue.shift()) {
      const index = task;
      options.onStart(index);
      Atomics.add(shared, Shared.running, 1);
      const layer = await runTask(worker, tasks[index] as LayerTask, {
        onProgress: (done) => options.onProgress(index, done),
        onWarning: (message) => options.onWarning(index, message),
      }).catch((cause: Error) => {
        throw fault(index, cause.message);
      });
      Atomics.sub(shared, Shared.running, 1);
      results[index] = layer;
      options.onDone(index, layer);
    }
  };
  try {
    const count = Math.max(1, Math.min(options.jobs, tasks.length));
    const running = Array.from({ length: count }, work);
    await Promise.race([Promise.all(running), stopped]);
    return results;
  } finally {
    options.signal?.removeEventListener("abort", onAbort);
    Atomics.store(shared, Shared.stop, 1);
    for (const worker of workers) {
      // A worker that fails while it ends has nothing left to tell.
      worker.on("error", () => {});
      worker.postMessage({ type: "end" } satisfies WorkerRequest);
    }
    await Promise.all(exits);
  }
}

function sizeOf(tasks: readonly LayerTask[], index: number): number {
  return tasks[index]?.source.bytes.size ?? 0;
}

function runTask(
  worker: Worker,
  task: LayerTask,
  hooks: Pick<Watch, "onProgress" | "onWarning">,
): Promise<ConvertedLayer> {
  return new Promise((resolve, reject) => {
    const onMessage = (message: WorkerMessage): void => {
      if (message.type === "progress") {
        hooks.onProgress(message.done);
        return;
      }
      if (message.type === "warning") {
        hooks.onWarning(message.message);
        return;
      }
      settle();
      if (message.type === "done") resolve(message.layer);
      else reject(new Error(message.message));
    };
    const onError = (cause: unknown): void => {
      settle();
      reject(cause instanceof Error ? cause : new Error(String(cause)));
    };
    const onExit = (): void => onError(new Error("the worker thread ended early"));
    const settle = (): void => {
      worker.off("message", onMessage).off("error", onError).off("exit", onExit);
    };
    worker.on("message", onMessage).on("error", onError).on("exit", onExit);
    worker.postMessage({ type: "convert", task } satisfies WorkerRequest);
  });
}
