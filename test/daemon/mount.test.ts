// The life of a mount's process: start, refusal, signals, unmounting from either side, crashes.
import { type ChildProcess, execFileSync, spawn } from "node:child_process";
import { existsSync, readdirSync, readFileSync, readlinkSync, statSync, writeFileSync } from "node:fs";
import * as fs from "node:fs/promises";
import { dirname, join } from "node:path";
import { setTimeout as sleep } from "node:timers/promises";
import { describe, expect, it } from "vitest";
import { dist, isMounted, isRunning, mountRoom, sh, until, withBed } from "../fuse/harness.js";

/** A process that keeps a descriptor open below `path` until killed. */
async function holdOpen(path: string): Promise<ChildProcess> {
  const child = spawn("sleep", ["60"], { cwd: path, stdio: "ignore" });
  await until(() => {
    try {
      return (
        readlinkSync(`/proc/${child.pid}/cwd`) === path &&
        readFileSync(`/proc/${child.pid}/comm`, "utf8") === "sleep\n"
      );
    } catch {
      return false;
    }
  });
  return child;
}

/** Pids of running processes with `text` on their command line. */
function processesNaming(text: string): string[] {
  return readdirSync("/proc").filter((pid) => {
    try {
      return (
        /^\d+$/.test(pid) &&
        isRunning(Number(pid)) &&
        readFileSync(`/proc/${pid}/cmdline`, "utf8").includes(text)
      );
    } catch {
      return false;
    }
  });
}

async function failure(promise: Promise<unknown>): Promise<{ message: string; exitCode: number }> {
  return promise.then(
    () => ({ message: "did not fail", exitCode: 0 }),
    (error: { message: string; exitCode: number }) => error,
  );
}

describe.concurrent("a detached mount", () => {
  it(
    "is live when the call returns, in a session of its own at /, holding nothing of the mount or the caller",
    withBed(async (bed) => {
      const pidFile = join(bed.folder, "pid");
      const { path, pid } = await bed.mount({ files: ["a"] }, { pidFile });
      expect(isMounted(path)).toBe(true);
      expect(await fs.readFile(join(path, "a"), "utf8")).toBe("content of a\n");
      expect(readFileSync(pidFile, "utf8")).toBe(`${pid}\n`);
      expect(readlinkSync(`/proc/${pid}/cwd`)).toBe("/");
      const stat = readFileSync(`/proc/${pid}/stat`, "latin1").split(") ")[1]?.split(" ");
      expect(stat?.[3]).toBe(String(pid));
      const open = readdirSync(`/proc/${pid}/fd`).map((fd) => readlinkSync(`/proc/${pid}/fd/${fd}`));
      expect(open.filter((target) => `${target}/`.startsWith(`${path}/`))).toEqual([]);
      expect(readlinkSync(`/proc/${pid}/fd/1`)).toBe("/dev/null");
      expect(readlinkSync(`/proc/${pid}/fd/2`)).toBe("/dev/null");
    }),
  );

  it(
    "ends with an external umount: process, pid file and helper threads are gone",
    withBed(async (bed) => {
      const pidFile = join(bed.folder, "pid");
      const { path, pid, log } = await bed.mount({ files: ["offload"] }, { pidFile, statsOnExit: true });
      await fs.readdir(path);
      sh(`umount ${path}`);
      await until(() => !isRunning(pid));
      expect(existsSync(pidFile)).toBe(false);
      expect(log()).toMatch(/READDIRPLUS +\d+ +0/);
    }),
  );

  it(
    "prints its counters on SIGUSR1 and goes on, as JSON where logs are JSON",
    withBed(async (bed) => {
      const { path, pid, log } = await bed.mount({ files: ["a"] }, { logFormat: "json" });
      await fs.stat(join(path, "a"));
      process.kill(pid, "SIGUSR1");
      await until(() => log().includes('"msg":"requests"'));
      const line = log()
        .split("\n")
        .find((text) => text.includes('"msg":"requests"')) as string;
      expect(JSON.parse(line).requests).toContainEqual({ opcode: "LOOKUP", requests: 1, errors: 0 });
      expect(await fs.readFile(join(path, "a"), "utf8")).toBe("content of a\n");
      expect(log()).not.toMatch(/Debugger/);
    }),
  );

  it(
    "is read-only without an upper, hides devices unless told, honours setuid unless told",
    withBed(async (bed) => {
      const { upper: _, ...readOnly } = bed.options({ files: ["a"] });
      const { mountDetached, unmount } = await mountRoom();
      await mountDetached(readOnly);
      await expect(fs.writeFile(join(readOnly.mountpoint, "b"), "")).rejects.toMatchObject({ code: "EROFS" });
      const flags = (path: string): string =>
        sh(`awk '$5 == "${path}" { print $6 }' /proc/self/mountinfo`).trim();
      expect(flags(readOnly.mountpoint)).toBe("ro,nodev,relatime");
      await unmount(readOnly.mountpoint, { lazy: false });
      const open = await bed.mount({}, { devices: true });
      expect(flags(open.path)).toBe("rw,relatime");
      const shut = await bed.mount({}, { kernel: { set: 2 } });
      expect(flags(shut.path)).toBe("rw,nosuid,nodev,relatime");
    }),
  );

  it(
    "serves paths with spaces and backslashes, and through a symlink",
    withBed(async (bed) => {
      const mountpoint = bed.newFolder("a b\\c\nd é");
      const { path } = await bed.mount({ files: ["a"] }, { mountpoint, logFile: join(bed.folder, "log") });
      expect(await fs.readdir(path)).toEqual(["a"]);
      const link = join(bed.folder, "link");
      await fs.symlink(path, link);
      const { unmount } = await mountRoom();
      await unmount(link, { lazy: false });
      expect(isMounted(path)).toBe(false);
    }),
  );
});

