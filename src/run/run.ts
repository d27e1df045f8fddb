// Runs a command on an image: mounts it in a temporary place, has the command run there, and takes everything away.
//   unshare   our server mounts inside a fresh user namespace (root: a mount namespace) and starts the command in further
//             ones: the image's owners have ids there, setuid programs work, signals are exact
//   bwrap     the server mounts outside, through fusermount3, and bubblewrap runs the command: for where a user namespace
//             gives no rights
// Invariants: the server ends when this process does, whatever ends it, and takes the mount along; the temporary folder is
// locked meanwhile.
import { chmodSync, closeSync, existsSync, read, readFileSync, writeSync } from "node:fs";
import { constants } from "node:os";
import { join } from "node:path";
import { fileURLToPath } from "node:url";
import { nameFromText } from "../base/bytes.js";
import { createLogger, type Logger } from "../base/log.js";
import type { IdRange } from "../daemon/id-maps.js";
import { type MountOptions, resolveOptions } from "../daemon/options.js";
import { isOurs } from "../daemon/place.js";
import { unmount } from "../daemon/unmount.js";
import { readMounts } from "../sys/mountinfo.js";
import { createSocketPair } from "../sys/socket.js";
import { spawnProgram, waitForChild } from "../sys/spawn.js";
import { bubblewrapWords, commandPid, findBubblewrap, INFO_FD } from "./bubblewrap.js";
import { startInNamespaces } from "./namespaces.js";
import { findLeftovers, makePlace, type Place, ROOTFS, removePlace } from "./place.js";
import { ownEnvironment } from "./programs.js";
import {
  type MapLine,
  type NamespaceMaps,
  RunCode,
  RunFailure,
  type RunRequest,
  type ServerRequest,
} from "./request.js";
import { releaseStreams } from "./streams.js";
import { singleMaps, subordinateMaps } from "./sub-ids.js";
import { forwardSignals } from "./terminal.js";

/** Runs it to its end; the exit code. Rejects with RunFailure when the command was never started. */
export async function runImage(request: RunRequest): Promise<number> {
  const { logLevel: level, logFormat: format } = request.mount;
  const log = createLogger({ level, format, fd: 2 });
  await removeLeftovers(log);
  const place = makePlace();
  try {
    return await new Run(request, place, log).run();
  } finally {
    await remove(place.folder);
    closeSync(place.lockFd);
  }
}

/** Takes away a folder that the server has left; what is of other ids goes from within a user namespace that has them. */
async function remove(folder: string): Promise<void> {
  if (!existsSync(folder)) return;
  const rootfs = join(folder, ROOTFS);
  if (isOurs(readMounts(), nameFromText(rootfs))) await unmount(rootfs, { lazy: true });
  if (removePlace(folder) || process.geteuid?.() === 0) return;
  const maps = subordinateMaps() ?? singleMaps();
  const words = ["rm", "-rf", "--", folder];
  await waitForChild(
    await startInNamespaces({ namespaces: ["--mount"], maps, words, env: ownEnvironment(), fds: [] }),
  );
}

async function removeLeftovers(log: Logger): Promise<void> {
  for (const folder of findLeftovers()) {
    try {
      log.info("removing what a killed run has left", { folder });
      await remove(folder);
    } catch (error) {
      log.info("cannot remove it", { folder, error });
    }
  }
}

const isRoot = process.geteuid?.() === 0;

/** All ids are mapped, each to itself: root here is root. */
function isInitialNamespace(): boolean {
  return /^\s*0\s+0\s+4294967295\s*$/.test(readFileSync("/proc/self/uid_map", "latin1"));
}

class Run {
  private readonly request: RunRequest;
  private readonly place: Place;
  private readonly log: Logger;

  constructor(request: RunRequest, place: Place, log: Logger) {
    this.request = request;
    this.place = place;
    this.log = log;
  }

