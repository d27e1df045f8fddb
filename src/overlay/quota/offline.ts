// `imgfs du`: what an upper directory costs, counted without a mount by what is on disk alone.
// Invariants: nothing is written, and nothing locked, so a mount is never in the way nor finds one in its way; what a mount
// changes meanwhile may be counted before or after.
import { readFileSync } from "node:fs";
import { displayName } from "../../base/bytes.js";
import { Errno, errnoName, errnoText } from "../../base/errno.js";
import type { Usage } from "../../quota/ledger.js";
import { AT_FDCWD, closeFd, O_DIRECTORY, O_NOFOLLOW, O_RDONLY, openAt } from "../../sys/files.js";
import { deviceMajor, deviceMinor, emptyStat, statAt, statFd } from "../../sys/stat.js";
import { readXattrFd } from "../../sys/xattr.js";
import { readOverrides } from "../override.js";
import { isKernels } from "../survey.js";
import { renameNote } from "../swap.js";
import { LAYOUT, readIndex, servedBy, upperMark } from "../upper.js";
import { readCosts } from "./costs-mark.js";
import { countUpper, type Level } from "./count.js";

export interface UpperCostOptions {
  readonly upper: string;
  /** UPPER.work unless given. */
  readonly work?: string | undefined;
  /** Directories wanted, the largest first; Infinity for all that cost anything. */
  readonly most: number;
}

/** A directory and all that is below it. */
export interface DirectoryCost extends Usage {
  /** From the upper directory, which is `/`, as text. */
  readonly path: string;
}

export interface UpperCost extends Usage {
  readonly upper: string;
  /** Null when there is none, or none that serves this upper. */
  readonly work: string | null;
  /** A mount has the upper: its files without a name cost, too, and are not among these. */
  readonly inUse: boolean;
  /** What counts in the total, and has a name in the work directory alone. */
  readonly nameless: Usage;
  readonly directories: readonly DirectoryCost[];
  /** Directories that cost something and are not listed. */
  readonly leftOut: number;
  /** What makes the figures others than a mount's, each a line. */
  readonly notes: readonly string[];
}

/** Counts an upper directory. Throws an Error of one line that names what could not be read. */
export function costOfUpper({ upper, work, most }: UpperCostOptions): UpperCost {
  const opened: number[] = [];
  try {
    const rootFd = openDirectory(upper, "upper directory", opened);
    const notes: string[] = [];
    const identity = readIdentity(upper, rootFd);
    const inUse = isLocked(rootFd);
    if (inUse) notes.push(`${upper}: in use by a mount, which may change it meanwhile`);
    const costs = readCosts(rootFd);
    if (!costs.marked) notes.push(`${upper}: does not say which directories are the image's: all count`);
    const workPath = work ?? `${upper.replace(/(?<=.)\/+$/, "")}.work`;
    const isNeeded = work !== undefined || identity !== undefined;
    const workFd = isNeeded ? openWork(workPath, work !== undefined, identity, opened, notes) : undefined;
    const indexFd = workFd === undefined ? undefined : openIndex(workFd, workPath, opened);
    const largest = new Largest(most);
    const count = countUpper({
      path: upper,
      rootFd,
      indexFd,
      indexed: indexFd === undefined ? new Map() : readIndex(indexFd).indexRows,
      costs,
      overrides: readOverrides(rootFd),
      whiteoutFiles: identity === undefined && !isKernels(rootFd),
      left: (level) => largest.offer(level),
    });
    for (const path of count.foreign) notes.push(`${path}: another filesystem is mounted there: not counted`);
    const { bytes, inodes, nameless } = count;
    const { directories, leftOut } = largest.result();
    const used = workFd === undefined ? null : workPath;
    return { upper, work: used, bytes, inodes, nameless, inUse, directories, leftOut, notes };
  } finally {
    for (const fd of opened) closeFd(fd);
  }
}

function openDirectory(path: string, what: string, opened: number[]): number {
  const fd = openAt(AT_FDCWD, Buffer.from(path), O_RDONLY | O_DIRECTORY);
  if (fd < 0) throw new Error(`${what} ${path}: ${errnoText(errnoName(-fd))}`);
  opened.push(fd);
  return fd;
}

