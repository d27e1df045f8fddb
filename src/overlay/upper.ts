// The writable side on disk: the upper directory, in overlayfs's convention and nothing else, and the workdir beside
// it, which is ours alone:
//   WORK/format      layout version, and the identity of the upper it serves
//   WORK/tmp/        what is being made; emptied at mount
//   WORK/index/ROW   hard links to objects that came from image row ROW (see origin.ts)
//   WORK/moved/ROW   image directories that were moved (see moved.ts)
//   WORK/usage       what the upper costs, between a clean end and the next mount (quota/usage-file.ts)
//   WORK/rename      what a rename that takes two steps is about to do (see swap.ts)
// The upper's root carries user.imgfs.upper (that identity) and, from the first copy-up on, user.imgfs.tree (the image).
// Invariant: one process holds both directories, by flock, until it ends.
import { randomBytes } from "node:crypto";
import { existsSync, realpathSync } from "node:fs";
import { Errno, errnoName, errnoText } from "../base/errno.js";
import { makeFolders } from "../base/folders.js";
import {
  AT_FDCWD,
  AT_REMOVEDIR,
  closeFd,
  fdatasyncFd,
  flockFd,
  LOCK_EX,
  LOCK_NB,
  mkdirAt,
  mknodAt,
  O_CREAT,
  O_DIRECTORY,
  O_NOFOLLOW,
  O_RDONLY,
  O_TRUNC,
  O_WRONLY,
  openAt,
  pread,
  pwrite,
  RENAME_WHITEOUT,
  readDirectory,
  renameAt,
  reopenDirectory,
  unlinkAt,
} from "../sys/files.js";
import { check } from "../sys/libc.js";
import { allocatePages } from "../sys/memory.js";
import { emptyStat, S_IFCHR, S_IFDIR, S_IFMT, statAt, statFd } from "../sys/stat.js";
import { readXattrFd, removeXattrFd, writeXattrFd } from "../sys/xattr.js";
import { fault } from "./fault.js";
import { type Overrides, readOverrides } from "./override.js";
import { type Costs, markCosts, readCosts } from "./quota/costs-mark.js";

export const LAYOUT = "imgfs upper 1";
export const upperMark: Buffer = Buffer.from("user.imgfs.upper");
export const treeMark: Buffer = Buffer.from("user.imgfs.tree");
const trustedProbe = Buffer.from("trusted.overlay.imgfs-probe");

export interface Upper {
  readonly path: string;
  readonly rootFd: number;
  readonly workFd: number;
  readonly temporaryFd: number;
  readonly indexFd: number;
  readonly movedFd: number;
  /** Skips syncing copied data before it is committed. */
  readonly volatile: boolean;
  /** Directories of the image may be moved, by redirect marks. */
  readonly redirects: boolean;
  /** A change of metadata copies metadata only. */
  readonly metacopy: boolean;
  /** mknod makes device 0:0 here. */
  readonly deviceWhiteouts: boolean;
  /** rename can leave a whiteout behind. */
  readonly renameWhiteouts: boolean;
  /** trusted. xattrs can be set. */
  readonly trustedXattrs: boolean;
  /** What may show another owner, mode or kind than its backing object has. */
  readonly overrides: Overrides;
  /** What may be found in it that a quota must look for. */
  readonly costs: Costs;
  /** Image row to backing inode, and back, of what WORK/index holds. */
  readonly index: Map<number, number>;
  readonly indexRows: Map<number, number>;
  /** Rows whose link in the index is the only one: found through it, or left over from before a crash. */
  readonly lonely: readonly number[];
  /** Rows of image directories that were moved, and whether all of them have a record. */
  readonly moved: Set<number>;
  movedLocated: boolean;
  /** Directories, by nodeid, whose records are kept for that. */
  readonly movedKept: Set<number>;
  /** tree_root of the image that the objects here come from; undefined until the first copy-up. */
  tree: string | undefined;
  temporaries: number;
}

export interface UpperOptions {
  readonly upper: string;
  readonly work?: string | undefined;
  readonly treeRoot: string;
  readonly volatile?: boolean | undefined;
  readonly redirects?: boolean | undefined;
  readonly metacopy?: boolean | undefined;
  /** Gives the root of an upper that has never been used what the image says of its root. May throw FsError. */
  initializeRoot(upper: Upper): void;
  /** Reads an upper that is not new, before it has this workdir; `foreign` when it has no mark yet. May throw. */
  survey(upper: Upper, foreign: boolean): void;
}

