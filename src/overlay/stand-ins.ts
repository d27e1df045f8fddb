// Regular files that stand for what they are not: symlinks, FIFOs, sockets and devices of an owner or a kind that this
// process may not make. An override (override.ts) says what each is; a symlink's content is its target.
// Invariant: a stand-in is made in WORK/tmp with everything it has, and appears by one rename.
import { Errno } from "../base/errno.js";
import type { Status } from "../fuse/operations.js";
import {
  closeFd,
  fsyncFd,
  linkAt,
  O_CREAT,
  O_EXCL,
  O_NOFOLLOW,
  O_RDWR,
  openAt,
  pread,
  readlinkAt,
  renameAt,
  utimesFd,
} from "../sys/files.js";
import { emptyStat, S_IFLNK, S_IFMT, type Stat, statAt, statFd } from "../sys/stat.js";
import { writeAll } from "./copy-data.js";
import { noteName } from "./directory-names.js";
import { fault } from "./fault.js";
import type { Node } from "./inode-table.js";
import { dropFromIndex, indexName, noteIndexed } from "./origin.js";
import { type Override, writeOverride } from "./override.js";
import type { WritableState } from "./state.js";
import { removeTemporary, temporaryName } from "./upper.js";

const noTarget = Buffer.alloc(0);

/** A stand-in in WORK/tmp, open for reading and writing. */
export interface StagedStandIn {
  readonly name: Buffer;
  readonly fd: number;
}

/** Makes a stand-in; `target` is a symlink's. Or a negative errno, and then there is none. */
export function stageStandIn(
  m: WritableState,
  override: Override,
  target: Uint8Array = noTarget,
): StagedStandIn | number {
  const { upper, buffer } = m;
  const name = temporaryName(upper);
  const fd =
    fault("stand-in.stage") || openAt(upper.temporaryFd, name, O_CREAT | O_EXCL | O_RDWR | O_NOFOLLOW, 0o600);
  if (fd < 0) return fd;
  buffer.bytes.set(target);
  let result =
    target.length === 0 ? 0 : fault("stand-in.target") || writeAll(fd, buffer.address, target.length, 0);
  if (result >= 0) result = writeOverride(upper.overrides, fd, override);
  // As with any copy: bytes are on disk before a name leads to them.
  if (result >= 0 && target.length > 0 && !upper.volatile) result = fault("stand-in.sync") || fsyncFd(fd);
  if (result >= 0) return { name, fd };
  closeFd(fd);
  removeTemporary(upper, name);
  return result;
}

/** Reads the target that a stand-in holds: its length, or a negative errno. */
export function readTarget(
  fd: number,
  bytes: Uint8Array,
  start: number,
  address: number,
  length: number,
): number {
  const got = pread(fd, address, length, 0);
  if (got < 0) return got;
  const end = bytes.subarray(start, start + got).indexOf(0);
  return end < 0 ? got : end;
}

/**
 * Puts a stand-in in the place of `name`, an object of that kind with one name, by one rename: times and target stay. A
 * descriptor of it, or a negative errno. `stat` is what it replaces, and then what it is.
 */
export function replaceByStandIn(
  m: WritableState,
  directoryFd: number,
  name: Uint8Array,
  override: Override,
  stat: Stat,
): number {
  let target = noTarget;
  if ((override.mode & S_IFMT) === S_IFLNK) {
    const length = readlinkAt(directoryFd, name, m.buffer.address, m.buffer.length);
    if (length < 0) return length;
    target = Buffer.from(m.buffer.bytes.subarray(0, length));
  }
  const staged = stageStandIn(m, override, target);
  if (typeof staged === "number") return staged;
  let result = utimesFd(staged.fd, stat.atimeSec, stat.atimeNsec, stat.mtimeSec, stat.mtimeNsec);
  if (result >= 0) {
    result = fault("stand-in.replace") || renameAt(m.upper.temporaryFd, staged.name, directoryFd, name);
  }
  if (result >= 0) result = statFd(staged.fd, stat);
  if (result >= 0) return staged.fd;
  closeFd(staged.fd);
  removeTemporary(m.upper, staged.name);
  return result;
}

/**
 * The same for an object with a record, and for its link in the index. EPERM for one with several names, which one rename
 * does not reach.
 */
export function convertToStandIn(m: WritableState, node: Node, override: Override): Status {
  const stat = emptyStat();
  if (node.parent === undefined) return -Errno.EPERM;
  const directoryFd = m.fds.of(node.parent);
  const looked = statAt(directoryFd, node.name, stat);
  if (looked < 0) return looked;
  const linked = node.indexed && node.parent !== m.indexPlace;
  if (stat.nlink > (linked ? 2 : 1)) {
    m.log.warn("the owner of a symlink or special file with several names cannot be kept here");
    return -Errno.EPERM;
  }
  const fd = replaceByStandIn(m, directoryFd, node.name, override, stat);
  if (fd < 0) return fd;
  const { indexed } = node;
  m.fds.close(node);
  m.upper.indexRows.delete(node.backing);
  m.inodes.forgetBacking(node);
  m.inodes.setBacking(node, stat.ino);
  node.override = override;
  m.fds.hold(node, fd);
  noteName(node.parent, node.name, node.type, stat.ino);
  if (indexed) relink(m, node, linked ? directoryFd : undefined);
  return 0;
}

/** Has the index hold what now is the object. A crash before that leaves the object a number of its own. */
function relink(m: WritableState, node: Node, directoryFd: number | undefined): void {
  const { upper } = m;
  if (directoryFd !== undefined) {
    const temporary = temporaryName(upper);
    let result = fault("stand-in.link") || linkAt(directoryFd, node.name, upper.temporaryFd, temporary);
    if (result >= 0) result = renameAt(upper.temporaryFd, temporary, upper.indexFd, indexName(node.row));
    if (result < 0) {
      m.log.warn("an object changed its owner and lost its place in the index", { row: node.row });
      dropFromIndex(upper, node);
      return;
    }
  }
  noteIndexed(upper, node, node.row);
}
