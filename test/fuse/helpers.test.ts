// The pool of helper threads, as compiled: threads need files.
import { existsSync } from "node:fs";
import { join } from "node:path";
import { setTimeout as sleep } from "node:timers/promises";
import { afterEach, describe, expect, it } from "vitest";
import { nullLogger } from "../../src/base/log.js";
import type { HelperPool, PoolOptions } from "../../src/fuse/helpers.js";
import type { Task, TaskDone } from "../../src/fuse/job.js";
import { createEventFd } from "../../src/sys/poll.js";
import { until } from "./harness.js";

const compiled = join(import.meta.dirname, "../../dist/fuse/helpers.js");
const task: Task = { kind: "job", id: 7, job: { kind: "syncfs", fd: -1 }, unique: 0 };

describe.skipIf(!existsSync(compiled))("helper threads", () => {
  let pool: HelperPool;

  async function create(options: PoolOptions): Promise<void> {
    const module = (await import(compiled)) as { HelperPool: typeof HelperPool };
    pool = new module.HelperPool(1, -1, createEventFd(), nullLogger, options);
  }

  afterEach(() => pool.stop());

  it("take a task before they run, and the owner is not held up", async () => {
    await create({});
    expect(pool.post(task)).toBe(true);
    expect(pool.starting).toBe(true);
    const done: TaskDone[] = [];
    await until(() => {
      pool.take((result) => done.push(result));
      return done.length > 0;
    });
    expect(done).toEqual([{ id: 7, status: -9 }]);
    expect(pool.takeBack()).toEqual([]);
    expect(pool.starting).toBe(false);
  });

  it("that do not start give back what they were given", async () => {
    const never = `data:text/javascript,${encodeURIComponent("await new Promise(() => setInterval(() => {}, 50));")}`;
    await create({ module: never, startLimit: 300 });
    expect(pool.post(task)).toBe(true);
    expect(pool.takeBack()).toEqual([]);
    await sleep(400);
    expect(pool.takeBack()).toEqual([task]);
    expect(pool.starting).toBe(false);
    expect(pool.running).toBe(0);
    expect(pool.post(task)).toBe(false);
  });
});
