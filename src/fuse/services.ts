// Replies that come later: requests handed to helper threads, and requests that wait for such work and are then served
// again from their start.
// Invariants: a suspended request is kept as a copy of its message; requests on one key are served again in the order
// they came; a completion is taken only between two requests, in the session's thread.
// The loop learns of completions through an eventfd. It polls that beside the device only while a suspended request
// exists, so all other traffic pays nothing, and nothing is lost: the eventfd stays readable until it is cleared, and it
// is cleared before the results are taken.
import { availableParallelism } from "node:os";
import { Errno } from "../base/errno.js";
import type { Logger } from "../base/log.js";
import { closeFd } from "../sys/files.js";
import { clearEventFd, createEventFd, createPoll, type Poll, signalEventFd } from "../sys/poll.js";
import type { Counters } from "./counters.js";
import { HelperPool } from "./helpers.js";
import { runAnyJob, type Task, type TaskDone, type Timed } from "./job.js";
import { createNotifier, type Notifier } from "./notify.js";
import {
  type Job,
  type JobResult,
  type Request,
  type Services,
  type Status,
  SUSPENDED,
} from "./operations.js";
import type { Exchange } from "./wire.js";

const JOB_THREADS = 4;
/** For jobs that take about as long as a read; the thread that serves requests keeps a core busy itself. */
const SHORT_JOB_THREADS = Math.max(1, Math.min(4, availableParallelism() - 1));
/** How long the end of a session waits for work under way, in milliseconds. */
const DRAIN_LIMIT = 30_000;
/** Longest name of an invalidation (FUSE_NAME_MAX before Linux 6.13). */
const NAME_LIMIT = 1024;
/** How often the loop looks whether a thread has started, in milliseconds. */
const START_CHECK = 500;

interface Saved {
  readonly unique: number;
  readonly message: Uint8Array;
  /** When it came, by the clock of this thread. */
  readonly since: number;
}

/** A request that a helper will answer. */
interface Offloaded extends Timed {
  readonly unique: number;
}

/** Serves a request from its start; `since` is when it came. */
type Serve = (message: Uint8Array, since: number) => void;

/** One job that holds a key, and the requests to serve again after it, the one that started it first. */
interface Held {
  readonly key: number;
  readonly done: (result: JobResult) => void;
  readonly waiting: Saved[];
}

export class DeferredServices implements Services {
  /** Readable when results are to be taken. */
  readonly wakeFd: number = createEventFd();
  private readonly x: Exchange;
  private readonly log: Logger;
  private readonly counters: Counters;
  private readonly jobs: HelperPool;
  /** Apart from the jobs, which may take seconds. */
  private readonly shortJobs: HelperPool;
  /** Apart from the jobs: an invalidation may wait for a request that waits for a job. */
  private readonly notifications: HelperPool;
  private readonly pools: readonly HelperPool[];
  /** A thread that has tasks may not be running yet. */
  private starting = false;
  private readonly notifier: Notifier;
  private readonly requests: Poll;
  private readonly byKey = new Map<number, Held>();
  private readonly byId = new Map<number, Held>();
  /** Requests that a helper will answer, by job. */
  private readonly offloaded = new Map<number, Offloaded>();
  /** Jobs that have ended and whose requests have not been served again. */
  private readonly ended: TaskDone[] = [];
  /** Requests that have no reply yet, true once interrupted. */
  private readonly open = new Map<number, boolean>();
  /** Whether the request being served has been taken for later. */
  private kept = false;
  private nextId = 1;

  /** `helperModule` is that of the filesystem. */
  constructor(x: Exchange, fd: number, log: Logger, counters: Counters, helperModule?: string) {
    this.x = x;
    this.log = log;
    this.counters = counters;
    const own = { module: helperModule, counters: counters.memory };
    this.jobs = new HelperPool(JOB_THREADS, fd, this.wakeFd, log, own);
    this.shortJobs = new HelperPool(SHORT_JOB_THREADS, fd, this.wakeFd, log, own);
    this.notifications = new HelperPool(1, fd, this.wakeFd, log);
    this.pools = [this.jobs, this.shortJobs, this.notifications];
    this.notifier = createNotifier(fd);
    this.requests = createPoll([fd]);
  }

  /** Whether the loop must poll {@link wakeFd}: there is work that holds a key, or a thread that may fail to start. */
  get waiting(): boolean {
    return this.byKey.size > 0 || this.starting;
  }

  /** How long the loop may wait at most before it calls {@link seeToStarts}, in milliseconds; -1 for ever. */
  get patience(): number {
    return this.starting ? START_CHECK : -1;
  }

  /** Does what was given to threads that have not started. */
  seeToStarts(): void {
    if (!this.starting) return;
    const back = this.pools.flatMap((pool) => pool.takeBack());
    this.starting = this.pools.some((pool) => pool.starting);
    for (const task of back) if (task.kind === "job") this.runHere(task.id, task.job);
  }

  private runHere(id: number, job: Job): void {
    // The filesystem's own jobs are those of the helpers' module.
    const result: JobResult = job.kind === "own" ? { status: -Errno.EIO } : runAnyJob(job, undefined);
    const request = this.offloaded.get(id);
    if (request === undefined) {
      this.ended.push({ id, ...result });
      signalEventFd(this.wakeFd);
      return;
    }
    this.offloaded.delete(id);
    this.open.delete(request.unique);
    this.counters.answeredLate(request.opcode, request.since, result.status);
    this.notifier.reply(request.unique, result.status);
  }

  private post(pool: HelperPool, task: Task): boolean {
    const posted = pool.post(task);
    this.starting ||= pool.starting;
    return posted;
  }

