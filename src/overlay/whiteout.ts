// Whiteouts and opaque marks in overlayfs's convention (Documentation/filesystems/overlayfs.rst, "whiteouts and
// opaque directories"). Both dialects of each are read; one is written.
//   whiteout: character device 0:0, or a file of size zero with the xattr overlay.whiteout in a directory whose
//             overlay.opaque is "x"
//   opaque:   overlay.opaque = "y", as trusted. or user.; fuse-overlayfs may have it as user.fuseoverlayfs.opaque
// Names that begin with `.wh.` mean nothing here (survey.ts).
import { Errno } from "../base/errno.js";
import {
  closeFd,
  mknodAt,
  O_CREAT,
  O_EXCL,
  O_WRONLY,
  openAt,
  RENAME_EXCHANGE,
  renameAt,
} from "../sys/files.js";
import { S_IFCHR, S_IFMT, S_IFREG, type Stat } from "../sys/stat.js";
import { getXattrAt, readXattrFd, readXattrNamesFd, writeXattrAt, writeXattrFd } from "../sys/xattr.js";
import { fault } from "./fault.js";
import { type Redirect, readRedirect } from "./redirect.js";
import { removeTemporary, temporaryName, type Upper } from "./upper.js";

const userOpaque = Buffer.from("user.overlay.opaque");
const trustedOpaque = Buffer.from("trusted.overlay.opaque");
const opaqueMarks = new Map(
  [userOpaque, trustedOpaque, Buffer.from("user.fuseoverlayfs.opaque")].map((mark) => [
    mark.toString(),
    mark,
  ]),
);
const userWhiteout = Buffer.from("user.overlay.whiteout");
const trustedWhiteout = Buffer.from("trusted.overlay.whiteout");
/** Marks of files that stand for the absence of their names. */
export const whiteoutMarks: readonly string[] = [userWhiteout, trustedWhiteout].map(String);
/** In an opaque directory, whose mark has no room for it: it may hold whiteouts in xattr form all the same. */
const whiteoutsMark = Buffer.from("user.imgfs.whiteouts");
const impureMark = Buffer.from("user.imgfs.impure");
const impureMarks = ["user.imgfs.impure", "trusted.overlay.impure", "user.overlay.impure"];
/** A directory of the image's has it from the step on that copies it up. */
export const copiedMark: Buffer = Buffer.from("user.imgfs.copied");
/** By these a directory is known to be a copy that another overlay, or a move, has made. */
export const copiedMarks: readonly string[] = [
  "user.imgfs.copied",
  "user.imgfs.redirect",
  "trusted.overlay.redirect",
  "user.overlay.redirect",
  "trusted.overlay.origin",
  "user.overlay.origin",
];
/** The directory mark of leave-whiteout.ts. */
export const leavesMark = "user.imgfs.leaves";
const defaultAcl = "system.posix_acl_default";
const yes = Buffer.from("y");
const hasXattrWhiteouts = Buffer.from("x");

/** True for an object that stands for the absence of its name. */
export function isWhiteout(directoryFd: number, name: Uint8Array, stat: Stat, xattrForm: boolean): boolean {
  const type = stat.mode & S_IFMT;
  if (type === S_IFCHR) return stat.rdev === 0;
  if (!xattrForm || type !== S_IFREG || stat.size !== 0) return false;
  return (
    getXattrAt(directoryFd, name, userWhiteout, 0, 0) >= 0 ||
    getXattrAt(directoryFd, name, trustedWhiteout, 0, 0) >= 0
  );
}

/**
 * True when files in an upper directory may be whiteouts: it says so, or it is where this mount makes them in that form,
 * perhaps since its marks were read.
 */
export function mayHoldXattrWhiteouts(upper: Upper | undefined, marked: boolean): boolean {
  return marked || upper?.deviceWhiteouts === false;
}

/** What the xattrs of an upper directory say of it. */
export interface DirectoryMarks {
  opaque: boolean;
  xattrWhiteouts: boolean;
  /** A whiteout in it is to become a device (leave-whiteout.ts). */
  leaves: boolean;
  impure: boolean;
  /** It is a copy of one of the image. */
  copied: boolean;
  defaultAcl: boolean;
  /** Where in the image what is merged below lies, when not at the directory's own place. */
  redirect: Redirect | undefined;
}

/** Those of a directory without xattrs. */
export const plainMarks: Readonly<DirectoryMarks> = {
  opaque: false,
  xattrWhiteouts: false,
  leaves: false,
  impure: false,
  copied: false,
  defaultAcl: false,
  redirect: undefined,
};

