// The walk of `imgfs check --upper`: every object of the upper directory, with what is merged below it where the image is
// known. One descriptor is open at a time, whatever the depth: it goes down by a name and up by `..`.
import { displayName } from "../base/bytes.js";
import { errnoName } from "../base/errno.js";
import {
  closeFd,
  O_DIRECTORY,
  O_NOFOLLOW,
  O_RDONLY,
  openAt,
  readDirectory,
  reopenDirectory,
} from "../sys/files.js";
import { emptyStat, S_IFCHR, S_IFDIR, S_IFMT, S_IFREG, type Stat, statAt, statFd } from "../sys/stat.js";
import { readXattrAt, readXattrFd, readXattrNamesAt, readXattrNamesFd } from "../sys/xattr.js";
import type { UpperCheck } from "./check-upper.js";
import {
  costsProblem,
  markProblem,
  type Named,
  originProblem,
  parseMark,
  showOverride,
  unknownMark,
} from "./check-upper-object.js";
import { resolvePath, trustedRedirect, userRedirect } from "./redirect.js";
import { copiedMarks, whiteoutMarks } from "./whiteout.js";

export interface TreeCheck {
  readonly objects: number;
}

/** A directory on the way down. */
interface Level {
  readonly ino: number;
  readonly path: string;
  /** The image directory merged below it, -1 for none or when no image is known. */
  readonly lowerRow: number;
  readonly impure: boolean;
  readonly xattrWhiteouts: boolean;
  readonly names: Buffer[];
}

const parent = Buffer.from("..");
const opaqueMarks = ["user.overlay.opaque", "trusted.overlay.opaque"].map((name) => Buffer.from(name));
const ownRedirect = Buffer.from("user.imgfs.redirect");
const origin = Buffer.from("user.imgfs.origin");
const metacopyMarks = ["user.overlay.metacopy", "trusted.overlay.metacopy"];

/** Checks everything in the upper directory open at `rootFd`. Throws an Error when somebody changes it meanwhile. */
export function checkTree(check: UpperCheck, path: string, rootFd: number): TreeCheck {
  const walk = new Walk(check, path);
  walk.run(rootFd);
  return { objects: walk.objects };
}

class Walk {
  objects = 0;
  private readonly check: UpperCheck;
  private readonly root: string;
  private readonly stat: Stat = emptyStat();
  /** Rows to the path of who has claimed them, and the backing inodes of files. */
  private readonly claims = new Map<number, string>();
  private readonly claimants = new Map<number, number>();
  private device = 0;

  constructor(check: UpperCheck, root: string) {
    this.check = check;
    this.root = root.replace(/\/+$/, "");
  }

  run(rootFd: number): void {
    let fd = reopenDirectory(rootFd);
    if (fd < 0) throw new Error(`upper directory ${this.root}: ${errnoName(-fd)}`);
    statFd(fd, this.stat);
    this.device = this.stat.dev;
    const levels: Level[] = [this.enter(fd, this.root, this.stat.ino, 0)];
    try {
      for (let at = levels.at(-1); at !== undefined; at = levels.at(-1)) {
        const name = at.names.pop();
        if (name === undefined) {
          levels.pop();
          const above = levels.at(-1);
          if (above !== undefined) fd = this.up(fd, above);
          continue;
        }
        this.objects++;
        const child = this.look(fd, at, name);
        if (child === undefined) continue;
        closeFd(fd);
        fd = child.fd;
        levels.push(child.level);
      }
    } finally {
      closeFd(fd);
    }
  }

  private checkCosts(
    path: string,
    names: readonly string[],
    isDirectory: boolean,
    read: (key: Buffer) => Buffer | number,
  ): void {
    const problem = costsProblem(names, isDirectory, read, this.check.costs);
    if (problem !== undefined) this.check.found.add(path, problem);
  }

  private up(fd: number, above: Level): number {
    const next = openAt(fd, parent, O_RDONLY | O_DIRECTORY | O_NOFOLLOW);
    closeFd(fd);
    if (next < 0 || statFd(next, this.stat) < 0 || this.stat.ino !== above.ino) {
      throw new Error(`${above.path}: was changed while it was checked`);
    }
    return next;
  }

