// Mounting for the command line: in a process of its own, or in this one. Loads nothing but what the call at hand needs:
// the command that starts a detached mount never loads the C library.
import { spawn } from "node:child_process";
import { fileURLToPath } from "node:url";
import { givenFd } from "./given-fd.js";
import { keepsLog } from "./log-place.js";
import { MountFailure, type MountOptions, resolveOptions } from "./options.js";
import type { UnmountOptions } from "./unmount.js";

export { MountFailure, type MountOptions } from "./options.js";

/** A mount holds little memory that it does not need; bin/imgfs says the same to the one that it starts. */
const FRUGAL = { flags: ["--optimize-for-size"], environment: { MALLOC_ARENA_MAX: "2" } };

/**
 * Starts a process that mounts and serves, and resolves when the mount is live. The process has its own session, no
 * terminal and the working directory `/`. Rejects with MountFailure, whose message is the process's own line.
 */
export async function mountDetached(options: MountOptions): Promise<{ pid: number }> {
  const given = givenFd(options.mountpoint);
  const resolved = { ...resolveOptions(options), ...(given === undefined ? {} : { channelFd: CHANNEL_FD }) };
  const entry = fileURLToPath(new URL("./main.js", import.meta.url));
  // The paths on the command line are for people who look at the process list; what counts comes through stdin.
  const shown = [...resolved.sources, resolved.mountpoint];
  return new Promise((done, fail) => {
    const child = spawn(process.execPath, [...FRUGAL.flags, entry, ...shown], {
      cwd: "/",
      env: { ...FRUGAL.environment, ...process.env },
      detached: true,
      stdio: [
        "pipe",
        "ignore",
        keepsLog(2) ? "inherit" : "ignore",
        "pipe",
        ...(given === undefined ? [] : [given]),
      ],
    });
    const { pid } = child;
    const [input, , , output] = child.stdio;
    let line = "";
    let ended: string | undefined;
    const settle = (): void => {
      if (line === "ready\n" && pid !== undefined) {
        child.unref();
        done({ pid });
        return;
      }
      // A failure is told when nothing of the process is left.
      if (ended === undefined) {
        child.once("exit", settle);
        return;
      }
      const error = /^error (\d+) (.*)\n(?:(.+)\n)?$/.exec(line);
      fail(
        error
          ? new MountFailure(error[2] as string, Number(error[1]), error[3])
          : new MountFailure(`mount ${resolved.mountpoint}: the process ended without a word (${ended})`),
      );
    };
    child.on("error", (error) =>
      fail(new MountFailure(`cannot start ${process.execPath}: ${error.message}`, 1)),
    );
    child.on("exit", (code, signal) => {
      ended = signal ?? `exit code ${code}`;
    });
    input?.on("error", () => {});
    input?.end(JSON.stringify(resolved));
    output?.on("data", (chunk: Buffer) => {
      line += chunk.toString();
    });
    output?.on("close", settle);
  });
}

/** Where main.ts finds a descriptor that was given. */
const CHANNEL_FD = 4;

/**
 * Mounts and serves in this process until the mount is gone; the exit code. Takes over SIGINT, SIGTERM, SIGHUP and
 * SIGUSR1 and leaves the current directory. Rejects with MountFailure when the mount never served.
 */
export async function mountForeground(options: MountOptions): Promise<number> {
  const given = givenFd(options.mountpoint);
  const resolved = { ...resolveOptions(options), ...(given === undefined ? {} : { channelFd: given }) };
  const { runMount } = await import("./process.js");
  const { exitNow } = await import("../sys/process.js");
  process.chdir("/");
  return runMount(resolved, {
    onReady: () => {},
    onAbandon: (exitCode, failure) => {
      if (failure !== undefined) process.stderr.write(`imgfs: ${failure.message}\n`);
      exitNow(exitCode);
    },
  });
}

/**
 * Takes a mount away and waits until its process has ended. Rejects with MountFailure: no imgfs mount there, in use, or
 * a process that does not end.
 */
export async function unmount(mountpoint: string, options: UnmountOptions): Promise<void> {
  const room = await import("./unmount.js");
  await room.unmount(mountpoint, options);
}