describe.concurrent("a mount that cannot start says why on one line and leaves nothing", () => {
  const refused = (
    what: string,
    prepare: (folder: string) => { settings?: object; overrides?: object },
    message: RegExp,
  ): void =>
    it(
      what,
      withBed(async (bed) => {
        const { settings, overrides } = prepare(bed.folder);
        const error = await failure(bed.mount({ ...settings }, { ...overrides }));
        expect(error.message).toMatch(message);
        expect(error.message).not.toContain("\n");
        expect(error.exitCode).toBeGreaterThan(0);
        expect(readFileSync("/proc/self/mountinfo", "utf8")).not.toContain(bed.folder);
        expect(processesNaming(bed.folder)).toEqual([]);
      }),
    );

  refused(
    "a mountpoint that does not exist",
    (folder) => ({ overrides: { mountpoint: join(folder, "none"), logFile: join(folder, "log") } }),
    /^mount \S+\/none: no such file or directory$/,
  );
  refused(
    "a mountpoint that is a file",
    (folder) => {
      writeFileSync(join(folder, "file"), "");
      return { overrides: { mountpoint: join(folder, "file") } };
    },
    /mountpoint \S+\/file: not a directory$/,
  );
  refused(
    "a filesystem that throws",
    () => ({ settings: { fail: "layer 2: inode 817: extent past the end\nsecond line" } }),
    /^mount \S+: layer 2: inode 817: extent past the end$/,
  );
  refused(
    "a module that is not there",
    () => ({ overrides: { fileSystem: { url: "file:///nowhere.mjs" } } }),
    /nowhere\.mjs/,
  );
  refused(
    "a pid file that cannot be written",
    (folder) => ({ overrides: { pidFile: join(folder, "no/pid") } }),
    /pid file .*no\/pid/,
  );
  refused(
    "a log file that cannot be written",
    (folder) => ({ overrides: { logFile: join(folder, "no/log") } }),
    /log file .*no\/log/,
  );
  refused(
    "an upper inside the mountpoint",
    (folder) => ({
      overrides: { mountpoint: folder, upper: join(folder, "upper"), logFile: `${folder}.log` },
    }),
    /upper \S+ lies in mountpoint/,
  );
  refused(
    "an upper that is the image's folder",
    (folder) => ({ overrides: { sources: [join(folder, "up/index.imgfs")], upper: join(folder, "up") } }),
    /image \S+index\.imgfs lies in upper \S+/,
  );
  refused(
    "a mountpoint inside the work folder",
    (folder) => ({ overrides: { work: folder } }),
    /mountpoint \S+ lies in work/,
  );

  it(
    "a mountpoint where an imgfs mount already is, named with its process",
    withBed(async (bed) => {
      const { path, pid } = await bed.mount({ files: ["a"] });
      const error = await failure(bed.mount({}, { mountpoint: path }));
      expect(error.message).toBe(`mount ${path}: an imgfs mount is already there (process ${pid})`);
      expect(await fs.readdir(path)).toEqual(["a"]);
      const parent = await failure(bed.mount({}, { mountpoint: dirname(path), upper: "/tmp" }));
      expect(parent.message).toMatch(/another mount lies in it/);
    }),
  );
});

