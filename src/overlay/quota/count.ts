// What an upper directory costs (xattr-cost.ts and file-blocks.ts say what of each object): one walk of it, and of what
// WORK/index alone holds. A mount counts by it after an end that was not clean, and `imgfs du` always.
// Invariants: an object counts once, at the first of its names that is met; whatever is opened is opened by one name in
// its directory, O_NOFOLLOW, and directories on another filesystem are not entered, so nothing leads out; however deep
// the tree, few descriptors are open. What needs a call to be known is asked for only where marks leave it possible.
import { displayName } from "../../base/bytes.js";
import { Errno, errnoName, errnoText } from "../../base/errno.js";
import { BLOCK, blocksOf } from "../../quota/blocks.js";
import type { Usage } from "../../quota/ledger.js";
import { endOf, noRanges } from "../../quota/ranges.js";
import {
  closeFd,
  noName,
  O_DIRECTORY,
  O_NOATIME,
  O_NOFOLLOW,
  O_NONBLOCK,
  O_RDONLY,
  openAt,
  openListed,
  readDirectory,
  SEEK_HOLE,
  seekFd,
} from "../../sys/files.js";
import { allocatePages } from "../../sys/memory.js";
import {
  emptyStat,
  S_IFCHR,
  S_IFDIR,
  S_IFMT,
  S_IFREG,
  type Stat,
  statAt,
  statFd,
  statFileFd,
} from "../../sys/stat.js";
import { getXattrFd, listXattrFd, readXattrFd, readXattrNamesFd, XATTR_SIZE_MAX } from "../../sys/xattr.js";
import { leavingIn } from "../leave-whiteout.js";
import { DT_DIR, DT_REG } from "../listing.js";
import { lacksData, originXattr } from "../origin.js";
import { type Overrides, overrideXattr, readOverride } from "../override.js";
import { type DirectoryMarks, plainMarks, readMarks, whiteoutMarks } from "../whiteout.js";
import { allocatedXattr, readAllocated } from "./allocated.js";
import type { Costs } from "./costs-mark.js";
import { measureBlocks } from "./file-blocks.js";
import { FREE_XATTRS, sumXattrs, xattrBlocks } from "./xattr-cost.js";

/** A directory on the way down. */
export interface Level {
  /** -1 while it is closed because others lie far below it. */
  fd: number;
  readonly ino: number;
  readonly name: Buffer;
  readonly above: Level | undefined;
  /** The image directory that is merged with it, where {@link CountOptions.enter} says so; else -1. */
  row: number;
  /** It is a copy of one of the image's. */
  copied: boolean;
  readonly marks: DirectoryMarks;
  /** The whiteout in it that is to become a device. */
  readonly leaving: Buffer | undefined;
  /** Subdirectories that are still to be counted. */
  readonly pending: Buffer[];
  /** What it costs, with what is below it as far as that has been counted. */
  bytes: number;
  inodes: number;
}

export interface CountOptions {
  /** Of the upper directory, for messages. */
  readonly path: string;
  readonly rootFd: number;
  /** WORK/index, and the inodes in it; undefined where there is none. */
  readonly indexFd: number | undefined;
  readonly indexed: { has(ino: number): boolean };
  readonly costs: Costs;
  readonly overrides: Overrides;
  /** Empty `.wh.` files are whiteouts: those of another overlay, which no mount has converted yet. */
  readonly whiteoutFiles: boolean;
  /** Called with each directory before anything is read of it but its marks; may change it. May throw. */
  enter?(level: Level): void;
  /** Called when all of a directory is counted, the root last. */
  left?(level: Level): void;
}

export interface Count extends Usage {
  /** What the count has met, as {@link Costs} has it. */
  readonly found: Pick<Costs, "allocated" | "xattrs">;
  /** What the objects cost that have no name but one in the index. */
  readonly nameless: Usage;
  /** Directories that are on another filesystem, and were not entered. */
  readonly foreign: readonly string[];
}

/** Directories kept open on the way down; above them the way leads by `..`. */
const MOST_OPEN = 128;
const parent = Buffer.from("..");
const dot = Buffer.from(".");
const WHITEOUT_FILE = Buffer.from(".wh.");
const noNames: readonly string[] = [];

