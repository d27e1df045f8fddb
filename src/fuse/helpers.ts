// A pool of helper threads that its owner can use while it never returns to an event loop: tasks go out over message
// ports, results are taken with receiveMessageOnPort. Threads start when there is work for them and none is free.
// A thread that cannot be started is no failure of a task: its owner then does the work itself. The owner would never
// hear a thread's error event, so it waits, once for each thread, until the thread has said that it runs.
import { MessageChannel, type MessagePort, receiveMessageOnPort, Worker } from "node:worker_threads";
import type { Logger } from "../base/log.js";
import type { HelperData, Task, TaskDone } from "./job.js";

/** Starting takes some tens of milliseconds; beyond this many something is wrong with the thread. */
const START_LIMIT = 5_000;

interface Helper {
  readonly worker: Worker;
  readonly port: MessagePort;
  /** Jobs given and not yet taken back. */
  running: number;
}

export class HelperPool {
  private readonly helpers: Helper[] = [];
  private limit: number;
  private readonly fd: number;
  private readonly wakeFd: number;
  private readonly log: Logger;
  private readonly hear: ((result: TaskDone) => void) | undefined;

  /**
   * Helpers answer requests on `fd` and signal `wakeFd`. With `hear` the owner lives in its event loop: it is given
   * every result there, and {@link take} nothing.
   */
  constructor(limit: number, fd: number, wakeFd: number, log: Logger, hear?: (result: TaskDone) => void) {
    this.limit = limit;
    this.fd = fd;
    this.wakeFd = wakeFd;
    this.log = log;
    this.hear = hear;
  }

  /** Jobs given and not yet taken back. */
  get running(): number {
    return this.helpers.reduce((sum, helper) => sum + helper.running, 0);
  }

  /** Gives a task to the least busy thread. False when there is no thread and none can be started. */
  post(task: Task): boolean {
    const helper = this.choose();
    if (helper === undefined) return false;
    if (task.kind === "job") helper.running++;
    helper.port.postMessage(task);
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
    for (const { port, worker } of this.helpers) {
      port.postMessage({ kind: "stop" } satisfies Task);
      worker.unref();
    }
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
      if (started !== undefined) return started;
    }
    return [...this.helpers].sort((a, b) => a.running - b.running)[0];
  }

  private start(): Helper | undefined {
    const { port1, port2 } = new MessageChannel();
    const running = new Int32Array(new SharedArrayBuffer(4));
    const data: HelperData = { fd: this.fd, wakeFd: this.wakeFd, port: port2, running };
    try {
      const worker = new Worker(new URL("./helper.js", import.meta.url), {
        workerData: data,
        transferList: [port2],
        execArgv: [],
      });
      // Heard only once the owner is back in its event loop; unheard it would end the owner.
      worker.on("error", (error) => this.log.error("a helper thread failed", { error }));
      if (Atomics.wait(running, 0, 0, START_LIMIT) === "timed-out") {
        void worker.terminate();
        throw new Error(`not running after ${START_LIMIT} ms`);
      }
      const helper: Helper = { worker, port: port1, running: 0 };
      if (this.hear !== undefined) this.listen(helper, this.hear);
      port1.unref();
      this.helpers.push(helper);
      return helper;
    } catch (error) {
      port1.close();
      this.limit = this.helpers.length;
      this.log.error("cannot start a helper thread; its work will hold up other requests", { error });
      return undefined;
    }
  }
}