describe.concurrent("a detached mount nobody waits for", () => {
  it(
    "goes again when its parent has died before it was live",
    withBed(async (bed) => {
      const options = bed.options({ files: ["a"] });
      const child = spawn(process.execPath, [join(dist, "daemon/main.js")], {
        stdio: ["pipe", "ignore", "ignore", "pipe"],
      });
      child.stdio[3]?.destroy();
      child.stdio[0]?.end(JSON.stringify(options));
      const code = await new Promise((done) => child.on("exit", done));
      expect(code).toBe(1);
      expect(isMounted(options.mountpoint)).toBe(false);
    }),
  );
});

describe.concurrent("the exit of a foreground mount", () => {
  for (const signal of ["SIGINT", "SIGTERM", "SIGHUP"] as const) {
    it(
      `${signal} unmounts and exits 0`,
      withBed(async (bed) => {
        const mount = bed.foreground();
        await mount.live;
        expect(await fs.readdir(mount.path)).toEqual([]);
        process.kill(mount.pid, signal);
        expect(await mount.exit).toMatchObject({ code: 0, signal: null, stderr: "" });
        expect(isMounted(mount.path)).toBe(false);
      }),
    );
  }

  it(
    "an external umount exits 0",
    withBed(async (bed) => {
      const mount = bed.foreground();
      await mount.live;
      await fs.readdir(mount.path);
      sh(`umount ${mount.path}`);
      expect(await mount.exit).toMatchObject({ code: 0, stderr: "" });
    }),
  );

  it(
    "a mount in use is detached by a signal and serves until its last user is gone",
    withBed(async (bed) => {
      const mount = bed.foreground({ files: ["a"] });
      await mount.live;
      const holder = await holdOpen(mount.path);
      process.kill(mount.pid, "SIGTERM");
      await until(() => !isMounted(mount.path));
      expect(readFileSync(`/proc/${holder.pid}/cwd/a`, "utf8")).toBe("content of a\n");
      holder.kill("SIGKILL");
      expect(await mount.exit).toMatchObject({ code: 0 });
    }),
  );

  it(
    "a second SIGINT gives up waiting and exits 130",
    withBed(async (bed) => {
      const mount = bed.foreground();
      await mount.live;
      const holder = await holdOpen(mount.path);
      process.kill(mount.pid, "SIGINT");
      await until(() => !isMounted(mount.path));
      process.kill(mount.pid, "SIGINT");
      expect(await mount.exit).toMatchObject({ code: 130 });
      holder.kill("SIGKILL");
    }),
  );

  it(
    "a crash of the serving thread takes the mount down, fails who waits, and exits 1",
    withBed(async (bed) => {
      const mount = bed.foreground({ files: ["a"] });
      await mount.live;
      await fs.readdir(mount.path);
      const lost = await failure(fs.stat(join(mount.path, "crash")));
      expect(lost).toMatchObject({ code: "ECONNABORTED" });
      expect(await mount.exit).toMatchObject({ code: 1 });
      expect(isMounted(mount.path)).toBe(false);
      expect(readFileSync(`${mount.path}.log`, "utf8")).toMatch(/crashed: the serving thread ended with 3/);
    }),
  );

  it(
    "an abort of the connection takes the mount down and exits 1",
    withBed(async (bed) => {
      const mount = bed.foreground();
      await mount.live;
      const minor = statSync(mount.path).dev & 0xff;
      const control = bed.newFolder("control");
      try {
        sh(`mount -t fusectl none ${control} && echo 1 > ${control}/${minor}/abort`);
      } finally {
        sh(`umount -l ${control} || true`);
      }
      expect(await mount.exit).toMatchObject({ code: 1 });
      expect(isMounted(mount.path)).toBe(false);
    }),
  );

  it(
    "a refused start exits 32 with its line",
    withBed(async (bed) => {
      const mount = bed.foreground({ fail: "no such image" });
      expect(await mount.exit).toEqual({
        code: 32,
        signal: null,
        stderr: `mount ${mount.path}: no such image\n`,
      });
    }),
  );

  it(
    "root of a user namespace mounts, uses and unmounts",
    withBed(async (bed) => {
      const options = bed.options({ files: ["a"] });
      writeFileSync(join(bed.folder, "options.json"), JSON.stringify(options));
      const script = join(bed.folder, "inside.mjs");
      writeFileSync(
        script,
        `import { readFileSync, writeFileSync, readdirSync } from "node:fs";
         const room = await import(process.argv[2]);
         const options = JSON.parse(readFileSync(process.argv[3]));
         const { pid } = await room.mountDetached(options);
         writeFileSync(options.mountpoint + "/made", "inside");
         console.log(readdirSync(options.mountpoint).join(), readFileSync(options.mountpoint + "/made", "utf8"));
         await room.unmount(options.mountpoint, { lazy: false });
         await new Promise((done) => setTimeout(done, 100));
         try { process.kill(pid, 0); console.log("still there"); } catch { console.log("gone"); }`,
      );
      const output = execFileSync(
        "unshare",
        ["-Urm", process.execPath, script, join(dist, "daemon/mount.js"), join(bed.folder, "options.json")],
        { encoding: "utf8" },
      );
      expect(output).toBe("a,made inside\ngone\n");
    }),
  );
});

