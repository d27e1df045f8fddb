// Replies that come later, interrupts and notifications, through real mounts. The slow disk is a second mount whose
// fsync blocks its own loop for a known time.
import { type ChildProcess, spawn } from "node:child_process";
import { once } from "node:events";
import * as fs from "node:fs/promises";
import { join } from "node:path";
import { setTimeout as sleep } from "node:timers/promises";
import { describe, expect, it } from "vitest";
import { askXattrPath } from "../../src/sys/xattr.js";
import { type Bed, type Mounted, until, withBed } from "./harness.js";

const SLOW = 800;

async function withSlowDisk(bed: Bed, files: readonly string[]): Promise<Mounted> {
  const disk = await bed.mount({ files: [`sleep-${SLOW}`] });
  return bed.mount({ files: [...files, "other"], slowFile: join(disk.path, `sleep-${SLOW}`) });
}

async function journal(path: string): Promise<string[]> {
  const value = await askXattrPath(Buffer.from(path), Buffer.from("user.journal"));
  const text = typeof value === "number" ? "" : Buffer.from(value).toString();
  return text === "" ? [] : text.split("\n");
}

/** A process that syncs or reads, so that a signal can reach it. */
function run(command: string, ...args: readonly string[]): ChildProcess & { done: Promise<unknown[]> } {
  const child = spawn(command, args, { stdio: "ignore" });
  return Object.assign(child, { done: once(child, "close") });
}

/** Waits until the mount's process has been asked `count` times for `opcode`, as its counters say. */
async function asked(
  { pid, log }: { pid: number; log: () => string },
  opcode: string,
  count: number,
): Promise<void> {
  await until(() => {
    process.kill(pid, "SIGUSR1");
    return new RegExp(`${opcode} +${count}\\b`).test(log());
  });
}

/** Whether lookups are answered while `done` is pending. */
async function servesBefore(done: Promise<unknown>, path: string): Promise<boolean> {
  let pending = true;
  void done.finally(() => {
    pending = false;
  });
  for (let i = 0; i < 5; i++) await fs.stat(join(path, `missing-${i}`)).catch(() => {});
  return pending;
}

describe.concurrent("replies that come later", () => {
  it(
    "a helper answers an fsync that blocks, while the loop goes on",
    withBed(async (bed) => {
      const mounted = await withSlowDisk(bed, ["offload"]);
      const sync = run("sync", join(mounted.path, "offload"));
      await asked(mounted, "FSYNC", 1);
      expect(await servesBefore(sync.done, mounted.path)).toBe(true);
      expect((await sync.done)[0]).toBe(0);
    }),
  );

  it(
    "several offloaded requests are under way at once",
    withBed(async (bed) => {
      const files = ["offload-1", "offload-2", "offload-3", "offload-4", "offload-5", "offload-6"];
      const { path } = await withSlowDisk(bed, files);
      const codes = await Promise.all(
        files.map(async (name) => (await run("sync", join(path, name)).done)[0]),
      );
      expect(codes).toEqual(files.map(() => 0));
    }),
  );

  it(
    "requests suspended on one key are served again in their order, and others pass them",
    withBed(async (bed) => {
      const names = ["suspend-c", "suspend-a", "suspend-d", "suspend-b"];
      const mounted = await withSlowDisk(bed, names);
      const { path } = mounted;
      const readers: ReturnType<typeof run>[] = [];
      for (const name of names) {
        readers.push(run("cat", join(path, name)));
        await asked(mounted, "OPEN", readers.length);
      }
      expect(await journal(path)).toEqual([]);
      const all = Promise.all(readers.map(({ done }) => done));
      expect(await servesBefore(all, path)).toBe(true);
      expect((await all).map(([code]) => code)).toEqual([0, 0, 0, 0]);
      expect(await journal(path)).toEqual(["done 0", ...names]);
    }),
  );

  it(
    "an interrupt reaches the suspended request it is meant for, and no other",
    withBed(async (bed) => {
      const mounted = await withSlowDisk(bed, ["suspend-1", "suspend-2", "suspend-3"]);
      const { path, pid, log } = mounted;
      const readers: ReturnType<typeof run>[] = [];
      for (const name of ["suspend-1", "suspend-2", "suspend-3"]) {
        readers.push(run("cat", join(path, name)));
        // A reader killed before its request has come would send no interrupt.
        await asked(mounted, "OPEN", readers.length);
      }
      readers[1]?.kill("SIGTERM");
      const ends = await Promise.all(readers.map(({ done }) => done));
      expect(ends).toEqual([
        [0, null],
        [null, "SIGTERM"],
        [0, null],
      ]);
      expect(await journal(path)).toEqual(["done 0", "suspend-1", "suspend-3"]);
      process.kill(pid, "SIGUSR1");
      await until(() => /INTERRUPT +1/.test(log()));
    }),
  );

  it(
    "an unmount waits for work under way and ends cleanly",
    withBed(async (bed) => {
      const { path, log } = await withSlowDisk(bed, ["suspend-1"]);
      const reader = run("cat", join(path, "suspend-1"));
      await sleep(100);
      await run("umount", "-l", path).done;
      await reader.done;
      await until(() => log().includes("destroyed"));
    }),
  );
});

describe.concurrent("notifications", () => {
  it(
    "what the kernel has cached stays until it is told, then goes: pages, attributes, names",
    withBed(async (bed) => {
      const { path } = await bed.mount({ files: ["a", "b", "refresh"] });
      const tell = (text: string): Promise<void> => fs.appendFile(join(path, "refresh"), text);
      const read = (name: string): Promise<string> => fs.readFile(join(path, name), "utf8");
      expect(await read("a")).toBe("content of a\n");
      await tell("change a");
      expect(await read("a")).toBe("content of a\n");
      await tell("inode a");
      const deadline = performance.now() + 5_000;
      while ((await read("a")).startsWith("content") && performance.now() < deadline) await sleep(10);
      expect(await read("a")).toBe("x".repeat(13));

      const mode = async (): Promise<number> => (await fs.stat(join(path, "b"))).mode & 0o777;
      expect(await mode()).toBe(0o644);
      await tell("change b");
      expect(await mode()).toBe(0o644);
      await tell("attributes b");
      expect(await mode()).toBe(0o600);

      await tell("hide b");
      await fs.stat(join(path, "b"));
      await tell("entry b");
      let gone = false;
      while (!gone && performance.now() < deadline) {
        gone = await fs.stat(join(path, "b")).then(
          () => false,
          (error: NodeJS.ErrnoException) => error.code === "ENOENT",
        );
        await sleep(10);
      }
      expect(gone).toBe(true);
    }),
  );
});