/** Counts. Throws an Error of one line that names what could not be read. */
export function countUpper(options: CountOptions): Count {
  const counter = new Counter(options);
  try {
    counter.walk();
    return counter.finish();
  } finally {
    counter.close();
  }
}

class Counter {
  private readonly options: CountOptions;
  private readonly stat: Stat = emptyStat();
  private readonly levels: Level[] = [];
  /** Inodes of objects with several names that have been met. */
  private readonly met = new Set<number>();
  private readonly found = { allocated: false, xattrs: false };
  private readonly foreign: string[] = [];
  private root: string;
  /** Which directories hold copies is not known. */
  private readonly originsAnywhere: boolean;
  private total: Usage = { bytes: 0, inodes: 0 };
  private device = 0;
  /** Where the name of the entry lies that is looked at. */
  private names: Uint8Array = noName;
  private start = 0;
  private end = 0;

  constructor(options: CountOptions) {
    this.options = options;
    this.originsAnywhere = !options.costs.marked && options.enter === undefined;
    this.root = options.path.replace(/(?<=.)\/+$/, "");
  }

  close(): void {
    for (const { fd } of this.levels) if (fd >= 0) closeFd(fd);
  }

  walk(): void {
    this.descend(undefined, dot);
    for (let at = this.levels.at(-1); at !== undefined; at = this.levels.at(-1)) {
      const name = at.pending.pop();
      if (name === undefined) this.ascend();
      else this.descend(at, name);
    }
  }

  finish(): Count {
    const nameless = this.countIndex();
    const { found, foreign, total } = this;
    return {
      bytes: total.bytes + nameless.bytes,
      inodes: total.inodes + nameless.inodes,
      nameless,
      found,
      foreign,
    };
  }

  /** Opens a directory and counts what is in it, but for subdirectories. */
  private descend(above: Level | undefined, name: Buffer): void {
    const { options, stat, levels } = this;
    const fd = this.open(above?.fd ?? options.rootFd, name, O_DIRECTORY);
    if (fd === -Errno.ENOENT || fd === -Errno.ENOTDIR || fd === -Errno.ELOOP) return;
    if (fd < 0) throw this.failure(name, fd);
    const looked = statFd(fd, stat);
    if (above === undefined) this.device = stat.dev;
    if (looked < 0 || stat.dev !== this.device) {
      closeFd(fd);
      if (looked < 0) throw this.failure(name, looked);
      this.foreign.push(this.pathOf(name));
      return;
    }
    const { ino } = stat;
    const marks = listXattrFd(fd, 0, 0) === 0 ? plainMarks : readMarks(fd);
    const leaving = marks.leaves ? leavingIn(fd)?.name : undefined;
    const copied = above === undefined || marks.copied;
    const level: Level = {
      fd,
      ino,
      name,
      above,
      row: -1,
      copied,
      marks,
      leaving,
      pending: [],
      bytes: 0,
      inodes: 0,
    };
    levels.push(level);
    const far = levels.at(-1 - MOST_OPEN);
    if (far !== undefined && far.fd >= 0) {
      closeFd(far.fd);
      far.fd = -1;
    }
    options.enter?.(level);
    if (!level.copied) this.add(level, 1, 1);
    if (options.costs.xattrs) this.add(level, this.xattrs(fd), 0);
    this.read(level);
  }

  private read(level: Level): void {
    const { fd, pending } = level;
    const read = readDirectory(fd, (bytes, start, end, type) => {
      this.names = bytes;
      this.start = start;
      this.end = end;
      if (type === DT_REG) this.lookAtFile(level);
      else if (type === DT_DIR) pending.push(Buffer.from(this.name));
      else this.lookAtOther(level);
    });
    if (read < 0) throw this.failure(noName, read);
  }

  /** The entry that is looked at. */
  private get name(): Uint8Array {
    return this.names.subarray(this.start, this.end);
  }