describe.concurrent("unmount", () => {
  it(
    "returns when the process has ended, refuses a mount in use with 32, detaches it when lazy",
    withBed(async (bed) => {
      const { unmount } = await mountRoom();
      const { path, pid } = await bed.mount({ files: ["a"] });
      const holder = await holdOpen(path);
      const busy = await failure(unmount(path, { lazy: false }));
      expect(busy).toMatchObject({ message: `umount: ${path}: target is busy`, exitCode: 32 });
      expect(isMounted(path)).toBe(true);
      await unmount(path, { lazy: true });
      expect(isMounted(path)).toBe(false);
      expect(isRunning(pid)).toBe(true);
      holder.kill("SIGKILL");
      await until(() => !isRunning(pid));

      const again = await bed.mount({ files: ["a"] }, { mountpoint: path });
      await unmount(`${path}/`, { lazy: false });
      expect(isRunning(again.pid)).toBe(false);
    }),
  );

  it(
    "refuses what is no imgfs mount",
    withBed(async (bed) => {
      const { unmount } = await mountRoom();
      const folder = bed.newFolder("plain");
      const message = `umount: ${folder}: not an imgfs mount`;
      expect((await failure(unmount(folder, { lazy: false }))).message).toBe(message);
      sh(`mount -t tmpfs none ${folder}`);
      try {
        expect((await failure(unmount(folder, { lazy: true }))).message).toBe(message);
      } finally {
        sh(`umount ${folder}`);
      }
      const missing = await failure(unmount(join(folder, "x/y"), { lazy: false }));
      expect(missing.message).toMatch(/^umount: \S+\/x\/y: no such file or directory$/);
    }),
  );

  it(
    "cleans up after a process that was killed, and so does the next mount there",
    withBed(async (bed) => {
      const { unmount } = await mountRoom();
      const { path, pid } = await bed.mount({ files: ["a"] });
      const kill = async (victim: number): Promise<void> => {
        process.kill(victim, "SIGKILL");
        await until(() => !isRunning(victim));
        await expect(fs.readdir(path)).rejects.toMatchObject({ code: "ENOTCONN" });
      };
      await kill(pid);
      const second = await bed.mount({ files: ["b"] }, { mountpoint: path });
      expect(await fs.readdir(path)).toEqual(["b"]);
      await kill(second.pid);
      await unmount(path, { lazy: false });
      expect(isMounted(path)).toBe(false);
    }),
  );

  it(
    "does not hang on a mount whose process does not answer",
    withBed(async (bed) => {
      const { unmount } = await mountRoom();
      const { path, pid } = await bed.mount({ files: ["a"] });
      process.kill(pid, "SIGSTOP");
      try {
        const error = await failure(unmount(path, { lazy: false }));
        expect(error.message).toMatch(/its process does not answer/);
      } finally {
        process.kill(pid, "SIGCONT");
      }
      await sleep(50);
      await unmount(path, { lazy: false });
      expect(isRunning(pid)).toBe(false);
    }),
  );
});
