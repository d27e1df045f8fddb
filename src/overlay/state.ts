// Everything one mount has. Nothing of it lives in module variables: one process may serve many mounts.
import { randomInt } from "node:crypto";
import { digestHex } from "../base/digest.js";
import { type ErrnoName, fsError } from "../base/errno.js";
import type { Logger } from "../base/log.js";
import type { Services, Status } from "../fuse/operations.js";
import type { Elsewhere } from "../imgfs/work.js";
import { allocatePages, type Region } from "../sys/memory.js";
import { emptyStat, type Stat } from "../sys/stat.js";
import type { BackingFds } from "./backing-fds.js";
import type { InodeTable, Node } from "./inode-table.js";
import type { Lower } from "./lower.js";
import type { Quota } from "./quota/quota.js";
import type { Upper } from "./upper.js";

export interface OverlayState {
  readonly lower: Lower;
  readonly inodes: InodeTable;
  readonly fds: BackingFds;
  readonly log: Logger;
  /** Value of the xattr by which a mount names its process. */
  readonly daemon: Buffer;
  readonly upper: Upper | undefined;
  /** The hard-link index in the shape of a directory, for objects of which no other place is known. */
  readonly indexPlace: Node | undefined;
  services: Services | undefined;
  /** Set by a mount with a quota, once it has counted the upper. */
  quota: Quota | undefined;
  /** What helper threads have answered to calls of fallocate(2), for the requests that come again. */
  readonly allocations: Map<number, Status>;
  /** Where the image has done what takes long; undefined without helper threads. */
  elsewhere: Elsewhere | undefined;
  /** What nodeids of the image, and those of objects born in the upper directory, are generations of. */
  readonly imageGeneration: number;
  readonly upperGeneration: number;
  /** Damage that has been logged. */
  readonly damageTold: Set<string>;
  /** Directories whose listing is in memory, least recently used first. */
  readonly listed: Set<Node>;
  /** Lower names of a hard-linked row that the upper directory does not cover, where they have been counted. */
  readonly lowerNamesLeft: Map<number, number>;
  /** errno of a background copy-up, for the requests that waited for it. */
  readonly failedCopies: Map<number, number>;
  /** For results used at once. */
  readonly stat: Stat;
  /** The record that `stat` describes after `find`, until anything else is done; undefined when it describes none. */
  found: Node | undefined;
  /** For bytes on their way from one file to another. */
  readonly buffer: Region;
}

const BUFFER_SIZE = 1 << 20;

/** A mount that can be written to. */
export interface WritableState extends OverlayState {
  readonly upper: Upper;
}

/** The same mount when it has an upper directory. Throws EROFS. */
export function writable(m: OverlayState): WritableState {
  if (m.upper === undefined) throw fsError("EROFS");
  return m as WritableState;
}

/** The record of a nodeid that must have one. */
export function recordOf(m: OverlayState, id: number): Node {
  const node = m.inodes.get(id);
  if (node === undefined) throw fsError("ESTALE" satisfies ErrnoName, `nodeid ${id}`);
  return node;
}

/** The generation of a nodeid, by which a file handle of another mount is known. The kernel gives the root 0. */
export function generationOf(m: OverlayState, id: number): number {
  if (id <= 1) return 0;
  return id <= m.lower.tree.inodeCount ? m.imageGeneration : m.upperGeneration;
}

export function createState(
  parts: Pick<OverlayState, "lower" | "inodes" | "fds" | "log" | "daemon" | "upper" | "indexPlace">,
): OverlayState {
  return {
    ...parts,
    services: undefined,
    quota: undefined,
    allocations: new Map(),
    elsewhere: undefined,
    // Rows are those of one image; other nodeids are given anew by each mount.
    imageGeneration: Number.parseInt(digestHex(parts.lower.tree.treeRoot).slice(0, 7), 16),
    upperGeneration: randomInt(1, 2 ** 31),
    damageTold: new Set(),
    listed: new Set(),
    lowerNamesLeft: new Map(),
    failedCopies: new Map(),
    stat: emptyStat(),
    found: undefined,
    buffer: allocatePages(parts.upper === undefined ? 1 : BUFFER_SIZE),
  };
}
