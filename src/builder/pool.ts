// Layers in parallel: a few worker threads take tasks, the largest first, so that the longest one does not start last.
// Invariant: when the promise settles no worker is alive, so nothing can write to a task's target any more.
// Never: Worker.terminate(). A thread that is ended inside a call of the C library takes the whole process with it.
import { Worker, type WorkerOptions } from "node:worker_threads";
import type { ImageSource } from "../oci/source.js";
import { FeedWriter } from "./feed.js";
import type { ConvertedLayer, LayerTask, Watch } from "./layer.js";
import type { WorkerMessage, WorkerRequest } from "./layer-worker.js";
import { Shared } from "./shared.js";

/**
 * Flags of this process, such as --input-type, may not suit a file. Most of what a worker allocates dies young; a
 * small young generation keeps it from piling up in every worker.
 */
const baseOptions: WorkerOptions = { execArgv: [], resourceLimits: { maxYoungGenerationSizeMb: 16 } };

/** A layer that is not what it should be: its bytes, or what is in them. */
export class LayerDamage extends Error {}

export interface PoolOptions {
  /** Workers at most; never more than there are tasks. */
  readonly jobs: number;
  readonly signal: AbortSignal | undefined;
  /** Opens the bytes of a remote layer. */
  readonly fetch?: ImageSource["fetch"] | undefined;
  /** Those that were started before; they are ended in any case. */
  readonly threads?: Threads | undefined;
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
  fault: (task: number, cause: Error) => Error,
  options: PoolOptions,
): Promise<ConvertedLayer[]> {
  options.signal?.throwIfAborted();
  const queue = tasks.map((_, i) => i).sort((a, b) => sizeOf(tasks, b) - sizeOf(tasks, a));
  const results: ConvertedLayer[] = [];
  const { threads = new Threads(0) } = options;
  const { shared } = threads;
  const feeds = new Set<Feed>();
  let stop: (reason: unknown) => void = () => {};
  const stopped = new Promise<never>((_, reject) => {
    stop = reject;
  });
  stopped.catch(() => {});
  const onAbort = (): void => stop(options.signal?.reason);
  options.signal?.addEventListener("abort", onAbort);

  const work = async (): Promise<void> => {
    const worker = threads.take();
    for (let task = queue.shift(); task !== undefined; task = queue.shift()) {
      const index = task;
      options.onStart(index);
      Atomics.add(shared, Shared.running, 1);
      const hooks = {
        onProgress: (done: number) => options.onProgress(index, done),
        onWarning: (message: string) => options.onWarning(index, message),
      };
      const feed = Feed.of(tasks[index] as LayerTask, options.fetch);
      if (feed !== undefined) feeds.add(feed);
      const converting = runTask(worker, feed?.task ?? (tasks[index] as LayerTask), hooks);
      const layer = await (feed?.result(converting) ?? converting).catch((cause: Error) => {
        throw fault(index, cause);
      });
      if (feed !== undefined) feeds.delete(feed);
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
    for (const feed of feeds) feed.stop();
    await threads.end();
    await Promise.all([...feeds].map((feed) => feed.ended));
  }
}

/** The threads of a conversion. `end` is for whoever has made them and has not handed them to convertAll. */
export class Threads {
  /** What the workers share, see shared.ts. */
  readonly shared: Int32Array = new Int32Array(new SharedArrayBuffer(4 * Shared.length));
  private readonly workers: Worker[] = [];
  private readonly waiting: Worker[] = [];
  private readonly exits: Promise<unknown>[] = [];

  /** Starts `count` of them before there is work: while a registry is asked a core has nothing else to do. */
  constructor(count: number) {
    for (let i = 0; i < count; i++) this.waiting.push(this.start());
  }

  /** One that lives: where it could not even start, the one that is started now tells its user so. */
  take(): Worker {
    for (let worker = this.waiting.shift(); worker !== undefined; worker = this.waiting.shift()) {
      if (worker.threadId !== -1) return worker;
    }
    return this.start();
  }

  /** Stops every conversion at its next piece, and resolves when no worker is alive. */
  async end(): Promise<void> {
    Atomics.store(this.shared, Shared.stop, 1);
    for (const worker of this.workers.splice(0)) worker.postMessage({ type: "end" } satisfies WorkerRequest);
    await Promise.all(this.exits);
  }

  private start(): Worker {
    const worker = new Worker(new URL("./layer-worker.js", import.meta.url), {
      ...baseOptions,
      workerData: this.shared,
    });
    worker.on("error", () => {});
    this.workers.push(worker);
    this.exits.push(new Promise((exited) => worker.once("exit", exited)));
    return worker;
  }
}

/** A remote layer on its way to the worker that converts it. */
class Feed {
  readonly task: LayerTask;
  /** Settles when nothing is received any more. */
  readonly ended: Promise<void>;
  private readonly writer = new FeedWriter();
  private readonly abort = new AbortController();
  private failure: Error | undefined;

  static of(task: LayerTask, fetch: PoolOptions["fetch"]): Feed | undefined {
    const { bytes } = task.source;
    if (bytes.kind !== "remote" || fetch === undefined) return undefined;
    return new Feed(task, (signal) => fetch(bytes, signal));
  }

  private constructor(task: LayerTask, open: (signal: AbortSignal) => AsyncIterable<Uint8Array>) {
    this.task = { ...task, feed: this.writer.shared };
    this.ended = this.receive(open);
  }

  private async receive(open: (signal: AbortSignal) => AsyncIterable<Uint8Array>): Promise<void> {
    try {
      for await (const piece of open(this.abort.signal)) await this.writer.write(piece);
      this.writer.end();
    } catch (cause) {
      // What is thrown after stop() says no more than that.
      if (!this.abort.signal.aborted) this.failure = cause as Error;
      this.writer.fail();
    }
  }

  stop(): void {
    this.abort.abort();
    this.writer.fail();
  }

  /** What comes of the task; a failure to receive counts before what the worker then says. */
  async result(converting: Promise<ConvertedLayer>): Promise<ConvertedLayer> {
    try {
      const layer = await converting;
      await this.ended;
      return layer;
    } catch (cause) {
      this.stop();
      await this.ended;
      throw this.failure ?? cause;
    }
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
      else reject(new (message.isDamage ? LayerDamage : Error)(message.message));
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