  async run(): Promise<number> {
    const { by } = this.request;
    const asked = this.askedMaps();
    if (by === "bwrap" && (isRoot || asked !== undefined)) {
      throw new RunFailure("bwrap is for ordinary users, and knows one id: no --uid-map and no --gid-map");
    }
    if (isRoot) return this.byUnshare(undefined);
    let failure: CannotServe | undefined;
    if (by !== "bwrap") {
      for (const maps of asked === undefined ? [subordinateMaps(), singleMaps()] : [asked]) {
        if (maps === undefined) continue;
        try {
          return await this.byUnshare(maps);
        } catch (cause) {
          if (!(cause instanceof CannotServe)) throw cause;
          this.log.info("not by unshare", { reason: cause.message, ids: maps.uids });
          failure = cause;
        }
      }
    }
    if (failure !== undefined && (by === "unshare" || asked !== undefined)) throw failure;
    try {
      return await this.byBubblewrap();
    } catch (cause) {
      if (!(cause instanceof CannotServe) || failure === undefined) throw cause;
      const reasons = `${failure.message}; and by bwrap: ${cause.message}`;
      throw new RunFailure(reasons, RunCode.failure, cause.hint ?? failure.hint);
    }
  }

  /** The maps that the user gave, as those of the command's user namespace. */
  private askedMaps(): NamespaceMaps | undefined {
    const { uidMap, gidMap } = this.request.mount;
    if (uidMap === undefined && gidMap === undefined) return undefined;
    const lines = (map: readonly IdRange[]): MapLine[] =>
      map.map(({ image, host, count }) => [image, host, count] as const);
    return {
      uids: lines(uidMap ?? (gidMap as readonly IdRange[])),
      gids: lines(gidMap ?? (uidMap as readonly IdRange[])),
    };
  }

  private mountOptions(more: Partial<MountOptions>): MountOptions {
    const { place, request } = this;
    const { source, ...options } = request.mount;
    return resolveOptions({
      upper: place.upper,
      // What is thrown away needs no sync.
      ...(options.upper === undefined ? { volatile: true } : {}),
      ...options,
      ...more,
      sources: [source],
      mountpoint: place.rootfs,
    });
  }

  /** With `maps` the server has a user namespace of its own; root's has none, but the command may. */
  private async byUnshare(maps: NamespaceMaps | undefined): Promise<number> {
    const { command, surroundings } = this.request;
    const { folder } = this.place;
    const asked = maps === undefined ? this.askedMaps() : undefined;
    const isSingle = maps?.uids.length === 1 && maps.uids[0]?.[2] === 1;
    const { uidMap: _, gidMap: __, ...unmapped } = this.mountOptions({});
    const options =
      maps === undefined
        ? this.mountOptions(asked === undefined ? {} : mapsOfMount(asked))
        : { ...unmapped, squashToRoot: unmapped.squashToRoot === true || isSingle };
    // The command's root is another user of the host, who has to come as far as the mountpoint.
    if (asked !== undefined) chmodSync(folder, 0o711);
    const request: ServerRequest = {
      mount: options,
      inside: { command, surroundings, hostRoot: isRoot && asked === undefined && isInitialNamespace() },
      ...(asked === undefined ? {} : { maps: asked }),
      folder,
    };
    return this.serve(request, (fds) =>
      startInNamespaces({
        namespaces: ["--mount"],
        maps,
        words: serverWords(),
        env: ownEnvironment(),
        fds,
      }),
    );
  }

  /** The server mounts through fusermount3, all files as this user's; bubblewrap makes this user root, or who is asked. */
  private async byBubblewrap(): Promise<number> {
    const { command, surroundings } = this.request;
    const { folder, rootfs } = this.place;
    let bubblewrap: string;
    try {
      bubblewrap = findBubblewrap();
    } catch (cause) {
      throw cannotServe(cause);
    }
    const { uids, gids } = singleMaps();
    const mount = this.mountOptions({ ...mapsOfMount({ uids, gids }), squashToRoot: true });
    const [file = "", ...more] = serverWords();
    return this.serve(
      { mount, folder },
      async (fds) => {
        const numbered = new Map(fds.map((fd, i) => [3 + i, fd] as const));
        return spawnProgram({
          file,
          args: [file, ...more],
          env: ownEnvironment(),
          fds: numbered,
          blocked: false,
        });
      },
      () => {
        const words = bubblewrapWords(rootfs, { command, surroundings, hostRoot: false });
        const [told, tell] = createSocketPair();
        const pid = spawnProgram({
          file: bubblewrap,
          args: ["bwrap", ...words],
          env: ownEnvironment(),
          fds: new Map([[INFO_FD, tell]]),
          blocked: false,
        });
        closeSync(tell);
        let info = "";
        void readText(told).then((text) => {
          info = text;
        });
        return { pid, signal: (number) => process.kill(commandPid(info) ?? pid, number) };
      },
    );
  }

