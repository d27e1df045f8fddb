// The thread that owns a mount: makes the filesystem, mounts, and serves until the connection ends.
// Order: everything that can fail without a mount comes first. Between `mounted` and `ended` the main thread answers for
// taking the mount down, whatever happens here.
import { parentPort, workerData } from "node:worker_threads";
import { createLogger } from "../base/log.js";
import { openDirect } from "../fuse/channel.js";
import type { FileSystem } from "../fuse/operations.js";
import { serve } from "../fuse/session.js";
import type { CreateFileSystem } from "./assemble.js";
import { oneLine } from "./options.js";
import { preparePlace } from "./place.js";
import type { WorkerData, WorkerMessage } from "./protocol.js";

const { options, counters, logFd } = workerData as WorkerData;
const log = createLogger({ level: options.logLevel, format: options.logFormat, fd: logFd });

function tell(message: WorkerMessage): void {
  parentPort?.postMessage(message);
}

async function createFileSystem(): Promise<FileSystem> {
  const url = options.fileSystem?.url ?? new URL("./assemble.js", import.meta.url).href;
  const module = (await import(url)) as { createFileSystem: CreateFileSystem };
  return module.createFileSystem({ options, log, daemonPid: process.pid });
}

async function run(): Promise<void> {
  let fileSystem: FileSystem | undefined;
  try {
    const mountpoint = await preparePlace(options);
    fileSystem = await createFileSystem();
    const channel = openDirect({
      source: options.sources[0] ?? "imgfs",
      mountpoint: Buffer.from(mountpoint),
      readOnly: options.upper === undefined,
      devices: options.devices,
      nosuid: options.nosuid ?? false,
      allowOther: options.privateToUser !== true,
    });
    tell({ kind: "mounted", fd: channel.fd, mountpoint });
    const end = serve({
      fileSystem,
      channel,
      log,
      counters,
      readdirplus: options.readdirplus ?? "always",
      onReady: () => tell({ kind: "ready" }),
    });
    tell({ kind: "ended", end });
  } catch (cause) {
    fileSystem?.destroy?.();
    log.debug("mount refused", { error: cause });
    tell({ kind: "refused", reason: oneLine(cause) });
  }
}

await run();
