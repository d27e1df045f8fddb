// The thread that serves a mount, seen from the main thread. It may be started before the options are known: it loads
// what serving needs meanwhile.
import { Worker } from "node:worker_threads";
import type { WorkerData, WorkerMessage } from "./protocol.js";

export class ServingThread {
  // Streams of its own: those of the process would become non-blocking, for everybody who has the same pipe.
  private readonly worker = new Worker(new URL("./worker.js", import.meta.url), {
    execArgv: [],
    stdout: true,
    stderr: true,
  });
  private readonly ended: Promise<void>;
  private crash: unknown;

  constructor() {
    this.worker.on("error", (error) => {
      this.crash = error;
    });
    this.ended = new Promise((done) => {
      this.worker.on("exit", (code) => {
        if (code !== 0) this.crash ??= new Error(`the serving thread ended with ${code}`);
        done();
      });
    });
  }

  /** Lets it end without a mount. */
  dismiss(): void {
    this.worker.postMessage(undefined);
  }

  /** Has it mount and serve; resolves when it has ended, to what it threw, if anything. Called once. */
  async serve(data: WorkerData, onMessage: (message: WorkerMessage) => void): Promise<unknown> {
    this.worker.on("message", onMessage);
    this.worker.postMessage(data);
    await this.ended;
    return this.crash;
  }
}
