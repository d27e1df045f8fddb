// The first look at an upper directory that is not new: all of it is read once, before the first mount that has this
// workdir, and before an upper without our mark gets it.
//   WORK/moved     gets the image directories that were moved, by whichever overlay
//   .wh.NAME       an empty file that says that NAME is gone, as fuse-overlayfs makes it where it may not mknod, and aufs
//                  always; .wh..wh..opq in a directory says that it is opaque. In an upper without our mark, and without
//                  the kernel's, to which they are names as well, each becomes what we make ourselves.
// Invariants: what a `.wh.` file says is said in our form before the file goes, so a crash leaves a tree that the next
// survey finishes; the mark and the workdir's layout file come after it. Times of directories stay.
import { displayName, nameOf } from "../base/bytes.js";
import { Errno, errnoName, FsError } from "../base/errno.js";
import type { Logger } from "../base/log.js";
import {
  closeFd,
  O_DIRECTORY,
  O_NOFOLLOW,
  O_RDONLY,
  openAt,
  readDirectory,
  reopenDirectory,
  UTIME_OMIT,
  unlinkAt,
  utimesFd,
} from "../sys/files.js";
import { check } from "../sys/libc.js";
import { emptyStat, S_IFDIR, S_IFMT, S_IFREG, statAt, statFd } from "../sys/stat.js";
import { getXattrFd } from "../sys/xattr.js";
import { fault } from "./fault.js";
import type { Lower, LowerEntry } from "./lower.js";
import { recordMoved } from "./moved.js";
import { resolveRedirect, writeRedirect } from "./redirect.js";
import { claimTree, type Upper } from "./upper.js";
import { makeWhiteout, markOpaque, readMarks } from "./whiteout.js";

/** The image's root, which is merged with the upper's whatever that says (the kernel's overlayfs has it so). */
const ROOT = 0;
const PREFIX = Buffer.from(".wh.");
/** Names with it are not of what was removed, but aufs's own. */
const OWN_PREFIX = Buffer.from(".wh..wh.");
const kernelMarks = [Buffer.from("trusted.overlay.uuid"), Buffer.from("user.overlay.uuid")];
const OPAQUE = Buffer.from(".wh..wh..opq");

interface Survey {
  readonly upper: Upper;
  readonly lower: Lower;
  /** Empty `.wh.` files are whiteouts. */
  readonly converts: boolean;
  converted: number;
}

/** Reads the whole upper directory. Throws an Error whose message is one line that names what is wrong. */
export function surveyUpper(upper: Upper, lower: Lower, foreign: boolean, log: Logger): void {
  const converts = foreign && !isKernels(upper.rootFd);
  const survey: Survey = { upper, lower, converts, converted: 0 };
  const root = reopenDirectory(upper.rootFd);
  try {
    visit(survey, check(root, "open"), ROOT, []);
  } catch (cause) {
    if (!(cause instanceof FsError)) throw cause;
    throw new Error(`upper directory ${upper.path}: ${cause.message}`);
  } finally {
    if (root >= 0) closeFd(root);
  }
  if (survey.converted > 0) {
    log.info("whiteout files of another overlay converted", { upper: upper.path, files: survey.converted });
  }
}

/** True for an upper that the kernel's overlayfs has had: it gives its root an identity (ovl_init_uuid_xattr, Linux 6.6). */
export function isKernels(rootFd: number): boolean {
  return kernelMarks.some((mark) => getXattrFd(rootFd, mark, 0, 0) >= 0);
}

/** The directory open at `fd`, with what is below it; `row` is what is merged with it, or -1. Throws FsError. */
function visit(survey: Survey, fd: number, row: number, path: readonly Buffer[]): void {
  const names = listOf(fd);
  const merged = survey.converts && convert(survey, fd, row, names) ? -1 : row;
  const stat = emptyStat();
  for (const name of names) {
    if (statAt(fd, name, stat) < 0 || (stat.mode & S_IFMT) !== S_IFDIR) continue;
    const childPath = [...path, name];
    const child = openAt(fd, name, O_RDONLY | O_DIRECTORY | O_NOFOLLOW);
    // What may not be read shows nothing either.
    if (child === -Errno.EACCES) continue;
    if (child < 0) throw new FsError(-child, `${show(childPath)}: ${errnoName(-child)}`);
    try {
      visit(survey, child, mergedWith(survey, child, merged, name), childPath);
    } finally {
      closeFd(child);
    }
  }
}

