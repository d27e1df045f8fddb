// Finds the control socket of a mount and asks it. What the kernel says of the mount, its device and who mounted it, leads
// to the socket without a word to the mount itself: so a mount that hangs, or that lets nobody else in, can be asked about.
// Where that does not do (mounted by another process, files of another mount namespace), the mount names its process.
import { closeSync, lstatSync, readdirSync, readFileSync, statSync } from "node:fs";
import { connect, type Socket } from "node:net";
import { resolve } from "node:path";
import { setTimeout as sleep } from "node:timers/promises";
import { nameFromText } from "../base/bytes.js";
import { codeOf } from "../base/errno.js";
import { type MountEntry, mountAtPath, readMounts } from "../sys/mountinfo.js";
import { processStartTime } from "../sys/process-time.js";
import {
  type ControlFolder,
  controlFolders,
  openFolder,
  outerUid,
  type PlaceHints,
  parseSocketName,
  pathIn,
  type SocketName,
} from "./control-place.js";
import { type Hello, type Reply, VERSION } from "./control-protocol.js";
import { MountFailure } from "./options.js";
import type { ProbeAnswer } from "./probe.js";
import { resolveTarget } from "./target.js";

/** A mount that has just begun to serve makes its socket within this time; all times are in milliseconds. */
const SOCKET_PATIENCE = 1_000;
const ANSWER_PATIENCE = 5_000;
/** An answer is never longer. */
const ANSWER_LIMIT = 1 << 20;
const FAILURE = 1;

/** What was asked for was refused, or could not be asked. The message does not name the mount. */
export class ControlRefused extends Error {
  /** Of the protocol, where it was the mount that refused. */
  readonly code: string | undefined;

  constructor(message: string, code?: string) {
    super(message);
    this.code = code;
  }
}

/** A connection to the process of a mount. */
export class ControlConnection {
  readonly hello: Hello["hello"];
  private readonly socket: Socket;
  private readonly lines: LineReader;

  private constructor(socket: Socket, lines: LineReader, hello: Hello["hello"]) {
    this.socket = socket;
    this.lines = lines;
    this.hello = hello;
  }

  /** Undefined where nobody listens. Rejects with ControlRefused. */
  static async open(path: string): Promise<ControlConnection | undefined> {
    const socket = await connected(path);
    if (socket === undefined) return undefined;
    const lines = new LineReader(socket);
    try {
      const line = (await lines.next()) as Hello | undefined;
      if (line === undefined) {
        socket.destroy();
        return undefined;
      }
      if (line.version !== VERSION || typeof line.hello !== "object") {
        throw new ControlRefused(
          `its process speaks version ${String(line.version)} of the protocol, this is ${VERSION}`,
        );
      }
      return new ControlConnection(socket, lines, line.hello);
    } catch (cause) {
      socket.destroy();
      throw cause;
    }
  }

  /** The result of a command; undefined when the mount has ended meanwhile. Rejects with ControlRefused. */
  async ask<T>(command: string, more: object = {}): Promise<T | undefined> {
    this.socket.write(`${JSON.stringify({ version: VERSION, command, ...more })}\n`);
    const reply = (await this.lines.next()) as Reply<T> | undefined;
    if (reply?.error !== undefined) throw new ControlRefused(reply.error.message, reply.error.code);
    return reply?.result;
  }

  close(): void {
    this.socket.destroy();
  }
}

function connected(path: string): Promise<Socket | undefined> {
  return new Promise((done, fail) => {
    const socket = connect({ path });
    socket.once("connect", () => {
      socket.removeAllListeners("error");
      socket.on("error", () => {});
      done(socket);
    });
    socket.once("error", (error) => {
      const code = codeOf(error);
      if (code === "ECONNREFUSED" || code === "ENOENT") done(undefined);
      else if (code === "EACCES" || code === "EPERM") fail(notAllowed());
      else fail(new ControlRefused(error.message));
    });
  });
}

function notAllowed(): ControlRefused {
  return new ControlRefused("must be who mounted it, or root");
}

/** JSON objects from a socket, one a line, each within {@link ANSWER_PATIENCE}. */
class LineReader {
  private readonly chunks: AsyncIterator<string>;
  private unread = "";

