// What helper threads do, and the messages between them and the session's thread.
import type { MessagePort } from "node:worker_threads";
import { Errno } from "../base/errno.js";
import {
  closeFd,
  copyRange,
  fallocateFd,
  fdatasyncFd,
  fsyncFd,
  pread,
  pwrite,
  syncFs,
} from "../sys/files.js";
import { allocatePages, type Region } from "../sys/memory.js";
import type { Job, JobResult, RunTask, Status } from "./operations.js";

/** Session to helper. */
export type Task =
  /** Run a job; then reply to `unique` when that is not 0: a request that `timed` describes. */
  | {
      readonly kind: "job";
      readonly id: number;
      readonly job: Job;
      readonly unique: number;
      readonly timed?: Timed;
    }
  | {
      readonly kind: "invalidateInode";
      readonly nodeid: number;
      readonly offset: number;
      readonly length: number;
    }
  | { readonly kind: "invalidateEntry"; readonly parent: number; readonly name: Uint8Array }
  | { readonly kind: "stop" };

/** A request and when it came, by the clock of Counters that all threads share. */
export interface Timed {
  readonly opcode: number;
  readonly since: number;
}

/** Helper to session. */
export interface TaskDone extends JobResult {
  readonly id: number;
}

/** The word by which a thread and its owner agree whether it has started: it takes no task that its owner takes back. */
export const STARTING = 0;
export const RUNNING = 1;
export const GIVEN_UP = 2;

/** What a helper thread is started with. */
export interface HelperData {
  /** The FUSE descriptor. */
  readonly fd: number;
  /** The eventfd that wakes the session's thread. */
  readonly wakeFd: number;
  /** Takes {@link Task}s, gives {@link TaskDone}s. */
  readonly port: MessagePort;
  /** One word, STARTING until the thread is ready for tasks. */
  readonly running: Int32Array<SharedArrayBuffer>;
  /** The module for the filesystem's own jobs. */
  readonly module: string | undefined;
  /** Memory of the session's Counters, where requests are answered here. */
  readonly counters: SharedArrayBuffer | undefined;
}

const COPY_CHUNK = 1 << 20;
let copyBuffer: Region | undefined;

/** Runs a job to its end in the calling thread, one of the filesystem's own by `runTask`. */
export function runAnyJob(job: Job, runTask: RunTask | undefined): JobResult {
  if (job.kind !== "own") return { status: runJob(job) };
  return runTask === undefined ? { status: -Errno.ENOSYS } : runTask(job.task);
}

/** Runs a job of system calls to its end in the calling thread. 0 or a negative errno. */
export function runJob(job: Job): Status {
  const status = run(job);
  if ((job.kind === "fsync" || job.kind === "fallocate") && job.owned === true) closeFd(job.fd);
  return status;
}

function run(job: Job): Status {
  switch (job.kind) {
    case "own":
      return -Errno.ENOSYS;
    case "fsync":
      return retry(() => (job.dataOnly ? fdatasyncFd(job.fd) : fsyncFd(job.fd)));
    case "pause":
      Atomics.wait(new Int32Array(new SharedArrayBuffer(4)), 0, 0, job.milliseconds);
      return 0;
    case "syncfs":
      return retry(() => syncFs(job.fd));
    case "fallocate":
      return retry(() => fallocateFd(job.fd, job.mode, job.offset, job.length));
    case "copy": {
      for (let i = 0; i + 2 < job.ranges.length; i += 3) {
        const [from, to, length] = job.ranges.slice(i, i + 3) as [number, number, number];
        const status = copyAll(job.from, from, job.to, to, length);
        if (status < 0) return status;
      }
      return job.sync ? retry(() => fsyncFd(job.to)) : 0;
    }
  }
}

function retry(call: () => number): Status {
  for (;;) {
    const result = call();
    if (result !== -Errno.EINTR) return Math.min(result, 0);
  }
}

/** A source that ends before the range does is EIO: what should be there is gone. */
function copyAll(from: number, fromOffset: number, to: number, toOffset: number, length: number): Status {
  for (let done = 0; done < length; ) {
    const chunk = Math.min(length - done, 1 << 30);
    let copied = copyRange(from, fromOffset + done, to, toOffset + done, chunk);
    // Filesystems that cannot copy among themselves say so in many ways; reading and writing finds real errors again.
    if (copied < 0 && copied !== -Errno.EINTR) {
      copied = copyByHand(from, fromOffset + done, to, toOffset + done, chunk);
    }
    if (copied === -Errno.EINTR) continue;
    if (copied < 0) return copied;
    if (copied === 0) return -Errno.EIO;
    done += copied;
  }
  return 0;
}

function copyByHand(from: number, fromOffset: number, to: number, toOffset: number, length: number): number {
  copyBuffer ??= allocatePages(COPY_CHUNK);
  const { address } = copyBuffer;
  const got = pread(from, address, Math.min(length, COPY_CHUNK), fromOffset);
  for (let done = 0; done < got; ) {
    const put = pwrite(to, address + done, got - done, toOffset + done);
    if (put < 0) return put;
    done += put;
  }
  return got;
}
