// A rename that replaces an object and leaves a whiteout, where the filesystem cannot do both at once (no
// RENAME_WHITEOUT): the two objects are exchanged, then a whiteout takes the place of the one that was replaced. What
// only the image has is covered by a whiteout first, which the exchange brings to the old name.
//   WORK/rename   a symlink whose text says what to finish when a crash comes between; made before, removed after
// It names directories by inode number, which never leads to another one as long as only this upper's mounts write there.
// Invariant: the next mount finishes what was exchanged, and takes back what was not, so the rename happened entirely or
// not at all.
import { FsError } from "../base/errno.js";
import {
  closeFd,
  O_DIRECTORY,
  O_NOFOLLOW,
  O_RDONLY,
  openAt,
  RENAME_EXCHANGE,
  readDirectory,
  readlinkAt,
  renameAt,
  reopenDirectory,
  symlinkAt,
  UTIME_OMIT,
  unlinkAt,
  utimesFd,
} from "../sys/files.js";
import { check } from "../sys/libc.js";
import { allocatePages } from "../sys/memory.js";
import { emptyStat, S_IFDIR, S_IFMT, statAt, statFd } from "../sys/stat.js";
import { fault } from "./fault.js";
import { DT_DIR, DT_UNKNOWN } from "./listing.js";
import { removeTemporary, type Upper } from "./upper.js";
import { isWhiteout, makeWhiteout, markXattrWhiteouts, replaceByWhiteout } from "./whiteout.js";

/** A name in a directory of the upper. */
interface Place {
  readonly fd: number;
  readonly name: Buffer;
}

export const renameNote: Buffer = Buffer.from("rename");
export const renameForm: RegExp = /^(\d+) (\d+) (\d+)\/([^/]+)\/([^/]+)$/s;

/** Moves what is at `from` over what is at `to`, and leaves a whiteout. 0 or a negative errno, with nothing changed. */
export function swapAway(upper: Upper, from: Place, to: Place, isDirectory: boolean): number {
  const noted = note(upper, from, to);
  if (noted < 0) return noted;
  let status = fault("rename.swap") || renameAt(from.fd, from.name, to.fd, to.name, RENAME_EXCHANGE);
  if (status === 0) {
    status = leaveWhiteout(upper, from, isDirectory);
    // Undone by another exchange; where that fails the note stays, and the next mount goes on with it.
    if (status < 0 && renameAt(from.fd, from.name, to.fd, to.name, RENAME_EXCHANGE) < 0) return status;
  }
  if (fault("rename.unnote") === 0) unlinkAt(upper.workFd, renameNote);
  return status;
}

/** The same over what only the image has. */
export function swapOverImage(upper: Upper, from: Place, to: Place): number {
  const noted = note(upper, from, to);
  if (noted < 0) return noted;
  let status = quietly(to.fd, () => makeWhiteout(upper, to.fd, to.name));
  if (status === 0) {
    const marked = upper.deviceWhiteouts ? 0 : markXattrWhiteouts(from.fd);
    status = marked || fault("rename.swap") || renameAt(from.fd, from.name, to.fd, to.name, RENAME_EXCHANGE);
    if (status < 0) quietly(to.fd, () => unlinkAt(to.fd, to.name));
  }
  if (fault("rename.unnote") === 0) unlinkAt(upper.workFd, renameNote);
  return status;
}

/** A change of a directory that does not show, and so leaves it its times. 0 or a negative errno of the change. */
function quietly(fd: number, change: () => number): number {
  const before = emptyStat();
  const looked = statFd(fd, before);
  if (looked < 0) return looked;
  const status = change();
  if (fault("copy-up.parent-times") === 0) {
    utimesFd(fd, 0, UTIME_OMIT, before.mtimeSec, before.mtimeNsec);
  }
  return status;
}

