// Making an object: in its place where nothing is in the way; over a whiteout in WORK/tmp, finished there, and put in the
// whiteout's place by one rename, so that the lower name never shows between. A directory over a whiteout is opaque
// before it appears.
import { Errno, FsError } from "../base/errno.js";
import type { Request, Status } from "../fuse/operations.js";
import {
  AT_REMOVEDIR,
  closeFd,
  mkdirAt,
  O_DIRECTORY,
  O_RDONLY,
  openAt,
  RENAME_EXCHANGE,
  RENAME_NOREPLACE,
  renameAt,
  unlinkAt,
} from "../sys/files.js";
import { check } from "../sys/libc.js";
import { asOwner, makesFor } from "../sys/process.js";
import { emptyStat, S_IFDIR, S_IFMT, type Stat, statAt, statFd } from "../sys/stat.js";
import { readXattrFd, writeXattrFd } from "../sys/xattr.js";
import { addSubdirectories, keepListing, noteName } from "./directory-names.js";
import { fault } from "./fault.js";
import { coverName } from "./hard-links.js";
import { createDirectoryPart, createNode, type DirectoryPart, type Node, upperIno } from "./inode-table.js";
import { emptyListing } from "./listing.js";
import { groupFor, inheritedAcl, keepAcl, settleNew, usableMode } from "./new-owner.js";
import type { Override } from "./override.js";
import { ownNew } from "./quota/charge-objects.js";
import { stageStandIn } from "./stand-ins.js";
import type { WritableState } from "./state.js";
import { removeTemporary, temporaryName } from "./upper.js";
import { isWhiteout, markOpaque, mayHoldXattrWhiteouts } from "./whiteout.js";

const defaultAcl = Buffer.from("system.posix_acl_default");

/** What is at a name where something is to be made: a whiteout, nothing that shows, or something (EEXIST). */
export function freeName(m: WritableState, directory: Node, name: Buffer): "free" | "whiteout" | Status {
  const part = directory.directory as DirectoryPart;
  const fd = m.fds.of(directory);
  const result = statAt(fd, name, m.stat);
  if (result === 0) {
    const xattrForm = mayHoldXattrWhiteouts(m.upper, part.xattrWhiteouts);
    return isWhiteout(fd, name, m.stat, xattrForm) ? "whiteout" : -Errno.EEXIST;
  }
  if (result !== -Errno.ENOENT) return result;
  const shows = part.lowerRow >= 0 && m.lower.find(part.lowerRow, name, 0, name.length) >= 0;
  return shows ? -Errno.EEXIST : "free";
}

export interface Wanted {
  readonly type: number;
  /** Permission bits before the umask. */
  readonly mode: number;
  readonly umask: number;
  /** Makes the object, with `mode`, exclusively: 0 or a descriptor, or a negative errno. */
  make(directoryFd: number, name: Buffer, mode: number): number;
}

export interface Made {
  readonly node: Node;
  /** What `make` returned. */
  readonly result: number;
  readonly stat: Stat;
}

/** Makes an object under a free name and gives it a record. Throws FsError, and then nothing has been made. */
export function makeObject(
  m: WritableState,
  q: Request,
  directory: Node,
  name: Buffer,
  wanted: Wanted,
): Made {
  const part = directory.directory as DirectoryPart;
  const directoryFd = m.fds.of(directory);
  const stat = emptyStat();
  const exact = part.defaultAcl ? wanted.mode : wanted.mode & ~wanted.umask;
  const mode = usableMode(wanted.type, exact);
  // What appears must be whole: with its owner and mode from the start, or else finished before it is seen.
  const inPlace = mode === exact && makesFor(q.uid, q.gid);
  let result = -Errno.EEXIST;
  if (inPlace && (part.lowerRow < 0 || !m.lower.covers(part.lowerRow, name)))
    result = fault("create.make") || asOwner(q.uid, q.gid, () => wanted.make(directoryFd, name, mode));
  if (result === -Errno.EEXIST) {
    const free = freeName(m, directory, name);
    if (typeof free === "number") throw new FsError(-free);
    if (free === "whiteout") {
      const { result: made, override } = makeInWork(m, q, directory, name, wanted, exact, stat, true);
      return { node: addRecord(m, directory, name, stat, override), result: made, stat };
    }
    if (inPlace) {
      result = fault("create.make") || asOwner(q.uid, q.gid, () => wanted.make(directoryFd, name, mode));
    }
  }
  // The owner may have no right to it here by itself, but by another of its groups or a capability.
  if (!inPlace || isRefused(result)) {
    const { result: made, override } = makeInWork(m, q, directory, name, wanted, exact, stat, false);
    coverName(m, directory, name);
    return { node: addRecord(m, directory, name, stat, override), result: made, stat };
  }
  check(result, "creation in the upper directory");
  const override = finishInPlace(m, q, directory, name, wanted, exact, result, stat);
  // Also where the name was free the image may have it: a device that is not shown.
  coverName(m, directory, name);
  return { node: addRecord(m, directory, name, stat, override), result, stat };
}

function isRefused(result: number): boolean {
  return result === -Errno.EACCES || result === -Errno.EPERM;
}

/** Makes an object as its owner, or, where the owner may not, as the daemon's. */
export function makeAs(q: Request, make: () => number): number {
  const result = asOwner(q.uid, q.gid, make);
  return isRefused(result) ? make() : result;
}

function finishInPlace(
  m: WritableState,
  q: Request,
  directory: Node,
  name: Buffer,
  wanted: Wanted,
  mode: number,
  fd: number,
  stat: Stat,
): Override | undefined {
  try {
    return settleNew(m, q, directory, { atFd: m.fds.of(directory), name, fd }, mode, stat);
  } catch (cause) {
    if (fd > 0) closeFd(fd);
    unlinkAt(m.fds.of(directory), name, wanted.type === S_IFDIR ? AT_REMOVEDIR : 0);
    throw cause;
  }
}