  /** Goes up from a directory that is counted. */
  private ascend(): void {
    const { levels, options, stat } = this;
    const level = levels.pop() as Level;
    options.left?.(level);
    const { fd, bytes, inodes } = level;
    const above = levels.at(-1);
    let up = 0;
    if (above !== undefined && above.fd < 0) {
      up = openAt(fd, parent, O_RDONLY | O_DIRECTORY | O_NOFOLLOW);
      above.fd = up;
    }
    closeFd(fd);
    if (above === undefined) {
      this.total = { bytes, inodes };
      return;
    }
    if (up < 0 || (up > 0 && (statFd(up, stat) < 0 || stat.ino !== above.ino || stat.dev !== this.device))) {
      throw new Error(`${this.pathOf(noName)}: was changed while it was counted`);
    }
    above.bytes += bytes;
    above.inodes += inodes;
  }

  private lookAtFile(level: Level): void {
    const flags = O_RDONLY | O_NOFOLLOW | O_NONBLOCK;
    let fd = openListed(level.fd, this.start, flags | O_NOATIME);
    if (fd === -Errno.EPERM) fd = openListed(level.fd, this.start, flags);
    if (fd < 0) {
      // Of another kind by now, or gone.
      if (fd === -Errno.ELOOP || fd === -Errno.ENXIO) this.lookAtOther(level);
      else if (fd !== -Errno.ENOENT) throw this.failure(this.name, fd);
      return;
    }
    try {
      const looked = statFileFd(fd, this.stat);
      if (looked < 0) throw this.failure(this.name, looked);
      if ((this.stat.mode & S_IFMT) === S_IFREG) this.addFile(level, fd);
    } finally {
      closeFd(fd);
    }
  }

  /** Counts the file open at `fd`, which `stat` describes. */
  private addFile(level: Level, fd: number): void {
    const { options, stat } = this;
    const { costs, overrides } = options;
    const { size, ino, nlink } = stat;
    if (nlink > 1 && this.isMet(ino)) return;
    const { marks } = level;
    const indexed = nlink > 1 && options.indexed.has(ino);
    const mayBeCopy = level.copied || marks.impure || indexed || this.originsAnywhere;
    const mayStandIn = overrides.all || (overrides.devices && size === 0);
    const mayBeWhiteout = marks.xattrWhiteouts && size === 0;
    const asks = mayBeCopy || mayStandIn || mayBeWhiteout || costs.allocated || costs.xattrs;
    const names = asks ? namesOf(fd) : noNames;
    if (mayBeWhiteout && names.some((mark) => whiteoutMarks.includes(mark))) {
      this.addWhiteout(level);
      return;
    }
    if (size === 0 && options.whiteoutFiles && startsWith(this.name, WHITEOUT_FILE)) return;
    if (mayStandIn && names.includes(standInMark) && this.standsIn(fd)) {
      this.add(level, 0, indexed ? 0 : 1);
      return;
    }
    const xattrs = costs.xattrs && names.length > 0 ? this.xattrs(fd) : 0;
    const copied = mayBeCopy && names.includes(originMark);
    // A copy of metadata alone may have got part of its data when the machine or the daemon ended.
    const found = this.blocksOf(fd, size, names);
    const blocks = found > 0 && copied && lacksData(fd) ? 0 : found;
    this.add(level, blocks + xattrs, copied && blocks === 0 ? 0 : 1);
  }

  private blocksOf(fd: number, size: number, names: readonly string[]): number {
    const noted = names.includes(allocatedMark);
    if (size === 0 && !noted) return 0;
    // Nearly every file has data from its start to its end, and that takes one call.
    const isWhole = size > 0 && seekFd(fd, 0, SEEK_HOLE) === size;
    if (isWhole && !noted) return blocksOf(size);
    if (noted) this.found.allocated = true;
    const allocated = noted ? readAllocated(fd) : noRanges;
    if (typeof allocated === "number") throw this.failure(this.name, allocated);
    if (isWhole && endOf(allocated) <= blocksOf(size)) return blocksOf(size);
    const blocks = measureBlocks(fd, allocated);
    if (typeof blocks === "number") throw this.failure(this.name, blocks);
    return blocks.count;
  }

