// One mount's process, seen from its main thread: starts the worker, listens to signals, and sees to it that the mount
// is gone when the process is.
// Never: touching the own mount by path (a thread that waits for the worker could never stop it, and with the transport
// fuse-native it is itself what serves), ending while the mount is there. The worker's thread blocks in read(2); what
// reaches it from here is umount2(2) alone.
import { closeSync, openSync, readFileSync, renameSync, rmSync, writeFileSync, writeSync } from "node:fs";
import { nameFromText } from "../base/bytes.js";
import { createLogger, type Logger } from "../base/log.js";
import { Counters, createCounterMemory, formatCounters } from "../fuse/counters.js";
import type { SessionEnd } from "../fuse/session.js";
import { createLedgerMemory } from "../quota/ledger.js";
import { MountControl } from "./mount-control.js";
import { MountFailure, type MountOptions, oneLine } from "./options.js";
import type { WorkerData, WorkerMessage } from "./protocol.js";
import { ServingThread } from "./thread.js";

/** How a served mount came to its end. */
interface Outcome {
  mounted?: { readonly fd: number; readonly mountpoint?: string };
  ready: boolean;
  refused?: string;
  hint?: string | undefined;
  end?: SessionEnd;
  crash?: unknown;
}

export const stopSignals = ["SIGINT", "SIGTERM", "SIGHUP"] as const;
const INTERRUPTED_TWICE = 130;

export interface MountHooks {
  /** The mount serves. An exception from here takes it down again. */
  onReady(): void;
  /**
   * The process shall end although its mount is there: a second SIGINT, or a stop of a mount that is somebody else's.
   * `failure` is what has not been told otherwise.
   */
  onAbandon(exitCode: number, failure?: MountFailure): void;
  /** Ends the mount in place of the signals to this process, which are then somebody else's. */
  readonly stop?: AbortSignal;
  /** Emits the signals that end the mount, in place of the process. */
  readonly signals?: NodeJS.EventEmitter;
}

/**
 * Mounts and serves until the mount is gone. The exit code: 0 after a clean end, 1 otherwise. Rejects with
 * MountFailure when the mount never served; then nothing is mounted.
 */
export async function runMount(
  options: MountOptions,
  hooks: MountHooks,
  thread?: ServingThread,
): Promise<number> {
  const logFd = options.logFile === undefined ? 2 : openLog(options.logFile);
  try {
    return await new MountProcess(options, hooks, logFd).run(thread ?? new ServingThread());
  } finally {
    if (options.pidFile !== undefined) removePidFile(options.pidFile);
    if (logFd !== 2) closeSync(logFd);
  }
}

function openLog(path: string): number {
  try {
    return openSync(path, "a", 0o640);
  } catch (cause) {
    throw new MountFailure(`log file ${oneLine(cause)}`, 1);
  }
}

/** Appears whole, and only when the mount is live: the file of a mount that goes on is not touched before. */
function writePidFile(path: string): void {
  const temporary = `${path}.${process.pid}`;
  try {
    // Not through what somebody may have put there.
    rmSync(temporary, { force: true });
    writeFileSync(temporary, `${process.pid}\n`, { flag: "wx" });
    renameSync(temporary, path);
  } catch (cause) {
    rmSync(temporary, { force: true });
    throw new MountFailure(`pid file ${oneLine(cause)}`, 1);
  }
}

/** Removes the file when it is ours. */
function removePidFile(path: string): void {
  try {
    if (readFileSync(path, "utf8") === `${process.pid}\n`) rmSync(path);
  } catch {
    // Gone already, or never written: nothing is left to remove.
  }
}

class MountProcess {
  private readonly options: MountOptions;
  private readonly hooks: MountHooks;
  private readonly logFd: number;
  private readonly log: Logger;
  private readonly counterMemory = createCounterMemory();
  private readonly ledgerMemory = createLedgerMemory();
  private readonly control: MountControl;
  private readonly outcome: Outcome = { ready: false };
  /** What a live mount gets when whoever waits for it has been told. */
  private prepared: Promise<unknown> | undefined;
  private stopping = false;
  private onRefused: (() => void) | undefined;