  constructor(socket: Socket) {
    socket.setEncoding("utf8");
    this.chunks = socket[Symbol.asyncIterator]();
  }

  /** Undefined at the end. */
  async next(): Promise<unknown> {
    for (;;) {
      const at = this.unread.indexOf("\n");
      if (at >= 0) {
        const line = this.unread.slice(0, at);
        this.unread = this.unread.slice(at + 1);
        try {
          return JSON.parse(line);
        } catch {
          throw new ControlRefused("its process gives an answer that makes no sense");
        }
      }
      if (this.unread.length > ANSWER_LIMIT) {
        throw new ControlRefused("its process gives an answer without end");
      }
      const chunk = await this.chunk();
      if (chunk === undefined) return undefined;
      this.unread += chunk;
    }
  }

  private async chunk(): Promise<string | undefined> {
    let timer: NodeJS.Timeout | undefined;
    const patience = new Promise<never>((_, fail) => {
      timer = setTimeout(() => fail(new ControlRefused("its process does not answer")), ANSWER_PATIENCE);
    });
    try {
      const { done, value } = await Promise.race([this.chunks.next(), patience]);
      return done === true ? undefined : value;
    } catch (cause) {
      if (cause instanceof ControlRefused) throw cause;
      return undefined;
    } finally {
      clearTimeout(timer);
    }
  }
}

/**
 * Connects to the process of the mount at `mountpoint`. Rejects with MountFailure whose message names the mountpoint.
 * A thread may still wait for a hung mount then, so that the process must be ended by exitNow.
 */
export async function openControl(mountpoint: string): Promise<ControlConnection> {
  const mounts = readMounts();
  let target: string;
  let mount: MountEntry | undefined;
  try {
    target = resolveTarget(mountpoint, mounts);
    mount = mountAtPath(mounts, nameFromText(target));
  } catch (cause) {
    // Perhaps the mountpoint of another mount namespace.
    target = resolve(mountpoint);
    const found = await new Search(target, undefined).run();
    if (found !== undefined) return found;
    throw cause instanceof MountFailure ? new MountFailure(cause.message, FAILURE) : cause;
  }
  try {
    const found = await findSocket(target, mount);
    if (found !== undefined) return found;
  } catch (cause) {
    if (cause instanceof ControlRefused) throw new MountFailure(`${target}: ${cause.message}`, FAILURE);
    throw cause;
  }
  throw new MountFailure(`${target}: not an imgfs mount`, FAILURE);
}

/** Undefined where there is no mount of ours. Rejects with ControlRefused. */
async function findSocket(
  target: string,
  mount: MountEntry | undefined,
): Promise<ControlConnection | undefined> {
  const search = new Search(target, mount);
  const found = await search.run();
  if (found !== undefined || mount === undefined || !mount.type.startsWith("fuse")) return found;
  // Loads the C library, which is not needed otherwise.
  const { probeMount } = await import("./probe.js");
  const process = await probeMount(target);
  switch (process.kind) {
    case "dead":
      throw new ControlRefused("its process is gone (imgfs umount takes the mount away)");
    case "hung":
      throw new ControlRefused("its process does not answer");
    case "unknown":
      return process.reason === "EACCES" ? search.runForOwner() : undefined;
    case "daemon":
      return searchOf(process, search);
  }
}

async function searchOf(
  process: Extract<ProbeAnswer, { kind: "daemon" }>,
  search: Search,
): Promise<ControlConnection> {
  const deadline = performance.now() + SOCKET_PATIENCE;
  for (;;) {
    const found = (await search.run()) ?? (await search.runFor(process.pid, process.startTime));
    if (found !== undefined) return found;
    if (search.forbidden) throw notAllowed();
    if (performance.now() > deadline) {
      throw new ControlRefused(`its process, ${process.pid}, has no control socket that can be reached`);
    }
    await sleep(20);
  }
}

/** Looks for the socket of one mount. */
class Search {
  /** A folder that should be looked into could not be. */
  forbidden = false;
  private readonly target: string;
  private readonly mount: MountEntry | undefined;
  private readonly uid = process.geteuid?.() ?? 0;

  constructor(target: string, mount: MountEntry | undefined) {
    this.target = target;
    this.mount = mount;
  }