  /** Whether the file open at `fd`, which `stat` describes, stands for what is none. */
  private standsIn(fd: number): boolean {
    const override = readOverride(this.options.overrides, fd, noName, this.stat, () => {});
    return override !== undefined && (override.mode & S_IFMT) !== S_IFREG;
  }

  private addWhiteout(level: Level): void {
    if (level.leaving?.equals(this.name) === true) this.add(level, 0, 1);
  }

  /** Counts a name that is, or may be, no file. */
  private lookAtOther(level: Level): void {
    const { options, stat, name } = this;
    const looked = statAt(level.fd, name, stat);
    if (looked === -Errno.ENOENT) return;
    if (looked < 0) throw this.failure(name, looked);
    const type = stat.mode & S_IFMT;
    if (type === S_IFDIR) level.pending.push(Buffer.from(name));
    else if (type === S_IFREG) this.lookAtFile(level);
    else if (type === S_IFCHR && stat.rdev === 0) this.addWhiteout(level);
    else if (stat.nlink === 1 || !this.isMet(stat.ino)) {
      this.add(level, 0, options.indexed.has(stat.ino) ? 0 : 1);
    }
  }

  /** What the index holds under a name that no other has. */
  private countIndex(): Usage {
    const { indexFd } = this.options;
    if (indexFd === undefined) return { bytes: 0, inodes: 0 };
    const fd = this.open(indexFd, dot, O_DIRECTORY);
    const index: Level = {
      fd,
      ino: 0,
      name: dot,
      above: undefined,
      row: -1,
      copied: true,
      marks: plainMarks,
      leaving: undefined,
      pending: [],
      bytes: 0,
      inodes: 0,
    };
    this.root = `index of ${this.root}`;
    if (fd < 0) throw this.failure(noName, fd);
    this.levels.push(index);
    this.read(index);
    return { bytes: index.bytes, inodes: index.inodes };
  }

  private add(level: Level, blocks: number, inodes: number): void {
    level.bytes += blocks * BLOCK;
    level.inodes += inodes;
  }

  private isMet(ino: number): boolean {
    if (this.met.has(ino)) return true;
    this.met.add(ino);
    return false;
  }

  /** Blocks of the xattrs of what is open at `fd`, a file or directory: nothing else can have user. ones. */
  private xattrs(fd: number): number {
    const list = readXattrNamesFd(fd);
    if (typeof list === "number" || list.length === 0) return 0;
    const length = (key: Uint8Array): number => getXattrFd(fd, key, 0, 0);
    const { bytes, base } = sumXattrs(list, length, (key) => readXattrFd(fd, key));
    if (bytes > FREE_XATTRS || base > 0) this.found.xattrs = true;
    return xattrBlocks(bytes, base);
  }

  private open(directoryFd: number, name: Uint8Array, flags: number): number {
    const how = O_RDONLY | O_NOFOLLOW | flags;
    // Reading sets no times where that is for this process to ask (open(2), O_NOATIME).
    const fd = openAt(directoryFd, name, how | O_NOATIME);
    return fd === -Errno.EPERM ? openAt(directoryFd, name, how) : fd;
  }

  private pathOf(name: Uint8Array): string {
    const names = this.levels.slice(1).map((level): Uint8Array => level.name);
    if (name !== noName && name !== dot) names.push(name);
    return [this.root, ...names.map((part) => displayName(part))].join("/");
  }

  private failure(name: Uint8Array, result: number): Error {
    return new Error(`${this.pathOf(name)}: ${errnoText(errnoName(-result))}`);
  }
}

const standInMark = overrideXattr.toString();
const originMark = originXattr.toString();
const allocatedMark = allocatedXattr.toString();

/** The names of its xattrs, of which most files have none. */
function namesOf(fd: number): readonly string[] {
  const length = listXattrFd(fd, listed.address, listed.length);
  return length <= 0 ? noNames : listedBytes.toString("latin1", 0, length).split("\0").slice(0, -1);
}

const listed = allocatePages(XATTR_SIZE_MAX);
const listedBytes = Buffer.from(listed.bytes.buffer);

function startsWith(name: Uint8Array, prefix: Uint8Array): boolean {
  return prefix.every((byte, i) => name[i] === byte);
}