  constructor(options: MountOptions, hooks: MountHooks, logFd: number) {
    this.options = options;
    this.hooks = hooks;
    this.logFd = logFd;
    this.log = createLogger({ level: options.logLevel, format: options.logFormat, fd: logFd });
    this.control = new MountControl(options, this.log, this.counterMemory, this.ledgerMemory);
  }

  async run(thread: ServingThread): Promise<number> {
    const onSignal = (signal: NodeJS.Signals): void => void this.stop(signal);
    const onStats = (): void => this.printCounters();
    const { stop, signals = process } = this.hooks;
    if (stop === undefined) for (const signal of stopSignals) signals.on(signal, onSignal);
    else stop.addEventListener("abort", () => onSignal("SIGTERM"));
    process.on("SIGUSR1", onStats);
    try {
      const data = {
        options: this.options,
        counters: this.counterMemory,
        ledger: this.ledgerMemory,
        logFd: this.logFd,
      };
      const refused = new Promise<undefined>((done) => {
        this.onRefused = () => done(undefined);
      });
      const served =
        this.options.transport === "fuse-native"
          ? this.serveHere(data, thread)
          : thread.serve(data, (message) => this.hear(message));
      // While the other thread has yet to open the image: long before there is a mount.
      this.control.prepare();
      // A thread that asked a hung mount for its process may never end; there is nothing of it to take down.
      this.outcome.crash = await Promise.race([served, refused]);
      await this.prepared;
      await this.takeDown();
    } finally {
      this.control.close();
      for (const signal of stopSignals) signals.off(signal, onSignal);
      process.off("SIGUSR1", onStats);
    }
    return this.conclude();
  }

  /** By the transport that knows no other thread than this; what it cannot do is refused as a message. */
  private async serveHere(data: WorkerData, thread: ServingThread): Promise<undefined> {
    thread.dismiss();
    const { serveNative } = await import("./native.js");
    await serveNative(data, (message) => this.hear(message));
  }

  private hear(message: WorkerMessage): void {
    const { outcome } = this;
    switch (message.kind) {
      case "mounted":
        outcome.mounted = message;
        if (this.stopping) void this.unmount();
        break;
      case "ready":
        try {
          if (this.options.pidFile !== undefined) writePidFile(this.options.pidFile);
          this.hooks.onReady();
          outcome.ready = true;
        } catch (cause) {
          outcome.refused = oneLine(cause);
          this.stopping = true;
          void this.unmount();
        }
        this.prepared = Promise.allSettled([
          this.control.open(outcome.mounted?.mountpoint, message.gauges),
          this.prepareEnd(),
        ]);
        break;
      case "refused":
        outcome.refused = message.reason;
        outcome.hint = message.hint;
        if (outcome.mounted === undefined) this.onRefused?.();
        break;
      case "ended":
        outcome.end = message.end;
        break;
    }
  }

  /** The process ends without its mount's end. */
  private abandon(exitCode: number, failure?: MountFailure): void {
    this.control.close();
    this.hooks.onAbandon(exitCode, failure);
  }

  /** Loads what the end needs while the files are sure to be there: the package may be replaced under a live mount. */
  private async prepareEnd(): Promise<void> {
    await Promise.all([
      import("../fuse/take-away.js"),
      import("../sys/mountinfo.js"),
      import("../sys/process.js"),
    ]);
    await Promise.all([import("../sys/files.js"), import("../fuse/channel.js")]);
  }

  private async stop(signal: NodeJS.Signals): Promise<void> {
    if (this.stopping && signal === "SIGINT") {
      await this.detach();
      this.abandon(INTERRUPTED_TWICE);
      return;
    }
    this.stopping = true;
    this.log.debug("stopping", { signal });
    if (this.outcome.mounted !== undefined) await this.unmount();
  }