/** Makes an object in WORK/tmp and then in its place, where a whiteout is or nothing. */
function makeInWork(
  m: WritableState,
  q: Request,
  directory: Node,
  name: Buffer,
  wanted: Wanted,
  mode: number,
  stat: Stat,
  overWhiteout: boolean,
): { result: number; override: Override | undefined } {
  const { upper } = m;
  const temporary = temporaryName(upper);
  let result = -1;
  let override: Override | undefined;
  try {
    const usable = usableMode(wanted.type, mode);
    result = makeStaged(m, directory, temporary, (fd, at) => wanted.make(fd, at, usable));
    const exchanged = overWhiteout && wanted.type === S_IFDIR;
    if (exchanged) {
      const fd = check(
        openAt(upper.temporaryFd, temporary, O_RDONLY | O_DIRECTORY),
        "open of a new directory",
      );
      const marked = markOpaque(upper, fd);
      closeFd(fd);
      check(marked, "opaque mark");
    }
    const fresh = { atFd: upper.temporaryFd, name: temporary, fd: result };
    override = settleNew(m, q, directory, fresh, mode, stat);
    const flags = exchanged ? RENAME_EXCHANGE : overWhiteout ? 0 : RENAME_NOREPLACE;
    const moved =
      fault("create.commit") || renameAt(upper.temporaryFd, temporary, m.fds.of(directory), name, flags);
    check(moved, "rename into the upper directory");
    if (exchanged && fault("create.leftover") === 0) unlinkAt(upper.temporaryFd, temporary);
  } catch (cause) {
    if (result > 0) closeFd(result);
    removeTemporary(upper, temporary);
    throw cause;
  }
  return { result, override };
}

/** Makes an object in WORK/tmp as if in `directory`: with the default ACL it would inherit there. */
function makeStaged(
  m: WritableState,
  directory: Node,
  temporary: Buffer,
  make: (fd: number, name: Buffer) => number,
): number {
  const { upper } = m;
  if ((directory.directory as DirectoryPart).defaultAcl === false) {
    const made = fault("create.stage") || make(upper.temporaryFd, temporary);
    return check(made, "creation in the work directory");
  }
  const acl = readXattrFd(m.fds.of(directory), defaultAcl);
  if (typeof acl === "number") throw new FsError(-acl, "default ACL");
  const nest = temporaryName(upper);
  check(fault("create.nest") || mkdirAt(upper.temporaryFd, nest, 0o700), "mkdir in the work directory");
  const fd = check(openAt(upper.temporaryFd, nest, O_RDONLY | O_DIRECTORY), "open in the work directory");
  try {
    check(fault("create.nest-acl") || writeXattrFd(fd, defaultAcl, acl), "default ACL");
    const result = check(fault("create.stage") || make(fd, temporary), "creation in the work directory");
    const moved = fault("create.nest-move") || renameAt(fd, temporary, upper.temporaryFd, temporary);
    if (moved < 0 && result > 0) closeFd(result);
    check(moved, "rename in the work directory");
    return result;
  } finally {
    closeFd(fd);
    removeTemporary(upper, nest);
  }
}

function addRecord(
  m: WritableState,
  directory: Node,
  name: Buffer,
  stat: Stat,
  override: Override | undefined,
): Node {
  const type = (override ?? stat).mode & S_IFMT;
  const part = type === S_IFDIR ? createDirectoryPart(-1) : undefined;
  if (part !== undefined) part.defaultAcl = (directory.directory as DirectoryPart).defaultAcl;
  const node = createNode(
    {
      id: m.inodes.newId(),
      row: -1,
      type,
      ino: upperIno(stat.ino),
      backing: stat.ino,
      directory: part,
    },
    directory,
    name,
  );
  node.override = override;
  ownNew(m, node);
  m.inodes.add(node);
  // A new directory's names are all known from here on: what is then made in it needs no look at the disk first.
  if (part !== undefined) keepListing(m, node, emptyListing());
  noteName(directory, name, type, stat.ino);
  addSubdirectories(directory, type, 1);
  return node;
}

/** Makes a device that is a file which stands for it. Throws FsError, and then nothing has been made. */
export function makeStandIn(
  m: WritableState,
  q: Request,
  directory: Node,
  name: Buffer,
  { type, mode, umask }: Wanted,
  rdev: number,
): Made {
  const free = freeName(m, directory, name);
  if (typeof free === "number") throw new FsError(-free);
  const fresh = inheritedAcl(m, directory, mode) ?? { mode: mode & ~umask, acl: undefined };
  const override = { uid: q.uid, gid: groupFor(m, q, directory), mode: type | fresh.mode, rdev };
  const staged = stageStandIn(m, override);
  if (typeof staged === "number") throw new FsError(-staged, "creation in the work directory");
  const stat = emptyStat();
  try {
    if (fresh.acl !== undefined) check(keepAcl(m, staged.fd, fresh.acl), "ACL of a new object");
    const flags = free === "whiteout" ? 0 : RENAME_NOREPLACE;
    const renamed =
      fault("create.commit") || renameAt(m.upper.temporaryFd, staged.name, m.fds.of(directory), name, flags);
    check(renamed, "rename in the upper directory");
    check(statFd(staged.fd, stat), "stat of a new object");
  } catch (cause) {
    closeFd(staged.fd);
    removeTemporary(m.upper, staged.name);
    throw cause;
  }
  if (free !== "whiteout") coverName(m, directory, name);
  const node = addRecord(m, directory, name, stat, override);
  m.fds.hold(node, staged.fd);
  return { node, result: 0, stat };
}