/** A name in the workdir's tmp that no other has. */
export function temporaryName(upper: Upper): Buffer {
  return Buffer.from(`${upper.temporaries++}`);
}

/** Opens, makes and locks the directories. Throws an Error whose message is one line naming what is wrong. */
export function openUpper(options: UpperOptions): Upper {
  const work = options.work ?? `${options.upper.replace(/\/+$/, "")}.work`;
  const opened: number[] = [];
  try {
    const rootFd = openDirectory(options.upper, "upper directory", opened);
    const workFd = openDirectory(work, "work directory", opened);
    checkPlaces(options.upper, work, rootFd, workFd);
    lock(rootFd, `upper directory ${options.upper}`);
    lock(workFd, `work directory ${work}`);
    const overrides = readOverrides(rootFd);
    const costs = readCosts(rootFd);
    const marked = readIdentity(options, rootFd);
    const tree = readTree(options, rootFd);
    const isNew = marked === undefined && isEmpty(rootFd);
    const identity = marked ?? randomBytes(8).toString("hex");
    const serves = clearWork(work, workFd, identity);
    const temporaryFd = subdirectory(workFd, "tmp", work, opened);
    const indexFd = subdirectory(workFd, "index", work, opened);
    const movedFd = subdirectory(workFd, "moved", work, opened);
    check(fault("setup.empty"), `work directory ${work}`);
    empty(temporaryFd);
    const { index, indexRows, lonely } = readIndex(indexFd);
    const upper: Upper = {
      path: options.upper,
      rootFd,
      workFd,
      temporaryFd,
      indexFd,
      movedFd,
      moved: readMoved(movedFd),
      movedLocated: false,
      movedKept: new Set(),
      volatile: options.volatile ?? false,
      redirects: options.redirects ?? true,
      metacopy: options.metacopy ?? true,
      ...probe(temporaryFd),
      overrides,
      costs,
      index,
      indexRows,
      lonely,
      tree,
      temporaries: 0,
    };
    if (isNew) startRoot(options, upper);
    else if (!serves) options.survey(upper, marked === undefined);
    if (!serves) nameWork(work, workFd, identity);
    if (marked === undefined) markRoot(options, rootFd, identity);
    return upper;
  } catch (cause) {
    for (const fd of opened) closeFd(fd);
    throw cause;
  }
}

/** Closes the directories and with them the locks. */
export function closeUpper(upper: Upper): void {
  empty(upper.temporaryFd);
  for (const fd of [upper.movedFd, upper.indexFd, upper.temporaryFd, upper.workFd, upper.rootFd]) closeFd(fd);
}

/** Records, before the first object with an origin appears, which image origins speak of. 0 or a negative errno. */
export function claimTree(upper: Upper, treeRoot: string): number {
  if (upper.tree !== undefined) return 0;
  const result = fault("tree.mark") || writeXattrFd(upper.rootFd, treeMark, Buffer.from(treeRoot));
  if (result === 0) upper.tree = treeRoot;
  return result;
}

/** Removes what an entry of WORK/tmp holds, directories with all they contain. */
export function removeTemporary(upper: Upper, name: Uint8Array): void {
  remove(upper.temporaryFd, name);
}

function openDirectory(path: string, what: string, opened: number[]): number {
  try {
    if (!existsSync(path)) {
      check(fault("setup.folder"), path);
      makeFolders(path);
    }
  } catch (cause) {
    throw new Error(`cannot create ${what} ${(cause as Error).message}`);
  }
  const fd = openAt(AT_FDCWD, Buffer.from(path), O_RDONLY | O_DIRECTORY);
  if (fd < 0) throw new Error(`cannot open ${what} ${path}: ${errnoName(-fd)}`);
  opened.push(fd);
  return fd;
}

function checkPlaces(upper: string, work: string, rootFd: number, workFd: number): void {
  const a = emptyStat();
  const b = emptyStat();
  statFd(rootFd, a);
  statFd(workFd, b);
  const from = `${realpathSync(upper)}/`;
  const to = `${realpathSync(work)}/`;
  if (from === to) throw new Error(`upper and work directory are the same: ${upper}`);
  if (from.startsWith(to)) throw new Error(`upper directory ${upper} is inside the work directory ${work}`);
  if (to.startsWith(from)) throw new Error(`work directory ${work} is inside the upper directory ${upper}`);
  if (a.dev !== b.dev) {
    throw new Error(`upper directory ${upper} and work directory ${work} are on different filesystems`);
  }
}

