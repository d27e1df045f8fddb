// Entry of a helper thread: does what may block, one task after another, and answers the kernel itself.
// Never: an exception out of a task; a task without its answer. The order of the last two steps matters: the result is
// posted before the session's thread is woken, so a wake-up is never early.
import { workerData } from "node:worker_threads";
import { Errno } from "../base/errno.js";
import { signalEventFd } from "../sys/poll.js";
import { Counters } from "./counters.js";
import { type HelperData, RUNNING, runAnyJob, STARTING, type Task, type TaskDone } from "./job.js";
import { createNotifier } from "./notify.js";
import type { Job, JobResult, RunTask } from "./operations.js";

const { fd, wakeFd, port, running, module, counters: memory } = workerData as HelperData;
const counters = memory === undefined ? undefined : new Counters(memory);
const notifier = createNotifier(fd);
const own = module === undefined ? undefined : ((await import(module)) as { readonly runTask: RunTask });

function attempt(job: Job): JobResult {
  try {
    return runAnyJob(job, own?.runTask);
  } catch {
    return { status: -Errno.EIO };
  }
}

// No message is taken before this module has run to its end.
const given = Atomics.compareExchange(running, 0, STARTING, RUNNING) === STARTING;
Atomics.notify(running, 0);

port.on("message", (task: Task) => {
  // Started too late: whoever gave the tasks has taken them back.
  if (!given && task.kind !== "stop") return;
  switch (task.kind) {
    case "job": {
      const result = attempt(task.job);
      if (task.unique !== 0) {
        // Counted first: whoever has the reply finds it counted.
        const { timed } = task;
        if (timed !== undefined) counters?.answeredLate(timed.opcode, timed.since, result.status);
        notifier.reply(task.unique, result.status);
      }
      port.postMessage({ id: task.id, ...result } satisfies TaskDone);
      if (task.unique === 0) signalEventFd(wakeFd);
      break;
    }
    case "invalidateInode":
      notifier.invalidateInode(task.nodeid, task.offset, task.length);
      break;
    case "invalidateEntry":
      notifier.invalidateEntry(task.parent, task.name);
      break;
    case "stop":
      port.close();
      break;
  }
});
