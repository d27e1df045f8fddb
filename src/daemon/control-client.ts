// Finds the control socket of a mount. What the kernel says of the mount, its device and who mounted it, leads
// to the socket without a word to the mount itself: so a mount that hangs, or that lets nobody else in, can be asked about.
// Where that does not do (mounted by another process, files of another mount namespace), the mount names its process.
import { closeSync, lstatSync, readdirSync, readFileSync, statSync } from "node:fs";
import { resolve } from "node:path";
import { setTimeout as sleep } from "node:timers/promises";
import { nameFromText } from "../base/bytes.js";
import { codeOf } from "../base/errno.js";
import { type MountEntry, mountAtPath, readMounts } from "../sys/mountinfo.js";
import { processStartTime } from "../sys/process-time.js";
import { ControlConnection, ControlRefused, notAllowed } from "./control-connection.js";
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
import { MountFailure } from "./options.js";
import type { ProbeAnswer } from "./probe.js";
import { resolveTarget } from "./target.js";

/** A mount that has just begun to serve makes its socket within this time, in milliseconds. */
const SOCKET_PATIENCE = 1_000;
const FAILURE = 1;

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
    const found = await new Search(target, undefined, mounts).run();
    if (found !== undefined) return found;
    throw cause instanceof MountFailure ? new MountFailure(cause.message, FAILURE) : cause;
  }
  try {
    const found = await findSocket(new Search(target, mount, mounts));
    if (found !== undefined) return found;
  } catch (cause) {
    if (cause instanceof ControlRefused) throw new MountFailure(`${target}: ${cause.message}`, FAILURE);
    throw cause;
  }
  throw new MountFailure(`${target}: not an imgfs mount`, FAILURE);
}

/** Undefined where there is no mount of ours. Rejects with ControlRefused. */
async function findSocket(search: Search): Promise<ControlConnection | undefined> {
  const { target, mount } = search;
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
  readonly target: string;
  /** What is mounted there. */
  readonly mount: MountEntry | undefined;
  private readonly devices: ReadonlySet<string>;
  private readonly uid = process.geteuid?.() ?? 0;

  constructor(target: string, mount: MountEntry | undefined, mounts: readonly MountEntry[]) {
    this.target = target;
    this.mount = mount;
    this.devices = new Set(mounts.map(({ device }) => device));
  }

  /** By device, in the folders of who mounted it and of this user; without a mount here by the mountpoint's name. */
  run(): Promise<ControlConnection | undefined> {
    const { mount } = this;
    const owners = new Set([this.uid, ...(mount?.userId === undefined ? [] : [mount.userId])]);
    const paths = [...owners].flatMap((uid) => [
      ...this.foldersOf(uid, uid === this.uid ? process.env : {}),
      ...(outerUid(uid) === uid ? [] : this.foldersOf(outerUid(uid), {})),
    ]);
    // Of what is mounted here the place is known; by name it is another mount namespace's.
    return this.lookThrough(paths, [0, ...owners], ({ device }) =>
      mount === undefined ? device === undefined || !this.devices.has(device) : device === mount.device,
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
      const connection = await this.connectTo(path);
      if (connection === undefined) continue;
      if (this.mount !== undefined || connection.hello.mountpoint === this.target) return connection;
      connection.close();
    }
    return undefined;
  }

  /** One that does not answer may be that of another mount, where this one is only looked for. */
  private async connectTo(path: string): Promise<ControlConnection | undefined> {
    try {
      return await ControlConnection.open(path);
    } catch (cause) {
      if (this.mount === undefined && cause instanceof ControlRefused) return undefined;
      throw cause;
    }
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
