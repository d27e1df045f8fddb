// One mount through fuse-native: libfuse 2's threads take the requests and wait, the thread that started it answers
// them in its event loop. That must be the process's main thread: the addon knows no other loop.
// Never: an exception out of a request, a request without its answer (libfuse's thread would wait for ever), a blocking
// call on the own mount from the thread that serves it.
// The addon does not tell when the mount has gone: the device is asked now and then (see ENDED_EVERY).
import { readdirSync, statSync } from "node:fs";
import { Errno, FsError, toErrno } from "../../base/errno.js";
import type { Logger } from "../../base/log.js";
import { AT_FDCWD, closeFd, duplicateFd, O_RDWR, openAt } from "../../sys/files.js";
import { check } from "../../sys/libc.js";
import { MNT_DETACH, UMOUNT_NOFOLLOW, unmountAt } from "../../sys/mount.js";
import { MS_NODEV, MS_NOSUID, MS_RDONLY } from "../../sys/mount-flags.js";
import { createPoll } from "../../sys/poll.js";
import { takingStderr } from "../../sys/stderr.js";
import { Op } from "../abi.js";
import type { MountRequest } from "../channel.js";
import { Counters } from "../counters.js";
import { flagNames } from "../fusermount.js";
import { type ConnectionInfo, type FileSystem, SUSPENDED } from "../operations.js";
import { STAT_WORDS } from "./attributes.js";
import { NativeExchange } from "./exchange.js";
import {
  ARGUMENT_LIMIT,
  loadAddon,
  type NativeAddon,
  type NativeHandler,
  type NativeThread,
} from "./library.js";
import { type Arguments, type Gives, type Row, rows } from "./operations.js";
import { type Attempt, NativeServices } from "./services.js";

/** How often the device is asked whether the mount is still there, in milliseconds. */
const ENDED_EVERY = 100;
const DEVICE = "/dev/fuse";
const DEVICE_NUMBER = 10 * 256 + 229;
/** Entries in the addon's table of handlers. */
const HANDLERS = 35;
/** "For as long as it likes", in seconds. */
const FOREVER = 0x7fff_ffff;
const ERRNO_LIMIT = 512;
const WRITE_MAX = 131_072;

export interface NativeMount {
  readonly fileSystem: FileSystem;
  readonly request: MountRequest;
  readonly log: Logger;
  /** From createCounterMemory(). */
  readonly counters: SharedArrayBuffer;
  /** Called once, when the kernel has accepted the connection. */
  onReady(info: ConnectionInfo): void;
}

export interface NativeSession {
  /** A descriptor of the connection. */
  readonly fd: number;
  /** Resolves when the connection has ended, the filesystem is released and nothing is left but the dead mount, if any. */
  readonly ended: Promise<void>;
}

/** Mounts and serves. Throws FsError or an Error of one line; then nothing is mounted. */
export function mountNative(options: NativeMount): NativeSession {
  const addon = loadAddon();
  const list = optionList(options.request);
  checkDevice();
  return new Session(addon, options).start(list);
}