function note(upper: Upper, from: Place, to: Place): number {
  const numbers = [from.fd, to.fd].map((fd) => {
    const stat = emptyStat();
    const result = statFd(fd, stat);
    return result < 0 ? result : stat.ino;
  });
  const stat = emptyStat();
  const looked = statAt(from.fd, from.name, stat);
  const failed = [...numbers, looked].find((result) => result < 0);
  if (failed !== undefined) return failed;
  const text = Buffer.concat([
    Buffer.from(`${numbers[0]} ${numbers[1]} ${stat.ino}/`),
    from.name,
    Buffer.from("/"),
    to.name,
  ]);
  // One that could not be removed: its rename is over, or the mount would have finished it.
  unlinkAt(upper.workFd, renameNote);
  return fault("rename.note") || symlinkAt(text, upper.workFd, renameNote);
}

function leaveWhiteout(upper: Upper, { fd, name }: Place, isDirectory: boolean): number {
  const { status, temporary } = replaceByWhiteout(upper, fd, name, isDirectory);
  if (temporary !== undefined) removeTemporary(upper, temporary);
  return status;
}

/** At mount: finishes a rename that was cut short; whether there was one. Throws FsError; then the next mount tries again. */
export function finishRename(upper: Upper): boolean {
  const memory = allocatePages(4096);
  const length = readlinkAt(upper.workFd, renameNote, memory.address, memory.length);
  if (length < 0) return false;
  check(fault("setup.finish-rename"), "rename to be finished");
  const text = Buffer.from(memory.bytes.subarray(0, length)).toString("latin1");
  const [, fromIno, toIno, movedIno, fromName, toName] = renameForm.exec(text) ?? [];
  const found = new Map<number, number>();
  try {
    if (fromName !== undefined && toName !== undefined) {
      findDirectories(upper.rootFd, new Set([Number(fromIno), Number(toIno)]), found);
      const from = found.get(Number(fromIno));
      const to = found.get(Number(toIno));
      if (from !== undefined && to !== undefined) {
        const place = (fd: number, name: string): Place => ({ fd, name: Buffer.from(name, "latin1") });
        finish(upper, place(from, fromName), place(to, toName), Number(movedIno));
      }
    }
  } finally {
    for (const fd of found.values()) closeFd(fd);
  }
  unlinkAt(upper.workFd, renameNote);
  return true;
}

/** Where the exchange was made, what it left at the old name becomes a whiteout; else a whiteout made for it goes. */
function finish(upper: Upper, from: Place, to: Place, moved: number): void {
  const old = emptyStat();
  const target = emptyStat();
  if (statAt(to.fd, to.name, target) < 0 || statAt(from.fd, from.name, old) < 0) return;
  if (old.ino === moved && isWhiteout(to.fd, to.name, target, true)) {
    quietly(to.fd, () => unlinkAt(to.fd, to.name));
  }
  if (target.ino !== moved || old.ino === moved) return;
  if (isWhiteout(from.fd, from.name, old, true)) return;
  const status = leaveWhiteout(upper, from, (old.mode & S_IFMT) === S_IFDIR);
  check(status, "rename to be finished");
}

/** Opens the wanted directories, by inode number, in the tree of the directory open at `fd`. */
function findDirectories(fd: number, wanted: Set<number>, found: Map<number, number>): void {
  const stat = emptyStat();
  if (statFd(fd, stat) < 0) return;
  const again = reopenDirectory(fd);
  if (again < 0) return;
  const names: Buffer[] = [];
  readDirectory(again, (bytes, start, end, type) => {
    if (type === DT_DIR || type === DT_UNKNOWN) names.push(Buffer.from(bytes.subarray(start, end)));
  });
  if (wanted.has(stat.ino)) found.set(stat.ino, again);
  else closeFd(again);
  for (const name of names) {
    if (found.size === wanted.size) return;
    const child = openAt(fd, name, O_RDONLY | O_DIRECTORY | O_NOFOLLOW);
    if (child < 0) throw new FsError(-child, "rename to be finished");
    findDirectories(child, wanted, found);
    closeFd(child);
  }
}
