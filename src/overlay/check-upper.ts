// `imgfs check --upper`: an upper directory and its workdir as a mount would find them, looked at and not touched. What a
// crash may leave, and the next mount clears away, is a note; what no crash of imgfs leaves is a finding.
// Invariants: nothing is written; every name is opened in its directory, O_NOFOLLOW, so nothing that is checked leads out.
import { displayName } from "../base/bytes.js";
import { Errno, errnoName, errnoText } from "../base/errno.js";
import { AT_FDCWD, closeFd, flockFd, LOCK_EX, LOCK_NB, O_DIRECTORY, O_RDONLY, openAt } from "../sys/files.js";
import { emptyStat, statFd } from "../sys/stat.js";
import { readXattrFd } from "../sys/xattr.js";
import { checkTree, type TreeCheck } from "./check-upper-tree.js";
import { checkWork } from "./check-work.js";
import { createLower, type Lower, type LowerTree } from "./lower.js";
import { type Overrides, readOverrides } from "./override.js";
import { type Costs, costsXattr, isCostsMark, readCosts } from "./quota/costs-mark.js";
import { LAYOUT, treeMark, upperMark } from "./upper.js";

/** One thing that is wrong, or worth a word, and where. */
export interface UpperFinding {
  readonly path: string;
  readonly problem: string;
}

export interface UpperReport {
  readonly upper: string;
  /** Null when there is none. */
  readonly work: string | null;
  readonly findings: readonly UpperFinding[];
  /** What the next mount puts in order, or what is odd and harmless. */
  readonly notes: readonly UpperFinding[];
  /** Findings and notes of kinds of which enough are listed. */
  readonly leftOut: number;
  /** Objects of the upper, whiteouts among them. */
  readonly objects: number;
}

export interface CheckUpperOptions {
  readonly upper: string;
  /** UPPER.work unless given. */
  readonly work?: string | undefined;
  /** What the upper holds changes of; without it only what needs no image is checked. */
  readonly image?: LowerTree | undefined;
}

/** Findings and notes listed of one kind. */
const KIND_MAX = 20;

/** Collects what is found. */
export class UpperFindings {
  readonly findings: UpperFinding[] = [];
  readonly notes: UpperFinding[] = [];
  leftOut = 0;
  private readonly kinds = new Map<string, number>();

  add(path: string, problem: string): void {
    this.put(this.findings, path, problem);
  }

  note(path: string, problem: string): void {
    this.put(this.notes, path, problem);
  }

  private put(list: UpperFinding[], path: string, problem: string): void {
    const kind = problem.replace(/\d+|"[^"]*"/g, "#");
    const told = this.kinds.get(kind) ?? 0;
    this.kinds.set(kind, told + 1);
    if (told < KIND_MAX) list.push({ path, problem });
    else this.leftOut++;
  }
}

/** What is known of the pair of directories while they are checked. */
export interface UpperCheck {
  readonly found: UpperFindings;
  readonly lower: Lower | undefined;
  /** The first digits of the tree that origins and marks must name; undefined when nothing says. */
  readonly tree: string | undefined;
  readonly overrides: Overrides;
  readonly costs: Costs;
  /** What WORK/index holds: backing inode to row. */
  readonly indexed: Map<number, number>;
  /** What WORK/moved holds. */
  readonly moved: Set<number>;
  /** WORK/rename says that the next mount has a rename to finish, of which both directories are still there. */
  interrupted: boolean;
}

/** Verifies an upper directory that no mount uses. Throws an Error of one line where that cannot be done. */
export function checkUpper({ upper, work, image }: CheckUpperOptions): UpperReport {
  const rootFd = open(upper, "upper directory");
  const opened = [rootFd];
  try {
    lock(rootFd, `upper directory ${upper}`);
    const found = new UpperFindings();
    const identity = readMark(upper, rootFd, found);
    checkCosts(upper, rootFd, found);
    const tree = readTree(upper, rootFd, image, found);
    const check: UpperCheck = {
      found,
      lower: image === undefined ? undefined : createLower(image, true),
      tree: tree?.slice(0, 16),
      overrides: readOverrides(rootFd),
      costs: readCosts(rootFd),
      indexed: new Map(),
      moved: new Set(),
      interrupted: false,
    };
    const workPath = work ?? `${upper.replace(/\/+$/, "")}.work`;
    const workFd = openWork(workPath, work !== undefined, found);
    if (workFd !== undefined) {
      opened.push(workFd);
      lock(workFd, `work directory ${workPath}`);
      checkDevices(upper, rootFd, workPath, workFd, found);
      checkWork(check, workPath, workFd, identity);
    }
    const { objects }: TreeCheck = checkTree(check, upper, rootFd);
    const { findings, notes, leftOut } = found;
    return { upper, work: workFd === undefined ? null : workPath, findings, notes, leftOut, objects };
  } finally {
    for (const fd of opened) closeFd(fd);
  }
}

