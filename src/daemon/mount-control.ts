// The control socket over the life of a mount's process. Its folder is opened before the mount could cover it; all else
// waits until whoever waits for the mount has been told that it is live. A socket that cannot be made is a warning in the
// log.
import { closeSync } from "node:fs";
import { nameFromText } from "../base/bytes.js";
import type { Logger } from "../base/log.js";
import { Counters } from "../fuse/counters.js";
import { Ledger } from "../quota/ledger.js";
import { type ControlFolder, openOwnFolder } from "./control-place.js";
import type { Controlled } from "./control-protocol.js";
import { type MountOptions, oneLine } from "./options.js";

export class MountControl {
  private readonly options: MountOptions;
  private readonly log: Logger;
  private readonly counters: Counters;
  private readonly ledger: Ledger;
  private folder: ControlFolder | undefined;
  private problem: string | undefined;
  private socket: { close(): void } | undefined;
  private closed = false;

  constructor(options: MountOptions, log: Logger, counters: SharedArrayBuffer, ledger: SharedArrayBuffer) {
    this.options = options;
    this.log = log;
    this.counters = new Counters(counters);
    this.ledger = new Ledger(ledger);
  }

  /** Before the mount. Does not throw. */
  prepare(): void {
    try {
      this.folder = openOwnFolder(this.options.mountpoint);
    } catch (cause) {
      this.problem = oneLine(cause);
    }
  }

  /** When the mount is live; `mountpoint` is undefined where somebody else has mounted it. Does not reject. */
  async open(mountpoint: string | undefined, gauges: readonly string[]): Promise<void> {
    const { folder } = this;
    if (this.closed) return;
    if (folder === undefined) {
      this.log.warn("no control socket", { reason: this.problem });
      return;
    }
    this.folder = undefined;
    try {
      const { ControlSocket, sweep } = await import("./control.js");
      const device = mountpoint === undefined ? undefined : await deviceAt(mountpoint);
      const name = mountpoint ?? this.options.mountpoint;
      const socket = await ControlSocket.open(
        folder,
        device,
        name,
        await this.controlled(name, device, gauges),
      );
      this.socket = socket;
      if (this.closed) socket.close();
      else void sweep(folder, () => !this.closed);
    } catch (cause) {
      closeSync(folder.fd);
      this.log.warn("no control socket", { reason: `${folder.path}: ${oneLine(cause)}` });
    }
  }

  /** The socket is gone when this returns. Does not throw; may be called again. */
  close(): void {
    if (this.closed) return;
    this.closed = true;
    this.socket?.close();
    if (this.folder !== undefined) closeSync(this.folder.fd);
  }

  private async controlled(
    mountpoint: string,
    device: string | undefined,
    gauges: readonly string[],
  ): Promise<Controlled> {
    const { statusOf } = await import("./status.js");
    const { options, counters, ledger, log } = this;
    const sources = {
      options,
      mountpoint,
      device,
      liveSince: performance.now(),
      liveAt: new Date(),
      counters,
      ledger,
      gauges,
    };
    return {
      ledger,
      status: () => statusOf(sources),
      limited: (figures) => log.info("quota set", { bytes: figures.byteLimit, inodes: figures.inodeLimit }),
    };
  }
}

async function deviceAt(mountpoint: string): Promise<string | undefined> {
  const { mountAtPath, readMounts } = await import("../sys/mountinfo.js");
  return mountAtPath(readMounts(), nameFromText(mountpoint))?.device;
}
