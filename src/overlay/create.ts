// New objects: create, mknod, mkdir, symlink. What puts them on disk is in make-object.ts.
import { Errno, FsError } from "../base/errno.js";
import { FOPEN_KEEP_CACHE } from "../fuse/abi.js";
import {
  type Entry,
  type NameView,
  type Open,
  type Request,
  type Status,
  SUSPENDED,
} from "../fuse/operations.js";
import { mkdirAt, mknodAt, O_CREAT, O_EXCL, O_NOFOLLOW, O_RDWR, openAt, symlinkAt } from "../sys/files.js";
import { check } from "../sys/libc.js";
import { S_IFBLK, S_IFCHR, S_IFDIR, S_IFLNK, S_IFMT, S_IFREG } from "../sys/stat.js";
import { fillFromStat } from "./attributes.js";
import { copyUp } from "./copy-up.js";
import { fault } from "./fault.js";
import { open } from "./file-io.js";
import type { DirectoryPart, Node } from "./inode-table.js";
import { fillHead, replyEntry } from "./lookup.js";
import { type Made, makeObject, makeStandIn, type Wanted } from "./make-object.js";
import { chargeNew, creditNew } from "./quota/charge-objects.js";
import { find, NAME_MAX } from "./resolve.js";
import { type OverlayState, recordOf, type WritableState, writable } from "./state.js";
import { markImpure } from "./whiteout.js";

const O_EXCLUSIVE = O_CREAT | O_EXCL | O_NOFOLLOW;

/** The directory a name is to be made in, which exists in the upper directory, or a status to answer with. */
export function directoryFor(m: WritableState, q: Request, id: number, name: NameView): Node | Status {
  if (name.end - name.start > NAME_MAX) return -Errno.ENAMETOOLONG;
  if (m.inodes.get(id)?.removed === true) return -Errno.ENOENT;
  const copied = copyUp(m, q, id);
  if (copied < 0) return copied;
  const directory = recordOf(m, id);
  return directory.directory === undefined ? -Errno.ENOTDIR : directory;
}

/** A copy of a name's bytes. */
export function copyName(name: NameView): Buffer {
  return Buffer.from(name.bytes.subarray(name.start, name.end));
}

/** Fills the reply for an object just made or linked, and counts it as looked up. */
export function answer(m: OverlayState, { node, stat }: Pick<Made, "node" | "stat">, out: Entry): Status {
  fillHead(m, node.id, out);
  fillFromStat(m, node, stat, out.attr);
  m.inodes.remember(node.id);
  return 0;
}

/** Makes an object and answers with its entry. */
function makeEntry(m: OverlayState, q: Request, name: NameView, wanted: Wanted, out: Entry): Status {
  const state = writable(m);
  const directory = directoryFor(state, q, q.nodeid, name);
  if (typeof directory === "number") return directory;
  const bytes = copyName(name);
  const made = makeCharged(state, q, bytes, wanted.type, () =>
    makeObject(state, q, directory, bytes, wanted),
  );
  return typeof made === "number" ? made : answer(m, made, out);
}

/** Charges an object of a type, and has it made under `name`. What was made, or a status to answer with. */
function makeCharged(
  m: WritableState,
  q: Request,
  name: Buffer,
  type: number,
  make: () => Made,
): Made | Status {
  const charged = chargeNew(m, q, type);
  if (charged < 0) {
    // That a name is taken comes first.
    const taken = charged !== SUSPENDED && find(m, q.nodeid, name, 0, name.length) > 0;
    return taken ? -Errno.EEXIST : charged;
  }
  try {
    return make();
  } catch (cause) {
    creditNew(m, type);
    throw cause;
  }
}