/** libfuse's options. Nothing in them can be quoted. */
function optionList({ source, subtype, mountpoint, flags, allowOther, maxRead }: MountRequest): string {
  const root = process.geteuid?.() === 0;
  for (const text of [source, subtype]) {
    if (/[,\\\n]/.test(text)) {
      throw new Error(`transport fuse-native: a comma, backslash or newline cannot be passed on: ${text}`);
    }
  }
  const unknown = flagNames.reduce((left, [flag]) => left & ~flag, flags);
  if (unknown !== 0) throw new Error("transport fuse-native: libfuse 2 does not know these mount options");
  // A writable mount's objects may be reached by several names, each of which is an inode of its own to the kernel:
  // attributes and pages are not to be kept over a change through another.
  const readOnly = (flags & MS_RDONLY) !== 0;
  const list = [
    ...flagNames.filter(([flag]) => (flags & flag) !== 0).map(([, name]) => name),
    // libfuse sets these two by itself; without root it is not asked.
    ...((flags & MS_NODEV) === 0 && root ? ["dev"] : []),
    ...((flags & MS_NOSUID) === 0 && root ? ["suid"] : []),
    "default_permissions",
    // Without root it is a privilege that /etc/fuse.conf gives.
    ...((allowOther ?? root) ? ["allow_other"] : []),
    // libfuse's own scruple; fusermount3, which serves libfuse 2 too, does not know the word.
    ...(root ? ["nonempty"] : []),
    "use_ino",
    "big_writes",
    `entry_timeout=${FOREVER}`,
    `negative_timeout=${FOREVER}`,
    `attr_timeout=${readOnly ? FOREVER : 0}`,
    ...(readOnly ? ["kernel_cache"] : []),
    ...(maxRead === undefined ? [] : [`max_read=${maxRead}`]),
    `subtype=${subtype}`,
    `fsname=${source}`,
  ].join(",");
  for (const text of [list, mountpoint]) {
    if (Buffer.byteLength(text) > ARGUMENT_LIMIT - 2) {
      throw new Error(
        `transport fuse-native: longer than ${ARGUMENT_LIMIT - 2} bytes: ${text.slice(0, 60)}...`,
      );
    }
  }
  return `-o${list}`;
}

/** What libfuse would only tell stderr. */
function checkDevice(): void {
  const fd = openAt(AT_FDCWD, Buffer.from(DEVICE), O_RDWR);
  if (fd === -Errno.ENOENT) throw new FsError(-fd, `${DEVICE} (is the fuse module loaded?)`);
  closeFd(check(fd, DEVICE));
}

/** The descriptors of this process that are the FUSE device. */
function deviceFds(): Set<number> {
  const fds = readdirSync("/proc/self/fd").map(Number);
  return new Set(
    fds.filter((fd) => {
      try {
        return statSync(`/proc/self/fd/${fd}`).rdev === DEVICE_NUMBER;
      } catch {
        return false;
      }
    }),
  );
}

class Session {
  private readonly addon: NativeAddon;
  private readonly options: NativeMount;
  private readonly x: NativeExchange;
  private readonly counters: Counters;
  private readonly services: NativeServices;
  /** The addon's own record: its threads use it until the process ends. */
  private readonly state: Buffer;
  private destroyed = false;
  private unique = 0;

  constructor(addon: NativeAddon, options: NativeMount) {
    this.addon = addon;
    this.options = options;
    this.x = new NativeExchange(options.fileSystem);
    this.counters = new Counters(options.counters);
    this.counters.own();
    this.services = new NativeServices(options.log);
    this.state = Buffer.alloc(addon.sizeof_fuse_thread_t);
  }

  start(list: string): NativeSession {
    const { addon, options, state } = this;
    const { handlers, implemented } = this.table();
    const before = deviceFds();
    const { text, error } = takingStderr(() =>
      addon.fuse_native_mount(
        options.request.mountpoint,
        list,
        state,
        this,
        (size) => Buffer.alloc(size),
        handlers,
        implemented,
      ),
    );
    if (error !== undefined) {
      const reason = text.trim().replaceAll("\n", "; ") || "it does not say why";
      throw new Error(`transport fuse-native: libfuse cannot mount: ${reason}`);
    }
    const own = [...deviceFds()].find((fd) => !before.has(fd));
    const fd = own === undefined ? -Errno.EBADF : duplicateFd(own);
    // Without it nobody would hear of the end.
    if (fd < 0) unmountAt(Buffer.from(options.request.mountpoint), MNT_DETACH | UMOUNT_NOFOLLOW);
    return { fd: check(fd, "descriptor of the mount"), ended: this.watch(fd) };
  }

  private table(): { handlers: NativeHandler[]; implemented: Uint32Array } {
    const handlers = new Array<NativeHandler>(HANDLERS).fill(() => {});
    const implemented = new Uint32Array(HANDLERS);
    const add = (name: string, handler: NativeHandler): void => {
      const index = this.addon[`op_${name}`] as number;
      handlers[index] = handler;
      implemented[index] = 1;
    };
    add("init", (thread) => this.initialise(thread));
    for (const row of rows) {
      if (this.options.fileSystem[row.needs] !== undefined) add(row.name, this.handler(row));
    }
    return { handlers, implemented };
  }