  /** Unmounts; a mount in use is detached, and goes with its last user. */
  private async unmount(): Promise<void> {
    const { mounted } = this.outcome;
    if (mounted !== undefined && mounted.mountpoint === undefined) return this.leaveToOpener();
    const path = await this.ownPath();
    if (path === undefined) return;
    const { takeAway } = await import("../fuse/take-away.js");
    const { status, said } = await takeAway(path, false);
    if (status < 0) {
      const { resultText } = await import("../sys/libc.js");
      const reason = said === "" ? resultText(status) : said;
      this.log.warn("mount is in use: detached, ends with its last user", { reason });
      await this.detach();
    }
  }

  private async detach(): Promise<void> {
    const path = await this.ownPath();
    if (path === undefined) return;
    const { takeAway } = await import("../fuse/take-away.js");
    await takeAway(path, true);
  }

  /** Somebody else's mount: this process can only leave it. What it has written is on disk already. */
  private leaveToOpener(): void {
    if (this.options.pidFile !== undefined) removePidFile(this.options.pidFile);
    const { refused } = this.outcome;
    if (refused !== undefined) {
      this.abandon(1, new MountFailure(`mount ${this.options.mountpoint}: ${refused}`));
      return;
    }
    this.log.warn("stopped; the mount stays dead until whoever opened it unmounts it");
    this.abandon(0);
  }

  /** The mountpoint, while a mount of ours is on top there. */
  private async ownPath(): Promise<string | undefined> {
    const mountpoint = this.outcome.mounted?.mountpoint;
    if (mountpoint === undefined) return undefined;
    const { readMounts, mountAtPath } = await import("../sys/mountinfo.js");
    const { mountTypeOf } = await import("../fuse/channel.js");
    const top = mountAtPath(readMounts(), nameFromText(mountpoint));
    return top?.type === mountTypeOf(this.options.kernel ?? {}) ? mountpoint : undefined;
  }

  /** After the worker's end: whatever of the mount is left goes now. */
  private async takeDown(): Promise<void> {
    const { mounted, end, crash } = this.outcome;
    if (mounted === undefined || (end?.kind === "unmounted" && crash === undefined)) return;
    // With the descriptor closed the kernel fails what still waits, and the unmount below cannot hang.
    if (end === undefined) {
      const { closeFd } = await import("../sys/files.js");
      closeFd(mounted.fd);
    }
    await this.detach();
  }

  private conclude(): number {
    const { outcome } = this;
    if (this.options.statsOnExit && outcome.ready) this.printCounters();
    const { end, crash, refused } = outcome;
    const trouble =
      crash !== undefined
        ? `crashed: ${oneLine(crash)}`
        : end?.kind === "failed"
          ? end.reason
          : end?.kind === "aborted"
            ? "the connection was aborted"
            : undefined;
    if (refused !== undefined || !outcome.ready) {
      const reason = refused ?? trouble ?? "stopped before it was live";
      const { mountpoint } = this.options;
      throw new MountFailure(
        `mount ${reason.startsWith(`${mountpoint}: `) ? "" : `${mountpoint}: `}${reason}`,
        32,
        outcome.hint,
      );
    }
    if (trouble !== undefined) {
      this.log.error(`mount ${this.options.mountpoint}: ${trouble}`, { error: crash });
      return 1;
    }
    return 0;
  }

  private printCounters(): void {
    const report = new Counters(this.counterMemory).report();
    const text =
      this.options.logFormat === "json"
        ? `${JSON.stringify({ time: new Date().toISOString(), level: "info", msg: "requests", requests: report })}\n`
        : formatCounters(report);
    try {
      writeSync(this.logFd, text);
    } catch {
      // A log that cannot be written must not end the mount.
    }
  }
}