/** FUSE CREATE. */
export function create(
  m: OverlayState,
  q: Request,
  name: NameView,
  flags: number,
  mode: number,
  umask: number,
  entry: Entry,
  out: Open,
): Status {
  const state = writable(m);
  const directory = directoryFor(state, q, q.nodeid, name);
  if (typeof directory === "number") return directory;
  const bytes = copyName(name);
  const wanted: Wanted = {
    type: S_IFREG,
    mode: mode & 0o7777,
    umask,
    make: (fd, at, bits) => openAt(fd, at, O_EXCLUSIVE | O_RDWR, bits),
  };
  let made: Made | Status;
  try {
    made = makeCharged(state, q, bytes, S_IFREG, () => makeObject(state, q, directory, bytes, wanted));
  } catch (cause) {
    if (!(cause instanceof FsError) || cause.errno !== Errno.EEXIST) throw cause;
    made = -Errno.EEXIST;
  }
  if (typeof made === "number") {
    const opens = made === -Errno.EEXIST && (flags & O_EXCL) === 0;
    return opens ? openExisting(m, q, name, flags, entry, out) : made;
  }
  const { node, result } = made;
  m.fds.hold(node, result);
  node.opens++;
  out.fh = 1;
  out.openFlags = FOPEN_KEEP_CACHE;
  return answer(m, made, entry);
}

/** CREATE without O_EXCL of a name that exists, which the kernel did not know. */
function openExisting(
  m: OverlayState,
  q: Request,
  name: NameView,
  flags: number,
  entry: Entry,
  out: Open,
): Status {
  const id = find(m, q.nodeid, name.bytes, name.start, name.end);
  if (id <= 0) return id === 0 ? -Errno.ENOENT : id;
  const opened = open(m, { ...q, nodeid: id }, flags & ~(O_CREAT | O_EXCL), false, out);
  return opened < 0 ? opened : replyEntry(m, id, entry);
}

/** FUSE MKNOD. */
export function mknod(
  m: OverlayState,
  q: Request,
  name: NameView,
  mode: number,
  rdev: number,
  umask: number,
  out: Entry,
): Status {
  const state = writable(m);
  const type = mode & S_IFMT;
  const make: Wanted["make"] = (fd, at, bits) => mknodAt(fd, at, type | bits, rdev);
  const wanted = { type, mode: mode & 0o7777, umask, make };
  const isDevice = type === S_IFCHR || type === S_IFBLK;
  if (!isDevice) return makeEntry(m, q, name, wanted, out);
  const directory = directoryFor(state, q, q.nodeid, name);
  if (typeof directory === "number") return directory;
  const bytes = copyName(name);
  const made = makeCharged(state, q, bytes, type, () => {
    // As device 0:0 it would be a whiteout of ours.
    if (type === S_IFCHR && rdev === 0) return makeStandIn(state, q, directory, bytes, wanted, rdev);
    try {
      return makeObject(state, q, directory, bytes, wanted);
    } catch (cause) {
      // The kernel has found that the caller may: it is this process that may not.
      if (!(cause instanceof FsError) || cause.errno !== Errno.EPERM) throw cause;
      return makeStandIn(state, q, directory, bytes, wanted, rdev);
    }
  });
  return typeof made === "number" ? made : answer(m, made, out);
}

/** FUSE MKDIR. */
export function mkdir(
  m: OverlayState,
  q: Request,
  name: NameView,
  mode: number,
  umask: number,
  out: Entry,
): Status {
  return makeEntry(m, q, name, { type: S_IFDIR, mode: mode & 0o7777, umask, make: mkdirAt }, out);
}

/** FUSE SYMLINK. */
export function symlink(m: OverlayState, q: Request, name: NameView, target: NameView, out: Entry): Status {
  const text = copyName(target);
  const make: Wanted["make"] = (fd, at) => symlinkAt(text, fd, at);
  return makeEntry(m, q, name, { type: S_IFLNK, mode: 0o777, umask: 0, make }, out);
}

/** Notes on disk, before it is true, that a directory has an object with an origin under a name of its own. */
export function markImpureDirectory(m: WritableState, directory: Node): void {
  const part = directory.directory as DirectoryPart;
  if (part.impure) return;
  check(fault("mark.impure") || markImpure(m.fds.of(directory)), "mark of a directory");
  part.impure = true;
}