  /** Checks one name; what comes back is a directory to go on in. */
  private look(fd: number, at: Level, name: Buffer): { fd: number; level: Level } | undefined {
    const { found } = this.check;
    const path = `${at.path}/${displayName(name)}`;
    const looked = statAt(fd, name, this.stat);
    if (looked < 0) {
      found.add(path, `cannot be looked at: ${errnoName(-looked)}`);
      return undefined;
    }
    showOverride(this.check, fd, name, this.stat, path);
    const type = this.stat.mode & S_IFMT;
    if (type !== S_IFDIR) {
      if (type === S_IFREG) this.lookAtFile(fd, at, name, path);
      else if (type !== S_IFCHR || this.stat.rdev !== 0) this.lookAtOther(path);
      return undefined;
    }
    if (this.stat.dev !== this.device) {
      found.add(path, "another filesystem is mounted there");
      return undefined;
    }
    const { ino } = this.stat;
    const child = openAt(fd, name, O_RDONLY | O_DIRECTORY | O_NOFOLLOW);
    if (child < 0) {
      found.add(path, `cannot be opened: ${errnoName(-child)}`);
      return undefined;
    }
    return { fd: child, level: this.enter(child, path, ino, this.placeIn(at, name)) };
  }

  /** The image's directory of that name; -1 for none. */
  private placeIn(at: Level, name: Buffer): number {
    const { lower } = this.check;
    if (lower === undefined || at.lowerRow < 0) return -1;
    const row = lower.find(at.lowerRow, name, 0, name.length);
    return row >= 0 && lower.isDirectory(row) ? row : -1;
  }

  /** Checks the marks of the directory open at `fd`; `place` is what would be merged below it by its place alone. */
  private enter(fd: number, path: string, ino: number, place: number): Level {
    const { found, lower } = this.check;
    const names = namesOf(readXattrNamesFd(fd));
    const strange = unknownMark(names, path === this.root);
    if (strange !== undefined)
      found.add(path, `a mark that imgfs does not make: "${displayName(Buffer.from(strange, "latin1"))}"`);
    let opaque = false;
    let xattrWhiteouts = names.includes("user.imgfs.whiteouts");
    for (const key of opaqueMarks) {
      if (!names.includes(key.toString())) continue;
      const value = readXattrFd(fd, key);
      const text = typeof value === "number" ? "" : value.toString("latin1");
      if (text === "y") opaque = true;
      else if (text === "x") xattrWhiteouts = true;
      else found.add(path, `an opaque mark of unknown value: "${displayName(Buffer.from(text, "latin1"))}"`);
    }
    const redirected = this.redirectOf(fd, path, names, place);
    this.checkCosts(path, names, true, (key) => readXattrFd(fd, key));
    const row = opaque || lower === undefined ? -1 : (redirected ?? place);
    if (row > 0 && this.check.costs.marked && !names.some((mark) => copiedMarks.includes(mark))) {
      found.note(
        path,
        "merged with a directory of the image and not marked as a copy: a quota counts it as made here",
      );
    }
    if (row >= 0) this.claimDirectory(path, row, redirected !== undefined && redirected !== place);
    const list: Buffer[] = [];
    const read = readDirectory(fd, (bytes, start, end) => list.push(Buffer.from(bytes.subarray(start, end))));
    if (read < 0) found.add(path, `cannot be read: ${errnoName(-read)}`);
    const impure = names.some((name) => name === "user.imgfs.impure" || name.endsWith(".overlay.impure"));
    return { ino, path, lowerRow: row, impure, xattrWhiteouts, names: list };
  }

  /** The image directory that a redirect leads to, -1 for a wrong one, undefined without one. */
  private redirectOf(fd: number, path: string, names: readonly string[], place: number): number | undefined {
    const { found, lower } = this.check;
    const read = (key: Buffer): Buffer | undefined => {
      const value = names.includes(key.toString()) ? readXattrFd(fd, key) : -1;
      return typeof value === "number" ? undefined : value;
    };
    const own = read(ownRedirect);
    const told = [read(trustedRedirect), read(userRedirect)].filter((value) => value !== undefined);
    const [first, second] = told;
    if (first !== undefined && second !== undefined && !first.equals(second)) {
      found.add(path, "two redirects that differ");
    }
    if (own !== undefined) {
      const problem = markProblem(this.check, own, true);
      if (problem !== undefined) {
        found.add(path, problem);
        return -1;
      }
      const { row } = parseMark(own, true) as Named;
      if (lower === undefined || lower.isDirectory(row)) return row;
      found.add(path, `its redirect names row ${row}, which is no directory`);
      return -1;
    }
    if (first === undefined) return undefined;
    if (!isRedirectPath(first)) {
      found.add(path, `a redirect that is no path: "${displayName(first)}"`);
      return -1;
    }
    if (lower === undefined) return undefined;
    const beside = place < 0 ? -1 : lower.tree.parent(place);
    const row = resolvePath(lower, first, beside);
    if (row >= 0 && lower.isDirectory(row)) return row;
    // A name beside what is merged is only known with it.
    if (first[0] !== SLASH && beside < 0) return -1;
    found.add(path, `redirected to "${displayName(first)}", which is no directory of the image`);
    return -1;
  }

