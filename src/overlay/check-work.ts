// The workdir's part of `imgfs check --upper`: its layout, what lies in it, and that each entry is what its name says.
import { displayName } from "../base/bytes.js";
import { errnoName } from "../base/errno.js";
import {
  closeFd,
  O_DIRECTORY,
  O_NOFOLLOW,
  O_RDONLY,
  openAt,
  pread,
  readDirectory,
  readlinkAt,
} from "../sys/files.js";
import { allocatePages } from "../sys/memory.js";
import { emptyStat, S_IFDIR, S_IFLNK, S_IFMT, S_IFREG, statAt } from "../sys/stat.js";
import { readXattrAt } from "../sys/xattr.js";
import type { UpperCheck } from "./check-upper.js";
import { originProblem, showOverride } from "./check-upper-object.js";
import { originXattr } from "./origin.js";
import { parseUsage, readUsage } from "./quota/usage-file.js";
import { renameForm } from "./swap.js";
import { LAYOUT } from "./upper.js";

/** Names in a workdir and their types. */
const entries: ReadonlyMap<string, number> = new Map([
  ["format", S_IFREG],
  ["format.new", S_IFREG],
  ["tmp", S_IFDIR],
  ["index", S_IFDIR],
  ["moved", S_IFDIR],
  ["rename", S_IFLNK],
  ["usage", S_IFREG],
  ["usage.new", S_IFREG],
]);

/** Checks the workdir open at `fd`, and notes what its index and its records of moved directories say. */
export function checkWork(check: UpperCheck, path: string, fd: number, identity: string | undefined): void {
  const { found } = check;
  const stat = emptyStat();
  const present = new Set<string>();
  for (const name of namesIn(fd)) {
    const text = displayName(name);
    const type = entries.get(text);
    if (type === undefined) {
      found.add(`${path}/${text}`, "not a part of a work directory");
      continue;
    }
    if (statAt(fd, name, stat) < 0 || (stat.mode & S_IFMT) !== type) {
      found.add(`${path}/${text}`, "not of the type that it must be");
    } else present.add(text);
  }
  checkFormat(check, path, fd, present.has("format"), identity);
  for (const name of ["format.new", "usage.new"]) {
    if (present.has(name)) found.note(`${path}/${name}`, "left over; the next mount removes it");
  }
  if (present.has("usage")) checkUsage(check, `${path}/usage`, fd, identity);
  if (present.has("tmp")) checkTemporaries(check, `${path}/tmp`, fd);
  if (present.has("index")) withDirectory(check, path, fd, "index", (at, it) => checkIndex(check, at, it));
  if (present.has("moved")) withDirectory(check, path, fd, "moved", (at, it) => checkMoved(check, at, it));
  if (present.has("rename")) checkRename(check, `${path}/rename`, fd);
}

/** The names in the directory open at `fd`, which is read from where it stands. */
function namesIn(fd: number): Buffer[] {
  const names: Buffer[] = [];
  readDirectory(fd, (bytes, start, end) => names.push(Buffer.from(bytes.subarray(start, end))));
  return names;
}

function withDirectory(
  { found }: UpperCheck,
  path: string,
  workFd: number,
  name: string,
  run: (path: string, fd: number) => void,
): void {
  const fd = openAt(workFd, Buffer.from(name), O_RDONLY | O_DIRECTORY | O_NOFOLLOW);
  if (fd < 0) {
    found.add(`${path}/${name}`, `cannot be opened: ${errnoName(-fd)}`);
    return;
  }
  run(`${path}/${name}`, fd);
  closeFd(fd);
}

function checkFormat(
  { found }: UpperCheck,
  path: string,
  workFd: number,
  present: boolean,
  identity: string | undefined,
): void {
  if (!present) {
    found.note(path, "has not served an upper yet; a mount makes it anew");
    return;
  }
  const memory = allocatePages(4096);
  const fd = openAt(workFd, Buffer.from("format"), O_RDONLY | O_NOFOLLOW);
  const length = fd < 0 ? fd : pread(fd, memory.address, 256, 0);
  if (fd >= 0) closeFd(fd);
  const text = Buffer.from(memory.bytes.subarray(0, Math.max(0, length))).toString("latin1");
  const [layout = "", serves] = text.trim().split(":");
  const shown = displayName(Buffer.from(layout, "latin1"));
  if (layout !== LAYOUT) found.add(`${path}/format`, `a layout this version does not know: "${shown}"`);
  else if (serves !== identity) found.add(path, "serves another upper directory; a mount would empty it");
}