function lock(fd: number, what: string): void {
  const result = flockFd(fd, LOCK_EX | LOCK_NB);
  if (result === -Errno.EAGAIN) throw new Error(`${what} is in use by another mount`);
  if (result < 0) throw new Error(`cannot lock ${what}: ${errnoName(-result)}`);
}

/** The identity in the upper's mark, if it has one. */
function readIdentity({ upper: path }: UpperOptions, rootFd: number): string | undefined {
  const mark = readXattrFd(rootFd, upperMark);
  if (mark === -Errno.ENODATA) return undefined;
  if (typeof mark === "number") throw noXattrs(path, mark);
  const [layout, identity] = split(mark.toString());
  if (layout !== LAYOUT || identity === undefined) {
    throw new Error(`upper directory ${path} has a layout this version does not know: ${layout}`);
  }
  return identity;
}

function startRoot({ upper: path, initializeRoot }: UpperOptions, upper: Upper): void {
  check(fault("setup.root"), `upper directory ${path}`);
  const marked = markCosts(upper.costs, { allocated: false, xattrs: false });
  if (marked < 0) throw noXattrs(path, marked);
  initializeRoot(upper);
}

/** The last step: from here on the upper is ours. */
function markRoot({ upper: path }: UpperOptions, rootFd: number, identity: string): void {
  const text = Buffer.from(`${LAYOUT}:${identity}`);
  const written = fault("setup.mark") || writeXattrFd(rootFd, upperMark, text);
  if (written < 0) throw noXattrs(path, written);
}

function isEmpty(fd: number): boolean {
  let empty = true;
  const again = reopenDirectory(fd);
  if (again < 0) return false;
  readDirectory(again, () => {
    empty = false;
  });
  closeFd(again);
  return empty;
}

function noXattrs(path: string, result: number): Error {
  if (result === -Errno.EROFS) return new Error(`upper directory ${path}: ${errnoText("EROFS")}`);
  return new Error(`upper directory ${path} keeps no user xattrs: ${errnoName(-result)}`);
}

function split(text: string): (string | undefined)[] {
  return text.trim().split(":");
}

function readTree(options: UpperOptions, rootFd: number): string | undefined {
  const mark = readXattrFd(rootFd, treeMark);
  if (typeof mark === "number") return undefined;
  const tree = mark.toString();
  if (tree !== options.treeRoot) {
    throw new Error(
      `upper directory ${options.upper} holds changes to another image: ${tree}, not ${options.treeRoot}`,
    );
  }
  return tree;
}

const formatFile = Buffer.from("format");
const newFormatFile = Buffer.from("format.new");

/** The layout of a workdir and the identity of the upper that it serves; undefined where nothing says. */
function readFormat(workFd: number): (string | undefined)[] | undefined {
  const memory = allocatePages(4096);
  const fd = openAt(workFd, formatFile, O_RDONLY | O_NOFOLLOW);
  if (fd < 0) return undefined;
  const length = pread(fd, memory.address, 256, 0);
  closeFd(fd);
  return split(Buffer.from(memory.bytes.subarray(0, Math.max(0, length))).toString());
}

/** The identity of the upper that the workdir open at `workFd` serves; undefined for none, or another layout. */
export function servedBy(workFd: number): string | undefined {
  const [layout, serves] = readFormat(workFd) ?? [];
  return layout === LAYOUT ? serves : undefined;
}

/** True when the workdir serves this upper; else what another upper left in it is dropped. */
function clearWork(path: string, workFd: number, identity: string): boolean {
  const format = readFormat(workFd);
  if (format !== undefined) {
    const [layout, serves] = format;
    if (layout !== LAYOUT) {
      throw new Error(`work directory ${path} has a layout this version does not know: ${layout}`);
    }
    if (serves === identity) {
      // Of a mount that was cut short.
      unlinkAt(workFd, newFormatFile);
      return true;
    }
    check(fault("setup.drop"), `work directory ${path}`);
    remove(workFd, formatFile);
  }
  for (const name of ["index", "moved", "rename", "usage"]) {
    check(fault("setup.drop"), `work directory ${path}`);
    remove(workFd, Buffer.from(name));
  }
  return false;
}