  private initialise(thread: NativeThread): void {
    const { fileSystem, log, onReady } = this.options;
    this.counters.request(Op.INIT);
    const info: ConnectionInfo = { protocolMinor: 19, flags: 0n, maxWrite: WRITE_MAX };
    try {
      fileSystem.init?.(info, this.services);
    } catch (error) {
      log.error("unexpected error at the start", { error });
    }
    this.addon["fuse_native_signal_init"]?.(thread, 0);
    fileSystem.gauges?.fill(this.counters.gauges);
    this.counters.rest();
    onReady(info);
  }

  private handler(row: Row): NativeHandler {
    const { x, services, counters } = this;
    const { fileSystem } = this.options;
    const signal = this.addon[`fuse_native_signal_${row.name}`];
    return (thread, _opcode, ...args) => {
      const all = args as unknown as Arguments;
      const unique = ++this.unique;
      counters.request(row.opcode);
      const { since } = counters;
      let waits = false;
      const attempt: Attempt = {
        run: () => {
          services.current = attempt;
          x.request.unique = unique;
          counters.begin(row.opcode, since);
          const status = this.attempt(row, all, thread);
          if (status !== SUSPENDED) attempt.answer(status);
          else if (!waits) {
            waits = true;
            counters.wait(1);
          }
          fileSystem.gauges?.fill(counters.gauges);
          counters.rest();
        },
        answer: (status) => {
          if (status < 0) counters.error(row.opcode);
          counters.answered(row.opcode, since);
          if (waits) counters.wait(-1);
          signal?.(thread, status, ...resultsOf(x, row.gives, status, all[row.buffer] as unknown as Buffer));
        },
      };
      attempt.run();
    };
  }

  private attempt(row: Row, args: Arguments, thread: NativeThread): number {
    const { log } = this.options;
    if (this.destroyed) return -Errno.ENOTCONN;
    try {
      const status = row.run(this.x, args, thread);
      if (status > -ERRNO_LIMIT || status === SUSPENDED) return status;
      log.error("filesystem returned no errno", { op: row.name, status });
      return -Errno.EIO;
    } catch (cause) {
      return -toErrno(cause, (error) => {
        const reason = error instanceof Error ? error.message : String(error);
        log.error("unexpected error", { op: row.name, reason });
      });
    }
  }

  private watch(fd: number): Promise<void> {
    // The device always tells that its connection has ended; asked for nothing else, it wakes nobody at requests.
    const poll = createPoll([fd], 0);
    return new Promise((done) => {
      const timer = setInterval(() => {
        if (poll.wait(0) <= 0) return;
        clearInterval(timer);
        void this.end(fd).then(done);
      }, ENDED_EVERY);
    });
  }

  private async end(fd: number): Promise<void> {
    const { fileSystem, log, request } = this.options;
    await this.services.close();
    this.destroyed = true;
    try {
      fileSystem.destroy?.();
    } catch (error) {
      log.error("unexpected error while the filesystem ended", { error });
    }
    closeFd(fd);
    this.addon.fuse_native_unmount(request.mountpoint, this.state);
  }
}

const noStat = new Uint32Array(STAT_WORDS);

/** What an operation gives beside its status. The addon reads it after a failure, too. */
function resultsOf(x: NativeExchange, gives: Gives, status: number, buffer: Buffer): readonly unknown[] {
  switch (gives) {
    case "nothing":
      return [];
    case "stat":
      return [status < 0 ? noStat : x.stat];
    case "statfs":
      return [x.statfs];
    case "listing": {
      const listing = status < 0 ? undefined : x.listing;
      return [listing?.names ?? [], listing?.stats() ?? []];
    }
    case "target":
      return [status < 0 ? "" : x.target];
    case "handle":
      return [status < 0 ? 0 : x.handle];
    case "value":
      return [buffer.buffer];
    case "data":
      return [0, buffer.buffer];
  }
}