  private claimDirectory(path: string, row: number, isMoved: boolean): void {
    const { found, moved } = this.check;
    const other = this.claims.get(row);
    if (other !== undefined && !this.check.interrupted) {
      found.add(path, `the same directory of the image as ${other}`);
    } else this.claims.set(row, path);
    if (isMoved && !moved.has(row)) {
      found.note(path, "was moved by another overlay, or without a record of it");
    }
  }

  private lookAtFile(fd: number, at: Level, name: Buffer, path: string): void {
    const { found, lower, indexed } = this.check;
    const { ino, size } = this.stat;
    const names = namesOf(readXattrNamesAt(fd, name));
    const strange = unknownMark(names, false);
    if (strange !== undefined)
      found.add(path, `a mark that imgfs does not make: "${displayName(Buffer.from(strange, "latin1"))}"`);
    this.checkCosts(path, names, false, (key) => readXattrAt(fd, name, key));
    if (names.some((mark) => whiteoutMarks.includes(mark))) {
      if (size > 0) found.add(path, "marked as a whiteout, and has data");
      else if (!at.xattrWhiteouts)
        found.add(path, "a whiteout in a directory that is not marked as one that holds any");
      return;
    }
    const covers = at.lowerRow >= 0 && lower !== undefined && lower.covers(at.lowerRow, name);
    const value = readXattrAt(fd, name, origin);
    if (typeof value === "number") {
      if (indexed.has(ino)) found.add(path, "linked in the index, and has no origin");
      if (names.some((mark) => metacopyMarks.includes(mark))) this.lookAtForeignCopy(fd, at, name, path);
      return;
    }
    const problem = originProblem(this.check, value, this.stat, indexed.get(ino) ?? -1);
    if (problem !== undefined) {
      found.add(path, problem);
      return;
    }
    const { row, rest } = parseMark(value) as Named;
    if (lower === undefined) return;
    if (!indexed.has(ino) && !at.impure && !covers) {
      if (rest !== "")
        found.add(path, "a copy without data in a directory that is not marked as one that holds any");
      else found.note(path, "its origin is not looked for in this directory");
      return;
    }
    if (lower.tree.nlink(row) > 1 && !indexed.has(ino)) {
      found.note(path, `cut off from the other names of row ${row}: not in the index`);
      return;
    }
    const claimant = this.claimants.get(row);
    if (claimant !== undefined && claimant !== ino) {
      found.add(path, `the copy of row ${row}, as ${this.claims.get(row)} is`);
    } else {
      this.claimants.set(row, ino);
      if (!this.claims.has(row)) this.claims.set(row, path);
    }
  }

  /** What another overlay copied up without its data must say, by its redirect or by its name, whose it has. */
  private lookAtForeignCopy(fd: number, at: Level, name: Buffer, path: string): void {
    const { found, lower } = this.check;
    if (lower === undefined) return;
    const redirect = [trustedRedirect, userRedirect]
      .map((key) => readXattrAt(fd, name, key))
      .find((value) => typeof value !== "number");
    const row =
      redirect !== undefined
        ? resolvePath(lower, redirect, at.lowerRow)
        : at.lowerRow < 0
          ? -1
          : lower.find(at.lowerRow, name, 0, name.length);
    if (row >= 0 && (lower.tree.mode(row) & S_IFMT) === S_IFREG) return;
    found.add(path, "a copy without data, whose data the image does not have");
  }

  /** Symlinks, FIFOs, sockets and devices carry no marks; the index knows where they come from. */
  private lookAtOther(path: string): void {
    const { found, lower, indexed } = this.check;
    const row = indexed.get(this.stat.ino);
    if (row === undefined || lower === undefined || row >= lower.tree.inodeCount) return;
    if ((lower.tree.mode(row) & S_IFMT) !== (this.stat.mode & S_IFMT)) {
      found.add(path, `linked in the index as row ${row}, which is of another type`);
    }
  }
}

const SLASH = 0x2f;

/** A path from the image's root, or one name. */
function isRedirectPath(value: Buffer): boolean {
  if (value.length === 0 || value.includes(0)) return false;
  if (value[0] !== SLASH) return !value.includes(SLASH);
  return (
    value.length > 1 &&
    value
      .subarray(1)
      .toString("latin1")
      .split("/")
      .every((part) => part !== "" && part !== "." && part !== "..")
  );
}

function namesOf(list: Buffer | number): string[] {
  return typeof list === "number" ? [] : list.toString("latin1").split("\0").slice(0, -1);
}
