// A pool of helper threads that its owner can use while it never returns to an event loop: tasks go out over message
// ports, results are taken with receiveMessageOnPort. Threads start when there is work for them and none is free.
// A thread that cannot be started is no failure of a task: its owner then does the work itself. The owner would never
// hear a thread's error event, so while a thread starts the owner looks at times whether it runs, and takes back what it
// has given to one that does not. It does not wait for it: a start takes as long as many requests.
import {
  MessageChannel,
  type MessagePort,
  type ResourceLimits,
  receiveMessageOnPort,
  Worker,
} from "node:worker_threads";
import type { Logger } from "../base/log.js";
import { GIVEN_UP, type HelperData, RUNNING, STARTING, type Task, type TaskDone } from "./job.js";

/** Starting takes some tens of milliseconds; beyond this many something is wrong with the thread. */
const START_LIMIT = 5_000;

/** Tasks allocate little; a large young generation would only fill with what is dead. */
const resourceLimits: ResourceLimits = { maxYoungGenerationSizeMb: 2 };

interface Helper {
  readonly worker: Worker;
  readonly port: MessagePort;
  /** STARTING until makes it RUNNING, or its owner GIVEN_UP. */
  readonly ready: Int32Array<SharedArrayBuffer>;
  readonly startedAt: number;
  /** Tasks it was given while it was starting. */
  given: Task[];
  /** Jobs given and not yet taken back. */
  running: number;
}

export interface PoolOptions {
  /** The module that does the filesystem's own jobs. */
  readonly module?: string | undefined;
  /** Memory of the Counters that take the requests its threads answer. */
  readonly counters?: SharedArrayBuffer;
  /** For an owner that lives in its event loop: it is given every result there, and {@link HelperPool.take} nothing. */
  readonly hear?: (result: TaskDone) => void;
  /** Milliseconds after which a thread that does not run is given up. */
  readonly startLimit?: number;
}

export class HelperPool {
  private readonly helpers: Helper[] = [];
  private limit: number;
  private readonly fd: number;
  private readonly wakeFd: number;
  private readonly log: Logger;
  private readonly more: PoolOptions;
  private readonly startLimit: number;

  /** Helpers answer requests on `fd` and signal `wakeFd`. */
  constructor(limit: number, fd: number, wakeFd: number, log: Logger, more: PoolOptions = {}) {
    this.limit = limit;
    this.fd = fd;
    this.wakeFd = wakeFd;
    this.log = log;
    this.more = more;
    this.startLimit = more.startLimit ?? START_LIMIT;
  }

  /** Jobs given and not yet taken back. */
  get running(): number {
    return this.helpers.reduce((sum, helper) => sum + helper.running, 0);
  }

  /** Gives a task to the least busy thread. False when there is no thread and none can be started. */
  post(task: Task): boolean {
    return this.give(this.choose(), task);
  }

  /** The same without waiting for a thread to start: one that is needed is there for later tasks. */
  postNow(task: Task): boolean {
    const ready = this.helpers.filter(isRunning);
    const idle = ready.find((helper) => helper.running === 0);
    if (idle === undefined && ready.length === this.helpers.length && ready.length < this.limit) this.start();
    return this.give(idle ?? leastBusy(ready), task);
  }

  private give(helper: Helper | undefined, task: Task): boolean {
    if (helper === undefined) return false;
    if (task.kind === "job") helper.running++;
    if (!isRunning(helper)) helper.given.push(task);
    helper.port.postMessage(task);
    return true;
  }

  /** Whether a thread that has tasks is not running yet: then {@link takeBack} is to be called at times. */
  get starting(): boolean {
    return this.helpers.some((helper) => helper.given.length > 0);
  }

  /** Gives back the tasks of threads that have not started in time, which will never do them. */
  takeBack(): Task[] {
    const back: Task[] = [];
    for (const helper of [...this.helpers]) {
      if (isRunning(helper)) helper.given = [];
      else if (performance.now() - helper.startedAt > this.startLimit && this.giveUp(helper))
        back.push(...helper.given);
    }
    return back;
  }

  /** False when the thread runs after all. */
  private giveUp(helper: Helper): boolean {
    if (Atomics.compareExchange(helper.ready, 0, STARTING, GIVEN_UP) !== STARTING) return false;
    // Never terminate(): it may be inside the C library. It ends by itself should it get that far.
    letEnd(helper);
    this.helpers.splice(this.helpers.indexOf(helper), 1);
    this.failedToStart(new Error(`not running after ${this.startLimit} ms`));
    return true;
  }

  /** Calls `done` for every job that has ended since the last call. */
  take(done: (result: TaskDone) => void): void {
    for (const helper of this.helpers) {
      for (;;) {
        const received = receiveMessageOnPort(helper.port) as { message: TaskDone } | undefined;
        if (received === undefined) break;
        helper.running--;
        done(received.message);
      }
    }
  }

  /** Lets every thread end after the tasks it has. */
  stop(): void {
    for (const helper of this.helpers) letEnd(helper);
    this.helpers.length = 0;
  }

  private listen(helper: Helper, hear: (result: TaskDone) => void): void {
    helper.port.on("message", (result: TaskDone) => {
      helper.running--;
      hear(result);
    });
  }

  private choose(): Helper | undefined {
    const idle = this.helpers.find((helper) => helper.running === 0);
    if (idle !== undefined) return idle;
    if (this.helpers.length < this.limit) {
      const started = this.start();
      if (started !== undefined && (this.more.hear === undefined || this.waitFor(started))) return started;
    }
    return leastBusy(this.helpers);
  }

  /** For an owner that does not look at times. */
  private waitFor(helper: Helper): boolean {
    return Atomics.wait(helper.ready, 0, STARTING, this.startLimit) !== "timed-out" || !this.giveUp(helper);
  }

  private failedToStart(error: unknown): void {
    this.limit = this.helpers.length;
    this.log.error("cannot start a helper thread; its work will hold up other requests", { error });
  }

  private start(): Helper | undefined {
    const { port1, port2 } = new MessageChannel();
    const ready = new Int32Array(new SharedArrayBuffer(4));
    const { fd, wakeFd, more } = this;
    const { module, counters } = more;
    const data: HelperData = { fd, wakeFd, port: port2, running: ready, module, counters };
    try {
      const worker = new Worker(new URL("./helper.js", import.meta.url), {
        workerData: data,
        transferList: [port2],
        execArgv: [],
        resourceLimits,
      });
      // Heard only once the owner is back in its event loop; unheard it would end the owner.
      worker.on("error", (error) => this.log.error("a helper thread failed", { error }));
      const startedAt = performance.now();
      const helper: Helper = { worker, port: port1, ready, startedAt, given: [], running: 0 };
      if (this.more.hear !== undefined) this.listen(helper, this.more.hear);
      port1.unref();
      this.helpers.push(helper);
      return helper;
    } catch (error) {
      port1.close();
      this.failedToStart(error);
      return undefined;
    }
  }
}

function isRunning({ ready }: Helper): boolean {
  return Atomics.load(ready, 0) === RUNNING;
}

/** Lets a thread end after the tasks it has. */
function letEnd({ port, worker }: Helper): void {
  port.postMessage({ kind: "stop" } satisfies Task);
  worker.unref();
}

function leastBusy(helpers: readonly Helper[]): Helper | undefined {
  return [...helpers].sort((a, b) => a.running - b.running)[0];
}