  /** By device, in the folders of who mounted it and of this user; without a mount here by the mountpoint's name. */
  run(): Promise<ControlConnection | undefined> {
    const { mount } = this;
    const owners = new Set([this.uid, ...(mount?.userId === undefined ? [] : [mount.userId])]);
    const paths = [...owners].flatMap((uid) => [
      ...this.foldersOf(uid, uid === this.uid ? process.env : {}),
      ...(outerUid(uid) === uid ? [] : this.foldersOf(outerUid(uid), {})),
    ]);
    return this.lookThrough(paths, [0, ...owners], (name) =>
      mount === undefined ? true : name.device === mount.device,
    );
  }

  /** By process: its user's folders, as they are for it. */
  async runFor(pid: number, startTime: string): Promise<ControlConnection | undefined> {
    if (processStartTime(pid) !== startTime) return undefined;
    const owner = ownerOf(`/proc/${pid}`);
    if (owner === undefined) return undefined;
    const paths = this.foldersOf(owner, environmentOf(pid));
    const inside = paths.map((path) => `/proc/${pid}/root${path}`);
    return this.lookThrough(
      [...paths, ...inside],
      [0, this.uid, owner],
      (name) => name.pid === pid && name.startTime === startTime,
    );
  }

  /** For root, whom the mount does not let in: in places that processes of who mounted it know. Rejects where there is none. */
  async runForOwner(): Promise<ControlConnection> {
    const { mount, uid } = this;
    const owner = mount?.userId;
    if (uid !== 0 || mount === undefined || owner === undefined) throw notAllowed();
    const pids = readdirSync("/proc").filter(
      (name) => /^\d+$/.test(name) && ownerOf(`/proc/${name}`) === owner,
    );
    const paths = pids.flatMap((pid) => this.foldersOf(owner, environmentOf(pid)));
    const found = await this.lookThrough(paths, [owner], (name) => name.device === mount.device);
    if (found !== undefined) return found;
    throw new ControlRefused("its control socket is not found, and it lets nobody else ask for its process");
  }

  private foldersOf(uid: number, hints: PlaceHints): string[] {
    return controlFolders(uid, uid === 0, hints);
  }

  private async lookThrough(
    paths: readonly string[],
    owners: readonly number[],
    fits: (name: SocketName) => boolean,
  ): Promise<ControlConnection | undefined> {
    for (const path of new Set(paths)) {
      const folder = this.open(path);
      if (folder === undefined) continue;
      try {
        // Whoever else owns it could answer what they like.
        if (!owners.includes(folder.owner)) continue;
        const found = await this.lookInto(folder, fits);
        if (found !== undefined) return found;
      } finally {
        closeSync(folder.fd);
      }
    }
    return undefined;
  }

  private open(path: string): ControlFolder | undefined {
    try {
      return openFolder(path);
    } catch (cause) {
      if (codeOf(cause) === "EACCES") this.forbidden = true;
      return undefined;
    }
  }

  private async lookInto(
    folder: ControlFolder,
    fits: (name: SocketName) => boolean,
  ): Promise<ControlConnection | undefined> {
    for (const name of readdirSync(pathIn(folder, ""))) {
      const parsed = parseSocketName(name);
      if (parsed === undefined || !fits(parsed)) continue;
      const path = pathIn(folder, name);
      if (!isSocketOf(folder.owner, path)) continue;
      const connection = await ControlConnection.open(path);
      if (connection === undefined) continue;
      if (this.mount !== undefined || connection.hello.mountpoint === this.target) return connection;
      connection.close();
    }
    return undefined;
  }
}

function isSocketOf(owner: number, path: string): boolean {
  try {
    const stat = lstatSync(path);
    return stat.isSocket() && stat.uid === owner;
  } catch {
    return false;
  }
}

function ownerOf(path: string): number | undefined {
  return statSync(path, { throwIfNoEntry: false })?.uid;
}

/** What a process of this user, or for root any, was started with; nothing of one that may not be looked at. */
function environmentOf(pid: number | string): PlaceHints {
  try {
    const text = readFileSync(`/proc/${pid}/environ`, "utf8");
    const pairs = text.split("\0").map((each) => {
      const at = each.indexOf("=");
      return [each.slice(0, at), each.slice(at + 1)] as const;
    });
    return Object.fromEntries(pairs);
  } catch {
    return {};
  }
}
