// Replies that come later, for the fuse-native transport: each request holds one of libfuse's threads until it is
// answered, so a request that is suspended is kept as what serves it again, and nothing else has to wait.
// Invariants: requests on one key are served again in the order they came; results are heard in the thread that serves.
import { Errno } from "../../base/errno.js";
import type { Logger } from "../../base/log.js";
import { closeFd } from "../../sys/files.js";
import { createEventFd } from "../../sys/poll.js";
import { HelperPool } from "../helpers.js";
import { runJob, type TaskDone } from "../job.js";
import { type Job, type Request, type Services, type Status, SUSPENDED } from "../operations.js";

const JOB_THREADS = 4;
/** How long the end of a mount waits for work under way, in milliseconds. */
const DRAIN_LIMIT = 30_000;

/** One request: `run` serves it from its start, `answer` ends it. */
export interface Attempt {
  run(): void;
  answer(status: Status): void;
}

interface Held {
  readonly key: number;
  readonly done: (status: Status) => void;
  readonly waiting: Attempt[];
}

export class NativeServices implements Services {
  /** The request that the filesystem is being asked. */
  current: Attempt | undefined;
  private readonly log: Logger;
  private readonly jobs: HelperPool;
  private readonly wakeFd: number = createEventFd();
  private readonly byKey = new Map<number, Held>();
  private readonly byId = new Map<number, Held>();
  private readonly offloaded = new Map<number, Attempt>();
  private drained: (() => void) | undefined;
  private nextId = 1;

  constructor(log: Logger) {
    this.log = log;
    // No descriptor to answer on, and nobody polls the eventfd: results are heard as messages.
    this.jobs = new HelperPool(JOB_THREADS, -1, this.wakeFd, log, { hear: (result) => this.hear(result) });
  }

  offload(_q: Request, job: Job): Status {
    const id = this.nextId++;
    if (!this.jobs.post({ kind: "job", id, job, unique: 0 })) return runJob(job);
    this.offloaded.set(id, this.current as Attempt);
    return SUSPENDED;
  }

  suspend(_q: Request, key: number, job: Job, done: (status: Status) => void): Status {
    const holder = this.byKey.get(key);
    const held: Held = holder ?? { key, done, waiting: [] };
    held.waiting.push(this.current as Attempt);
    if (holder !== undefined) return SUSPENDED;
    const id = this.nextId++;
    this.byKey.set(key, held);
    this.byId.set(id, held);
    if (!this.jobs.post({ kind: "job", id, job, unique: 0 })) {
      const status = runJob(job);
      setImmediate(() => this.hear({ id, status }));
    }
    return SUSPENDED;
  }

  suspendBehind(_q: Request, key: number): Status | undefined {
    const held = this.byKey.get(key);
    if (held === undefined) return undefined;
    held.waiting.push(this.current as Attempt);
    return SUSPENDED;
  }

  /** libfuse would tell by a signal to a thread that is not this one. */
  interrupted(_unique: number): boolean {
    return false;
  }

  /** Attributes of a writable mount are not kept by the kernel; pages cannot be named to it from here. */
  invalidateInode(_nodeid: number, offset: number, _length: number): Status {
    return offset < 0 ? 0 : -Errno.ENOSYS;
  }

  invalidateEntry(_parent: number, _name: Uint8Array): Status {
    return -Errno.ENOSYS;
  }

  /** Waits for the work under way and lets the threads end. */
  async close(): Promise<void> {
    if (this.jobs.running > 0) {
      let timer: NodeJS.Timeout | undefined;
      await new Promise<void>((done) => {
        this.drained = done;
        timer = setTimeout(done, DRAIN_LIMIT);
      });
      clearTimeout(timer);
    }
    const { running } = this.jobs;
    this.jobs.stop();
    if (running > 0) this.log.error("gave up waiting for work under way", { jobs: running });
    else closeFd(this.wakeFd);
  }

  private hear({ id, status }: TaskDone): void {
    const attempt = this.offloaded.get(id);
    this.offloaded.delete(id);
    attempt?.answer(status);
    const held = this.byId.get(id);
    if (held !== undefined) this.finish(id, held, status);
    if (this.jobs.running === 0) this.drained?.();
  }

  private finish(id: number, held: Held, status: Status): void {
    this.byId.delete(id);
    this.byKey.delete(held.key);
    try {
      held.done(status);
    } catch (error) {
      this.log.error("unexpected error after a job", { error });
    }
    for (const attempt of held.waiting) {
      // One of those served before may hold the key anew: then the rest waits for that, in order.
      const holder = this.byKey.get(held.key);
      if (holder === undefined) attempt.run();
      else holder.waiting.push(attempt);
    }
  }
}