/** Makes the workdir serve this upper. */
function nameWork(path: string, workFd: number, identity: string): void {
  const memory = allocatePages(4096);
  const line = Buffer.from(`${LAYOUT}:${identity}\n`);
  memory.bytes.set(line);
  const flags = O_CREAT | O_TRUNC | O_WRONLY | O_NOFOLLOW;
  const made = fault("setup.format") || openAt(workFd, newFormatFile, flags, 0o600);
  if (made < 0) throw new Error(`cannot write in work directory ${path}: ${errnoName(-made)}`);
  const written = fault("setup.format-write") || pwrite(made, memory.address, line.length, 0);
  const synced = fdatasyncFd(made);
  closeFd(made);
  if (written !== line.length || synced < 0) throw new Error(`cannot write in work directory ${path}`);
  const named = fault("setup.format-commit") || renameAt(workFd, newFormatFile, workFd, formatFile);
  if (named < 0) throw new Error(`cannot write in work directory ${path}: ${errnoName(-named)}`);
}

function subdirectory(workFd: number, name: string, path: string, opened: number[]): number {
  const bytes = Buffer.from(name);
  const made = fault("setup.subdirectory") || mkdirAt(workFd, bytes, 0o700);
  const fd =
    made < 0 && made !== -Errno.EEXIST ? made : openAt(workFd, bytes, O_RDONLY | O_DIRECTORY | O_NOFOLLOW);
  if (fd < 0) throw new Error(`cannot use work directory ${path}/${name}: ${errnoName(-fd)}`);
  opened.push(fd);
  return fd;
}

/** What the hard-link index holds. */
export function readIndex(indexFd: number): Pick<Upper, "index" | "indexRows" | "lonely"> {
  const lonely: number[] = [];
  const index = new Map<number, number>();
  const indexRows = new Map<number, number>();
  const names: Buffer[] = [];
  readDirectory(indexFd, (bytes, start, end) => names.push(Buffer.from(bytes.subarray(start, end))));
  const stat = emptyStat();
  for (const name of names) {
    const row = Number(name.toString("latin1"));
    if (!Number.isSafeInteger(row) || row < 0 || statAt(indexFd, name, stat) < 0) continue;
    index.set(row, stat.ino);
    indexRows.set(stat.ino, row);
    if (stat.nlink === 1) lonely.push(row);
  }
  return { index, indexRows, lonely };
}

/** Rows of directories that were moved. */
function readMoved(movedFd: number): Set<number> {
  const rows = new Set<number>();
  readDirectory(movedFd, (bytes, start, end) => {
    const row = Number(Buffer.from(bytes.subarray(start, end)).toString("latin1"));
    if (Number.isSafeInteger(row)) rows.add(row);
  });
  return rows;
}

function probe(temporaryFd: number): Pick<Upper, "deviceWhiteouts" | "renameWhiteouts" | "trustedXattrs"> {
  const probeName = Buffer.from("probe");
  const movedName = Buffer.from("probe-moved");
  const made = fault("setup.probe") || mknodAt(temporaryFd, probeName, S_IFCHR, 0);
  if (made === -Errno.EIO) check(made, "work directory");
  const deviceWhiteouts = made === 0;
  const renameWhiteouts =
    deviceWhiteouts &&
    fault("setup.probe-rename") === 0 &&
    renameAt(temporaryFd, probeName, temporaryFd, movedName, RENAME_WHITEOUT) === 0;
  check(fault("setup.probe-remove"), "work directory");
  unlinkAt(temporaryFd, probeName);
  unlinkAt(temporaryFd, movedName);
  const trustedXattrs = writeXattrFd(temporaryFd, trustedProbe, Buffer.from("y")) === 0;
  if (trustedXattrs) removeXattrFd(temporaryFd, trustedProbe);
  return { deviceWhiteouts, renameWhiteouts, trustedXattrs };
}

function empty(fd: number): void {
  const names: Buffer[] = [];
  const again = reopenDirectory(fd);
  if (again < 0) return;
  readDirectory(again, (bytes, start, end) => names.push(Buffer.from(bytes.subarray(start, end))));
  closeFd(again);
  for (const name of names) remove(fd, name);
}

function remove(directoryFd: number, name: Uint8Array): void {
  const stat = emptyStat();
  if (statAt(directoryFd, name, stat) < 0) return;
  if ((stat.mode & S_IFMT) !== S_IFDIR) {
    unlinkAt(directoryFd, name);
    return;
  }
  const fd = openAt(directoryFd, name, O_RDONLY | O_DIRECTORY | O_NOFOLLOW);
  if (fd < 0) return;
  empty(fd);
  closeFd(fd);
  unlinkAt(directoryFd, name, AT_REMOVEDIR);
}