function open(path: string, what: string): number {
  const fd = openAt(AT_FDCWD, Buffer.from(path), O_RDONLY | O_DIRECTORY);
  if (fd < 0) throw new Error(`${what} ${path}: ${errnoText(errnoName(-fd))}`);
  return fd;
}

function openWork(path: string, named: boolean, found: UpperFindings): number | undefined {
  const fd = openAt(AT_FDCWD, Buffer.from(path), O_RDONLY | O_DIRECTORY);
  if (fd >= 0) return fd;
  if (fd !== -Errno.ENOENT || named) {
    throw new Error(`work directory ${path}: ${errnoText(errnoName(-fd))}`);
  }
  found.note(path, "no work directory: hard links and symlinks of the image are not known as its own again");
  return undefined;
}

function lock(fd: number, what: string): void {
  const result = flockFd(fd, LOCK_EX | LOCK_NB);
  if (result === -Errno.EAGAIN) throw new Error(`${what} is in use by a mount`);
  if (result < 0) throw new Error(`cannot lock ${what}: ${errnoName(-result)}`);
}

function readMark(path: string, rootFd: number, found: UpperFindings): string | undefined {
  const mark = readXattrFd(rootFd, upperMark);
  if (typeof mark === "number") {
    const why = mark === -Errno.ENODATA ? "" : ` (${errnoName(-mark)})`;
    throw new Error(`${path}: not an upper directory of imgfs${why}`);
  }
  // Other versions have written a word more.
  const [layout = "", identity, , ...more] = mark.toString("latin1").split(":");
  if (layout !== LAYOUT) {
    throw new Error(
      `upper directory ${path} has a layout this version does not know: ${displayName(Buffer.from(layout, "latin1"))}`,
    );
  }
  if (identity === undefined || !/^[0-9a-f]{16}$/.test(identity) || more.length > 0) {
    found.add(path, `its mark is none that imgfs writes: "${displayName(mark)}"`);
  }
  return identity;
}

function checkCosts(path: string, rootFd: number, found: UpperFindings): void {
  const mark = readXattrFd(rootFd, costsXattr);
  if (typeof mark === "number" || isCostsMark(mark)) return;
  found.add(path, `what it says of costs in it is nothing that imgfs writes: "${displayName(mark)}"`);
}

/** The hex digits of the tree that the upper says it belongs to. */
function readTree(
  path: string,
  rootFd: number,
  image: LowerTree | undefined,
  found: UpperFindings,
): string | undefined {
  const mark = readXattrFd(rootFd, treeMark);
  if (typeof mark === "number") return undefined;
  const text = mark.toString("latin1");
  const [, hex] = /^sha256:([0-9a-f]{64})$/.exec(text) ?? [];
  if (hex === undefined) found.add(path, `the mark of its image is none: "${displayName(mark)}"`);
  else if (image !== undefined && text !== image.treeRoot) {
    throw new Error(`upper directory ${path} holds changes to another image: ${text}, not ${image.treeRoot}`);
  }
  return hex;
}

function checkDevices(
  upper: string,
  rootFd: number,
  work: string,
  workFd: number,
  found: UpperFindings,
): void {
  const a = emptyStat();
  const b = emptyStat();
  if (statFd(rootFd, a) < 0 || statFd(workFd, b) < 0) return;
  if (a.dev !== b.dev) found.add(work, `not on the filesystem of ${upper}`);
  if (a.dev === b.dev && a.ino === b.ino) throw new Error(`upper and work directory are the same: ${upper}`);
}