/** A file that is not believed does no harm, and a crash of the machine may leave one. */
function checkUsage({ found }: UpperCheck, path: string, workFd: number, identity: string | undefined): void {
  const text = readUsage(workFd);
  const saved = typeof text === "string" ? parseUsage(text) : undefined;
  const problem =
    saved === undefined
      ? "says nothing of what the upper costs"
      : saved.upper.startsWith(`${identity} `)
        ? undefined
        : "says what another upper costs";
  if (problem !== undefined) found.note(path, `${problem}; the next mount removes it`);
}

function checkTemporaries({ found }: UpperCheck, path: string, workFd: number): void {
  const fd = openAt(workFd, Buffer.from("tmp"), O_RDONLY | O_DIRECTORY | O_NOFOLLOW);
  if (fd < 0) {
    found.add(path, `cannot be opened: ${errnoName(-fd)}`);
    return;
  }
  const { length } = namesIn(fd);
  closeFd(fd);
  if (length > 0) found.note(path, `${length} left over; the next mount removes what is there`);
}

/** The row that an entry's name is, or a negative number. */
function rowOf(name: Buffer): number {
  const text = name.toString("latin1");
  return /^(0|[1-9][0-9]{0,9})$/.test(text) ? Number(text) : -1;
}

function checkIndex(check: UpperCheck, path: string, fd: number): void {
  const { found, lower, indexed } = check;
  const stat = emptyStat();
  for (const name of namesIn(fd)) {
    const where = `${path}/${displayName(name)}`;
    const row = rowOf(name);
    const problem = row < 0 ? "its name is no row" : rowProblem(check, row);
    if (problem !== undefined || statAt(fd, name, stat) < 0) {
      found.add(where, problem ?? "cannot be looked at");
      continue;
    }
    showOverride(check, fd, name, stat, where);
    const type = stat.mode & S_IFMT;
    if (type === S_IFDIR) found.add(where, "a directory; the index holds none");
    else if (lower !== undefined && (lower.tree.mode(row) & S_IFMT) !== type) {
      found.add(where, `not of the type that row ${row} of the image has`);
    }
    const other = indexed.get(stat.ino);
    if (other !== undefined) found.add(where, `the object of row ${other}, too`);
    else indexed.set(stat.ino, row);
    if (type !== S_IFREG) continue;
    const origin = readXattrAt(fd, name, originXattr);
    const wrong =
      typeof origin === "number" ? "a file without an origin" : originProblem(check, origin, stat, row);
    if (wrong !== undefined) found.add(where, wrong);
  }
}

function rowProblem({ lower }: UpperCheck, row: number): string | undefined {
  if (lower === undefined || row < lower.tree.inodeCount) return undefined;
  return `there is no row ${row} in the image`;
}

function checkMoved(check: UpperCheck, path: string, fd: number): void {
  const { found, lower, moved } = check;
  const stat = emptyStat();
  for (const name of namesIn(fd)) {
    const where = `${path}/${displayName(name)}`;
    const row = rowOf(name);
    const problem = row < 0 ? "its name is no row" : rowProblem(check, row);
    if (problem !== undefined) found.add(where, problem);
    else if (lower !== undefined && !lower.isDirectory(row)) found.add(where, `row ${row} is no directory`);
    else moved.add(row);
    if (statAt(fd, name, stat) < 0 || (stat.mode & S_IFMT) !== S_IFREG || stat.size !== 0) {
      found.add(where, "not an empty file");
    }
  }
}

function checkRename(check: UpperCheck, path: string, workFd: number): void {
  const { found } = check;
  const memory = allocatePages(4096);
  const length = readlinkAt(workFd, Buffer.from("rename"), memory.address, memory.length);
  const text = Buffer.from(memory.bytes.subarray(0, Math.max(0, length))).toString("latin1");
  check.interrupted = renameForm.test(text);
  if (check.interrupted) found.note(path, "a rename was interrupted; the next mount finishes it");
  else found.add(path, "says nothing of a rename");
}