/** The identity of an upper of ours; undefined for one that no mount of imgfs has had. */
function readIdentity(path: string, rootFd: number): string | undefined {
  const mark = readXattrFd(rootFd, upperMark);
  if (typeof mark === "number") return undefined;
  const [layout = "", identity = ""] = mark.toString("latin1").split(":");
  if (layout === LAYOUT) return identity;
  throw new Error(
    `upper directory ${path} has a layout this version does not know: ${displayName(Buffer.from(layout, "latin1"))}`,
  );
}

/** The workdir, where it is this upper's. */
function openWork(
  path: string,
  named: boolean,
  identity: string | undefined,
  opened: number[],
  notes: string[],
): number | undefined {
  const without = "symlinks and special files of the image count as made in the upper directory";
  const fd = openAt(AT_FDCWD, Buffer.from(path), O_RDONLY | O_DIRECTORY);
  if (fd < 0) {
    if (fd !== -Errno.ENOENT || named) {
      throw new Error(`work directory ${path}: ${errnoText(errnoName(-fd))}`);
    }
    notes.push(`${path}: no work directory: ${without}`);
    return undefined;
  }
  opened.push(fd);
  if (servedBy(fd) !== identity) {
    if (named) throw new Error(`work directory ${path}: does not serve this upper directory`);
    notes.push(`${path}: does not serve this upper directory: ${without}`);
    return undefined;
  }
  if (statAt(fd, renameNote, emptyStat()) === 0) {
    notes.push(`${path}: a rename was interrupted, which the next mount finishes`);
  }
  return fd;
}

function openIndex(workFd: number, path: string, opened: number[]): number | undefined {
  const fd = openAt(workFd, Buffer.from("index"), O_RDONLY | O_DIRECTORY | O_NOFOLLOW);
  if (fd === -Errno.ENOENT) return undefined;
  if (fd < 0) throw new Error(`${path}/index: ${errnoText(errnoName(-fd))}`);
  opened.push(fd);
  return fd;
}

/** Whether a process holds the lock of what is open at `fd`, as far as this one may know (proc(5), /proc/locks). */
function isLocked(fd: number): boolean {
  const stat = emptyStat();
  if (statFd(fd, stat) < 0) return false;
  const hex = (part: number): string => part.toString(16).padStart(2, "0");
  const place = `${hex(deviceMajor(stat.dev))}:${hex(deviceMinor(stat.dev))}:${stat.ino}`;
  try {
    return readFileSync("/proc/locks", "latin1")
      .split("\n")
      .some((line) => / FLOCK .* WRITE /.test(line) && line.split(/\s+/).includes(place));
  } catch {
    return false;
  }
}

/** Keeps the largest of the directories that it is offered. */
class Largest {
  private readonly most: number;
  private kept: Level[] = [];
  private offered = 0;
  /** Bytes below which nothing is among the largest any more. */
  private least = -1;

  constructor(most: number) {
    this.most = most;
  }

  offer(level: Level): void {
    const { above, bytes, inodes } = level;
    if (above === undefined || (bytes === 0 && inodes === 0)) return;
    this.offered++;
    if (bytes < this.least) return;
    this.kept.push(level);
    if (this.kept.length >= 2 * this.most + 1000) this.cut();
  }

  private cut(): void {
    this.kept.sort((a, b) => b.bytes - a.bytes || b.inodes - a.inodes);
    this.kept.length = Math.min(this.kept.length, this.most);
    if (this.kept.length === this.most) this.least = this.kept.at(-1)?.bytes ?? Infinity;
  }

  result(): Pick<UpperCost, "directories" | "leftOut"> {
    this.cut();
    const directories = this.kept.map((level) => {
      const { bytes, inodes } = level;
      return { path: pathOf(level), bytes, inodes };
    });
    directories.sort((a, b) => b.bytes - a.bytes || b.inodes - a.inodes || (a.path < b.path ? -1 : 1));
    return { directories, leftOut: this.offered - this.kept.length };
  }
}

function pathOf(level: Level): string {
  const names: string[] = [];
  for (let at = level; at.above !== undefined; at = at.above) names.push(`/${displayName(at.name)}`);
  return names.reverse().join("");
}