  offload(q: Request, job: Job): Status {
    this.take();
    const id = this.nextId++;
    const { unique } = q;
    const timed = { opcode: this.x.opcode, since: this.counters.shared(this.counters.sinceAtLatest) };
    // Counted first: the helper may be done before this thread goes on.
    const isNew = !this.open.has(unique);
    if (isNew) this.counters.wait(1);
    if (!this.post(this.jobs, { kind: "job", id, job, unique, timed })) {
      if (isNew) this.counters.wait(-1);
      return runAnyJob(job, undefined).status;
    }
    this.offloaded.set(id, { unique, ...timed });
    if (isNew) this.open.set(unique, false);
    this.kept = true;
    return SUSPENDED;
  }

  suspend(q: Request, key: number, job: Job, done: (status: Status, problem?: string) => void): Status {
    const holder = this.byKey.get(key);
    if (holder !== undefined) return this.enqueue(q, holder);
    const id = this.nextId++;
    const held = this.hold(id, key, ({ status, problem }) => done(status, problem));
    if (!this.post(this.jobs, { kind: "job", id, job, unique: 0 })) {
      this.ended.push({ id, ...runAnyJob(job, undefined) });
      signalEventFd(this.wakeFd);
    }
    return this.enqueue(q, held);
  }

  begin(key: number, job: Job, long: boolean, done: (result: JobResult) => void): boolean {
    if (this.byKey.has(key)) throw new Error(`key ${key} is held`);
    const id = this.nextId++;
    const task = { kind: "job", id, job, unique: 0 } as const;
    if (!(long ? this.post(this.jobs, task) : this.shortJobs.postNow(task))) return false;
    this.hold(id, key, done);
    return true;
  }

  private hold(id: number, key: number, done: (result: JobResult) => void): Held {
    const held: Held = { key, done, waiting: [] };
    this.byKey.set(key, held);
    this.byId.set(id, held);
    return held;
  }

  suspendBehind(q: Request, key: number): Status | undefined {
    const held = this.byKey.get(key);
    return held === undefined ? undefined : this.enqueue(q, held);
  }

  idle(): boolean {
    return this.requests.wait(0) <= 0;
  }

  interrupted(unique: number): boolean {
    return this.open.get(unique) === true;
  }

  invalidateInode(nodeid: number, offset: number, length: number): Status {
    if (offset < 0) return this.notifier.invalidateInode(nodeid, -1, 0);
    const task = { kind: "invalidateInode", nodeid, offset, length } as const;
    return this.post(this.notifications, task) ? 0 : -Errno.EAGAIN;
  }

  invalidateEntry(parent: number, name: Uint8Array): Status {
    if (name.length === 0 || name.length > NAME_LIMIT) return -Errno.EINVAL;
    const task = { kind: "invalidateEntry", parent, name: Uint8Array.from(name) } as const;
    return this.post(this.notifications, task) ? 0 : -Errno.EAGAIN;
  }

  /** Records an INTERRUPT; one for a request that has been answered is of no interest. */
  interrupt(unique: number): void {
    this.take();
    if (this.open.has(unique)) this.open.set(unique, true);
  }

  /** Takes the jobs that have ended, and serves again what has waited for them. Only between two requests. */
  resume(serve: Serve): void {
    clearEventFd(this.wakeFd);
    this.take();
    for (let result = this.ended.shift(); result !== undefined; result = this.ended.shift()) {
      const held = this.finish(result);
      for (const saved of held?.waiting ?? []) this.serveAgain(saved, held as Held, serve);
    }
  }

  /** Whether threads have work that nobody has taken back. */
  get busy(): boolean {
    return this.jobs.running + this.shortJobs.running > 0;
  }

  /** Waits for the work under way and lets the threads end. Nothing is served again. */
  close(): void {
    const pause = new Int32Array(new SharedArrayBuffer(4));
    const deadline = performance.now() + DRAIN_LIMIT;
    for (this.take(); this.busy && performance.now() < deadline; this.take()) {
      Atomics.wait(pause, 0, 0, 2);
      this.seeToStarts();
    }
    for (const result of this.ended) this.finish(result);
    const left = this.jobs.running + this.shortJobs.running;
    for (const pool of this.pools) pool.stop();
    if (left > 0) this.log.error("gave up waiting for work under way", { jobs: left });
    else closeFd(this.wakeFd);
  }

  private enqueue(q: Request, held: Held): Status {
    const { unique } = q;
    held.waiting.push({ unique, message: this.x.save(), since: this.counters.sinceAtLatest });
    if (!this.open.has(unique)) {
      this.open.set(unique, false);
      this.counters.wait(1);
    }
    this.kept = true;
    return SUSPENDED;
  }

  private take(): void {
    const taken = (result: TaskDone): void => {
      const request = this.offloaded.get(result.id);
      if (request === undefined) this.ended.push(result);
      else {
        this.offloaded.delete(result.id);
        this.open.delete(request.unique);
      }
    };
    this.jobs.take(taken);
    this.shortJobs.take(taken);
  }

  private finish(result: TaskDone): Held | undefined {
    const held = this.byId.get(result.id);
    if (held === undefined) return undefined;
    this.byId.delete(result.id);
    this.byKey.delete(held.key);
    try {
      held.done(result);
    } catch (error) {
      this.log.error("unexpected error after a job", { error });
    }
    return held;
  }

  private serveAgain(saved: Saved, after: Held, serve: Serve): void {
    // One of those served before may hold the key anew: then the rest waits for that, in order.
    const holder = this.byKey.get(after.key);
    if (holder !== undefined) {
      holder.waiting.push(saved);
      return;
    }
    this.kept = false;
    serve(saved.message, saved.since);
    if (this.kept) return;
    this.open.delete(saved.unique);
    this.counters.wait(-1);
  }
}
