// What worker.ts is, for the fuse-native transport: makes the filesystem, mounts, and serves until the connection ends.
// It runs in the main thread, because the addon knows no other, and so nothing there may touch the own mount by path.
import { nameFromText } from "../base/bytes.js";
import { createLogger, type Logger } from "../base/log.js";
import { requestOf } from "../fuse/channel.js";
import type { FileSystem } from "../fuse/operations.js";
import type { SessionEnd } from "../fuse/session.js";
import { mountAtPath, readMounts } from "../sys/mountinfo.js";
import { fileSystemMaker } from "./assemble.js";
import { MountFailure, type MountOptions, oneLine } from "./options.js";
import { isInside, preparePlace } from "./place.js";
import type { WorkerData, WorkerMessage } from "./protocol.js";

/** Resolves when the connection has ended, or nothing was mounted; what happened is told. Does not reject. */
export async function serveNative(data: WorkerData, tell: (message: WorkerMessage) => void): Promise<void> {
  const { options, counters, ledger, logFd } = data;
  const log = createLogger({ level: options.logLevel, format: options.logFormat, fd: logFd });
  let fileSystem: FileSystem | undefined;
  try {
    if (options.channelFd !== undefined) {
      throw new MountFailure("transport fuse-native: libfuse 2 mounts by itself, it cannot serve /dev/fd/N");
    }
    const { mountNative } = await import("../fuse/native/session.js");
    const mountpoint = await preparePlace(options);
    refuseOwnFiles(options, mountpoint);
    fileSystem = await (await fileSystemMaker(options))({
      options,
      settings: options.fileSystem?.settings,
      log,
      ledger,
      daemonPid: process.pid,
    });
    const gauges = fileSystem.gauges?.names ?? [];
    const session = mountNative({
      fileSystem,
      request: requestOf({
        source: options.sources[0] ?? "imgfs",
        mountpoint,
        readOnly: options.readOnly ?? options.upper === undefined,
        devices: options.devices,
        untrusted: fileSystem.features?.untrusted,
        kernel: options.kernel ?? {},
      }),
      log,
      counters,
      onReady: () => tell({ kind: "ready", gauges }),
    });
    const device = deviceAt(mountpoint);
    tell({ kind: "mounted", fd: session.fd, mountpoint });
    await session.ended;
    // The device says only that it is over. With the mount still there somebody has aborted the connection.
    const end: SessionEnd = { kind: deviceAt(mountpoint) === device ? "aborted" : "unmounted" };
    tell({ kind: "ended", end });
  } catch (cause) {
    destroy(fileSystem, log);
    log.debug("mount refused", { error: cause });
    tell({
      kind: "refused",
      reason: oneLine(cause),
      hint: cause instanceof MountFailure ? cause.hint : undefined,
    });
  }
}

function deviceAt(mountpoint: string): string | undefined {
  return mountAtPath(readMounts(), nameFromText(mountpoint))?.device;
}

/** The thread that serves writes the pid file: inside the mount it would wait for itself. */
function refuseOwnFiles({ pidFile }: MountOptions, mountpoint: string): void {
  if (pidFile === undefined || !isInside(pidFile, mountpoint)) return;
  throw new MountFailure(`pid file ${pidFile} lies in mountpoint ${mountpoint}`);
}

function destroy(fileSystem: FileSystem | undefined, log: Logger): void {
  try {
    fileSystem?.destroy?.();
  } catch (error) {
    log.error("unexpected error while the filesystem ended", { error });
  }
}