  /**
   * Starts the server and stays with it to its end; the exit code. Where the server does not start the command,
   * `startCommand` does when the mount is there. Rejects with CannotServe when there was no mount.
   */
  private async serve(
    request: ServerRequest,
    start: (fds: readonly number[]) => Promise<number>,
    startCommand?: () => Started,
  ): Promise<number> {
    const [control, theirControl] = createSocketPair();
    const [status, theirStatus] = createSocketPair();
    let state: "starting" | "live" | "ended" = "starting";
    let stopped: number | undefined;
    let command: Started | undefined;
    const end = (): void => {
      if (state !== "ended") closeSync(control);
      state = "ended";
    };
    const stopForwarding = forwardSignals((signal, fromTerminal) => {
      if (state === "starting") {
        stopped = 128 + signal;
        end();
      } else if (state === "live" && !fromTerminal) {
        if (command === undefined) writeSync(control, `${signal}\n`);
        else command.signal(signal);
      }
    });
    try {
      let pid: number;
      try {
        pid = await start([theirControl, theirStatus, this.place.lockFd]);
      } catch (cause) {
        throw cannotServe(cause);
      } finally {
        closeSync(theirControl);
        closeSync(theirStatus);
      }
      if (state === "starting") writeSync(control, `${JSON.stringify(request)}\n`);
      const serverEnd = waitForChild(pid);
      const [word, reason = "", hint = ""] = (await readText(status)).split("\n");
      let code: number | undefined;
      let failure: unknown;
      if (word === "live" && state === "starting") {
        state = "live";
        try {
          command = startCommand?.();
          releaseStreams();
          // Without its files nothing good comes of it.
          void serverEnd.then(() => code === undefined && command?.signal(constants.signals.SIGKILL));
          if (command !== undefined) code = (await waitForChild(command.pid))?.code;
        } catch (cause) {
          failure = cause;
        }
        if (startCommand !== undefined) end();
      }
      const ended = await serverEnd;
      if (failure !== undefined) throw failure;
      if (word === "refused" && stopped === undefined) {
        const said = reason.replace(`mount ${this.place.rootfs}: `, "");
        throw refusal(said, hint === "" ? undefined : hint);
      }
      if (word === "" && stopped === undefined) {
        throw new RunFailure("the process that serves the mount ended without a word");
      }
      return stopped ?? code ?? ended?.code ?? RunCode.failure;
    } finally {
      stopForwarding();
      end();
    }
  }
}

/** A command that this process has started itself. */
interface Started {
  readonly pid: number;
  signal(number: number): void;
}

/** There is no mount, and nothing was run: another way may do it. */
class CannotServe extends RunFailure {}

function cannotServe(cause: unknown): unknown {
  return cause instanceof RunFailure ? new CannotServe(cause.message, cause.exitCode, cause.hint) : cause;
}

/** What the server says: only where it is the way to the kernel that is closed may another way do better. */
function refusal(reason: string, hint: string | undefined): RunFailure {
  const isChannel = /^\/dev\/fuse|^mount\(2\)|fusermount|not permitted to this user/.test(reason);
  const keepsNoXattrs = /keeps no user xattrs/.test(reason);
  return new (isChannel ? CannotServe : RunFailure)(
    reason,
    RunCode.failure,
    keepsNoXattrs ? "TMPDIR=/var/tmp, or --upper, names a directory of another filesystem" : hint,
  );
}

function serverWords(): string[] {
  return [process.execPath, fileURLToPath(new URL("./server.js", import.meta.url))];
}

function mapsOfMount({ uids, gids }: NamespaceMaps): Pick<MountOptions, "uidMap" | "gidMap"> {
  const ranges = (lines: readonly MapLine[]): IdRange[] =>
    lines.map(([image, host, count]) => ({ image, host, count }));
  return { uidMap: ranges(uids), gidMap: ranges(gids) };
}

/** What comes until the other side closes. */
function readText(fd: number): Promise<string> {
  return new Promise((done) => {
    const bytes = Buffer.alloc(8192);
    let length = 0;
    const next = (): void => {
      read(fd, bytes, length, bytes.length - length, null, (error, got) => {
        length += error === null ? got : 0;
        if (error !== null || got === 0 || length === bytes.length) {
          closeSync(fd);
          done(bytes.toString("utf8", 0, length));
        } else next();
      });
    };
    next();
  });
}
