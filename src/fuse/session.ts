// One connection served to its end by the calling thread: read a request, serve it, write the reply. serve() blocks and
// never returns to the event loop; timers and messages of this thread do not run meanwhile.
// Never: an end because of one request. Only the kernel (unmounted, aborted) or a broken channel ends the loop, and
// then the filesystem's destroy() has run once and no helper works for it any more.
import { Errno, errnoName } from "../base/errno.js";
import type { Logger } from "../base/log.js";
import { readFd, writeFd } from "../sys/files.js";
import { createPoll } from "../sys/poll.js";
import { InterruptIn, Op } from "./abi.js";
import type { Channel } from "./channel.js";
import { Counters } from "./counters.js";
import { Dispatcher } from "./dispatch.js";
import { flagNames, type InitOptions, MAX_TRANSFER, negotiate } from "./init.js";
import type { ConnectionInfo, FileSystem, Gauges } from "./operations.js";
import { DeferredServices } from "./services.js";
import { Exchange } from "./wire.js";

export interface SessionOptions extends InitOptions {
  readonly fileSystem: FileSystem;
  readonly channel: Channel;
  readonly log: Logger;
  /** From createCounterMemory(), to be read by any thread. */
  readonly counters: SharedArrayBuffer;
  /** Called once, when the kernel has accepted the connection: from here on the mount serves. */
  onReady(info: ConnectionInfo): void;
}

/** Why a session ended. */
export type SessionEnd =
  /** The last mount of it is gone, or DESTROY came. */
  | { readonly kind: "unmounted" }
  /** Aborted by the administrator (fusectl): a dead mount remains. */
  | { readonly kind: "aborted" }
  /** It never began, or the channel broke: a dead mount may remain. `reason` is one line. */
  | { readonly kind: "failed"; readonly reason: string };

/** Serves until the connection ends. Closes the channel. Does not throw. */
export function serve(options: SessionOptions): SessionEnd {
  const session = new Session(options);
  try {
    return session.run();
  } catch (cause) {
    options.log.error("session failed", { error: cause });
    return { kind: "failed", reason: cause instanceof Error ? cause.message : String(cause) };
  } finally {
    session.close();
  }
}

class Session {
  private readonly options: SessionOptions;
  private readonly fd: number;
  private readonly x = new Exchange(MAX_TRANSFER);
  private readonly counters: Counters;
  private readonly dispatcher: Dispatcher;
  private readonly services: DeferredServices;
  private readonly gauges: Gauges | undefined;
  private destroyed = false;
  private end: SessionEnd | undefined;

  constructor(options: SessionOptions) {
    this.options = options;
    this.fd = options.channel.fd;
    this.counters = new Counters(options.counters);
    this.dispatcher = new Dispatcher(this.x, options.fileSystem, this.counters, options.log);
    const { log, fileSystem } = options;
    this.services = new DeferredServices(this.x, this.fd, log, this.counters, fileSystem.helperModule);
    this.gauges = fileSystem.gauges;
    this.counters.own();
  }

  run(): SessionEnd {
    const { fd, x, services } = this;
    const { inAddress, inCapacity } = x;
    const poll = createPoll([fd, services.wakeFd]);
    const serveAgain = (message: Uint8Array, since: number): void => {
      if (!x.load(x.restore(message))) return;
      this.counters.begin(x.opcode, since);
      this.answer();
      this.counters.rest();
    };
    while (this.end === undefined) {
      if (services.waiting) {
        const ready = poll.wait(services.patience);
        services.seeToStarts();
        if (ready <= 0) continue;
        if (poll.ready(1)) {
          services.resume(serveAgain);
          continue;
        }
      }
      const length = readFd(fd, inAddress, inCapacity);
      if (length > 0) this.handle(length);
      else this.end = this.endOf(-length);
    }
    return this.end;
  }

  /** Releases the filesystem and the channel. */
  close(): void {
    this.services.close();
    this.destroy();
    this.options.channel.close();
  }

  private handle(length: number): void {
    const { x, services } = this;
    if (!x.load(length)) {
      this.options.log.error("malformed message from the kernel", { length });
      return;
    }
    this.counters.request(x.opcode);
    switch (x.opcode) {
      case Op.INIT:
        this.initialise();
        break;
      case Op.INTERRUPT:
        if (x.bodyLength >= InterruptIn.byteLength) services.interrupt(x.u64(InterruptIn.unique));
        break;
      case Op.NOTIFY_REPLY:
        break;
      case Op.DESTROY:
        this.destroy();
        this.write(x.seal(0));
        this.end = { kind: "unmounted" };
        break;
      default:
        this.answer();
    }
    this.counters.rest();
  }

  private answer(): void {
    const { counters } = this;
    const reply = this.dispatcher.handle();
    if (reply > 0) {
      if (this.write(reply) === -Errno.ENOENT) this.dispatcher.undo();
      counters.answered(this.x.opcode, counters.since);
    }
    this.gauges?.fill(counters.gauges);
  }

  private write(length: number): number {
    const written = writeFd(this.fd, this.x.outAddress, length);
    // ENOENT: the request is gone, its caller was killed. ENODEV and the like are met again by the next read.
    if (written < 0 && written !== -Errno.ENOENT && written !== -Errno.ENODEV) {
      this.options.log.error("reply refused", { op: this.dispatcher.opName(), errno: errnoName(-written) });
    }
    return written;
  }

  private initialise(): void {
    const { fileSystem, log, onReady } = this.options;
    const outcome = negotiate(this.x, fileSystem, this.options);
    if (outcome.kind === "agreed") fileSystem.init?.(outcome.info, this.services);
    const written = this.write(this.x.seal(outcome.reply));
    if (outcome.kind === "refused") this.end = { kind: "failed", reason: outcome.reason };
    else if (outcome.kind === "agreed" && written > 0) {
      this.gauges?.fill(this.counters.gauges);
      log.debug("connected", {
        protocol: `7.${outcome.info.protocolMinor}`,
        flags: flagNames(outcome.info.flags).join(","),
      });
      onReady(outcome.info);
    }
  }

  /** What a failed read means; undefined to go on. */
  private endOf(errno: number): SessionEnd | undefined {
    switch (errno) {
      case Errno.EINTR:
      case Errno.EAGAIN:
      case Errno.ENOENT:
        return undefined;
      case Errno.ENODEV:
        return { kind: "unmounted" };
      case Errno.ECONNABORTED:
        return { kind: "aborted" };
      default:
        return { kind: "failed", reason: `read from the FUSE device: ${errnoName(errno)}` };
    }
  }

  private destroy(): void {
    if (this.destroyed) return;
    this.destroyed = true;
    try {
      this.options.fileSystem.destroy?.(this.services.busy);
    } catch (error) {
      this.options.log.error("unexpected error while the filesystem ended", { error });
    }
  }
}
