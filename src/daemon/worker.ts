// The thread that owns a mount: makes the filesystem, mounts, and serves until the connection ends.
// Order: everything that can fail without a mount comes first. Between `mounted` and `ended` the main thread answers for
// taking the mount down, whatever happens here.
import { parentPort } from "node:worker_threads";
import { createLogger } from "../base/log.js";
import { adoptChannel, type Channel, ChannelRefused, openChannel } from "../fuse/channel.js";
import type { FileSystem } from "../fuse/operations.js";
import { serve } from "../fuse/session.js";
import { fileSystemMaker } from "./assemble.js";
import { MountFailure, oneLine } from "./options.js";
import { preparePlace } from "./place.js";
import type { WorkerData, WorkerMessage } from "./protocol.js";

function tell(message: WorkerMessage): void {
  parentPort?.postMessage(message);
}

async function run({ options, counters, ledger, logFd }: WorkerData): Promise<void> {
  const log = createLogger({ level: options.logLevel, format: options.logFormat, fd: logFd });
  let fileSystem: FileSystem | undefined;
  try {
    const given = options.channelFd;
    const mountpoint = given === undefined ? await preparePlace(options) : undefined;
    fileSystem = await (await fileSystemMaker(options))({
      options,
      settings: options.fileSystem?.settings,
      log,
      ledger,
      daemonPid: process.pid,
    });
    let channel: Channel;
    if (mountpoint === undefined) {
      channel = adoptChannel(given as number);
      tell({ kind: "mounted", fd: channel.fd });
    } else {
      channel = await openChannel({
        source: options.sources[0] ?? "imgfs",
        mountpoint,
        readOnly: options.readOnly ?? options.upper === undefined,
        devices: options.devices,
        untrusted: fileSystem.features?.untrusted,
        kernel: options.kernel ?? {},
      });
      tell({ kind: "mounted", fd: channel.fd, mountpoint });
    }
    const gauges = fileSystem.gauges?.names ?? [];
    const end = serve({
      fileSystem,
      channel,
      log,
      counters,
      readdirplus: options.readdirplus ?? "always",
      onReady: () => tell({ kind: "ready", gauges }),
    });
    tell({ kind: "ended", end });
  } catch (cause) {
    fileSystem?.destroy?.();
    log.debug("mount refused", { error: cause });
    const hint = cause instanceof ChannelRefused || cause instanceof MountFailure ? cause.hint : undefined;
    tell({ kind: "refused", reason: oneLine(cause), hint });
  }
}

// Started before its options are known: they are its one message.
parentPort?.once("message", (data: WorkerData | undefined) => {
  if (data !== undefined) void run(data);
});