function show(path: readonly Buffer[]): string {
  return path.map((name) => displayName(nameOf(name))).join("/");
}

function listOf(fd: number): Buffer[] {
  const names: Buffer[] = [];
  check(
    readDirectory(fd, (bytes, start, end) => names.push(Buffer.from(bytes.subarray(start, end)))),
    "read",
  );
  return names;
}

/** The image directory that is merged with a subdirectory; what was moved there is recorded. */
function mergedWith({ upper, lower }: Survey, child: number, parentRow: number, name: Buffer): number {
  const { opaque, redirect } = readMarks(child);
  if (opaque) return -1;
  if (redirect === undefined) {
    const row = parentRow < 0 ? -1 : lower.find(parentRow, name, 0, name.length);
    return row >= 0 && lower.isDirectory(row) ? row : -1;
  }
  const row = resolveRedirect(lower, redirect, parentRow);
  if (row < 0) return -1;
  // A name beside what is merged says nothing any more once the directory has been moved again.
  if (redirect.own === undefined) {
    check(claimTree(upper, lower.tree.treeRoot), "mark of the image");
    check(writeRedirect(upper, lower, child, row), "redirect mark");
  }
  check(recordMoved(upper, row), "record of a moved directory");
  return row;
}

/** Puts our own form in the place of `.wh.` files. True when the directory is opaque by one. Throws FsError. */
function convert(survey: Survey, fd: number, row: number, names: readonly Buffer[]): boolean {
  const found = names.filter(
    (name) => name.subarray(0, PREFIX.length).equals(PREFIX) && isEmptyFile(fd, name),
  );
  if (found.length === 0) return false;
  const before = emptyStat();
  check(statFd(fd, before), "stat");
  const opaque = found.some((name) => name.equals(OPAQUE));
  if (opaque && row === ROOT) hideAll(survey, fd);
  else if (opaque) check(markOpaque(survey.upper, fd), "opaque mark");
  for (const name of found) {
    if (!name.subarray(0, OWN_PREFIX.length).equals(OWN_PREFIX)) {
      hide(survey, fd, opaque ? -1 : row, name.subarray(PREFIX.length));
    }
    check(fault("setup.convert") || unlinkAt(fd, name), "unlink of a whiteout file");
    survey.converted++;
  }
  check(utimesFd(fd, 0, UTIME_OMIT, before.mtimeSec, before.mtimeNsec), "times of a directory");
  return opaque;
}

function isEmptyFile(fd: number, name: Buffer): boolean {
  const stat = emptyStat();
  return statAt(fd, name, stat) === 0 && (stat.mode & S_IFMT) === S_IFREG && stat.size === 0;
}

/** Hides all that the image has at its root. Throws FsError. */
function hideAll(survey: Survey, fd: number): void {
  const { tree } = survey.lower;
  const entry: LowerEntry = { row: 0, type: 0, bytes: new Uint8Array(0), start: 0, end: 0 };
  for (let i = 0; i < tree.entryCount(ROOT); i++) {
    tree.entry(ROOT, i, entry);
    hide(survey, fd, ROOT, Buffer.from(entry.bytes.subarray(entry.start, entry.end)));
  }
}

/** Hides what the image has of a name. What the upper has beside the whiteout stays, as in a layer. Throws FsError. */
function hide({ upper, lower }: Survey, fd: number, row: number, name: Buffer): void {
  if (name.length === 0 || row < 0 || !lower.covers(row, name)) return;
  const stat = emptyStat();
  const there = statAt(fd, name, stat);
  if (there === -Errno.ENOENT) {
    check(makeWhiteout(upper, fd, name), "whiteout");
  } else if (check(there, "stat") === 0 && (stat.mode & S_IFMT) === S_IFDIR) {
    const directory = check(openAt(fd, name, O_RDONLY | O_DIRECTORY | O_NOFOLLOW), "open");
    const marked = markOpaque(upper, directory);
    closeFd(directory);
    check(marked, "opaque mark");
  }
}