/** Reads the marks of the directory open at `fd`. */
export function readMarks(fd: number): DirectoryMarks {
  const marks: DirectoryMarks = { ...plainMarks };
  const list = readXattrNamesFd(fd);
  if (typeof list === "number" || list.length === 0) return marks;
  const names = list.toString("latin1").split("\0");
  marks.redirect = readRedirect(fd, names);
  for (const name of names) {
    if (name === leavesMark) marks.leaves = true;
    if (name === defaultAcl) marks.defaultAcl = true;
    if (impureMarks.includes(name)) marks.impure = true;
    if (copiedMarks.includes(name)) marks.copied = true;
    if (name === "user.imgfs.whiteouts") marks.xattrWhiteouts = true;
    const opaqueMark = opaqueMarks.get(name);
    if (opaqueMark === undefined) continue;
    const value = readXattrFd(fd, opaqueMark);
    if (typeof value === "number") continue;
    if (value.toString() === "y") marks.opaque = true;
    if (value.toString() === "x") marks.xattrWhiteouts = true;
  }
  return marks;
}

/** Marks a directory so that nothing below it shows. 0 or a negative errno. */
export function markOpaque(upper: Upper, fd: number): number {
  const before = readXattrFd(fd, userOpaque);
  if (typeof before !== "number" && before.equals(hasXattrWhiteouts)) {
    const kept = fault("mark.whiteouts") || writeXattrFd(fd, whiteoutsMark, yes);
    if (kept < 0) return kept;
  }
  // The kernel reads trusted. by default and user. only under -o userxattr: where both can be set, both are.
  if (upper.trustedXattrs) {
    const result = fault("mark.opaque") || writeXattrFd(fd, trustedOpaque, yes);
    if (result < 0) return result;
  }
  return fault("mark.opaque") || writeXattrFd(fd, userOpaque, yes);
}

/** Marks a directory that may hold objects with an origin under names of their own. 0 or a negative errno. */
export function markImpure(fd: number): number {
  return writeXattrFd(fd, impureMark, yes);
}

/** Makes a whiteout under a free name. 0 or a negative errno. */
export function makeWhiteout(upper: Upper, directoryFd: number, name: Uint8Array): number {
  if (upper.deviceWhiteouts) return fault("whiteout.make") || mknodAt(directoryFd, name, S_IFCHR, 0);
  // The directory's mark comes first: without it the file would show as one.
  const marked = markXattrWhiteouts(directoryFd);
  if (marked < 0) return marked;
  const staged = stageXattrWhiteout(upper);
  if (typeof staged === "number") return staged;
  const moved = fault("whiteout.commit") || renameAt(upper.temporaryFd, staged, directoryFd, name);
  if (moved < 0) removeTemporary(upper, staged);
  return moved;
}

/** Puts a whiteout in the place of an object, in one step. What it replaces is left in `temporary`, if anything. */
export function replaceByWhiteout(
  upper: Upper,
  directoryFd: number,
  name: Uint8Array,
  directory: boolean,
): { status: number; temporary?: Buffer } {
  let staged: Buffer | number;
  if (upper.deviceWhiteouts) {
    staged = temporaryName(upper);
    const made = fault("whiteout.stage") || mknodAt(upper.temporaryFd, staged, S_IFCHR, 0);
    if (made < 0) return { status: made };
  } else {
    const marked = markXattrWhiteouts(directoryFd);
    if (marked < 0) return { status: marked };
    staged = stageXattrWhiteout(upper);
    if (typeof staged === "number") return { status: staged };
  }
  const flags = directory ? RENAME_EXCHANGE : 0;
  const status = fault("whiteout.replace") || renameAt(upper.temporaryFd, staged, directoryFd, name, flags);
  if (status < 0) removeTemporary(upper, staged);
  return directory && status === 0 ? { status, temporary: staged } : { status };
}

/** Marks a directory that is to hold whiteouts in xattr form, before it does. 0 or a negative errno. */
export function markXattrWhiteouts(directoryFd: number): number {
  const value = readXattrFd(directoryFd, userOpaque);
  if (typeof value === "number" && value !== -Errno.ENODATA) return value;
  if (typeof value !== "number" && value.equals(hasXattrWhiteouts)) return 0;
  return (
    fault("mark.whiteouts") ||
    (typeof value === "number"
      ? writeXattrFd(directoryFd, userOpaque, hasXattrWhiteouts)
      : writeXattrFd(directoryFd, whiteoutsMark, yes))
  );
}

function stageXattrWhiteout(upper: Upper): Buffer | number {
  const name = temporaryName(upper);
  const fd = fault("whiteout.stage") || openAt(upper.temporaryFd, name, O_CREAT | O_EXCL | O_WRONLY, 0o600);
  if (fd < 0) return fd;
  closeFd(fd);
  const marked = fault("whiteout.stage-mark") || writeXattrAt(upper.temporaryFd, name, userWhiteout, yes);
  if (marked < 0) removeTemporary(upper, name);
  return marked < 0 ? marked : name;
}
