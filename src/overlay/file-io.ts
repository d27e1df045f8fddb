// Open files. I/O goes by inode, never by what was true when the file was opened: a descriptor from before a copy-up
// reads what is written after it. fh says only whether the open is counted on the inode's record,
// and whether its reads leave the atime.
// Invariants: one backing descriptor per inode; an inode with no name left keeps its descriptor until nobody knows it.
import { Errno } from "../base/errno.js";
import { FOPEN_KEEP_CACHE } from "../fuse/abi.js";
import type { DataIn, DataOut, Job, Open, Request, Status } from "../fuse/operations.js";
import {
  copyRange,
  duplicateFd,
  fallocateFd,
  fdatasyncFd,
  fsyncFd,
  O_ACCMODE,
  O_NOATIME,
  O_RDONLY,
  O_TRUNC,
  pread,
  pwrite,
  seekFd,
  syncFs,
  truncateFd,
  withoutAtime,
} from "../sys/files.js";
import { statFd } from "../sys/stat.js";

import { withoutSuidgid } from "./backing-metadata.js";
import { CUT } from "./complete-data.js";
import { writeAll } from "./copy-data.js";
import { copyUp, copyUpData } from "./copy-up.js";
import { fault } from "./fault.js";
import type { Node } from "./inode-table.js";
import { readLower } from "./lower-data.js";
import { dataRow } from "./metacopy.js";
import { changeMode, dropKeptCapabilities, shownMode } from "./owners.js";
import { type OverlayState, recordOf, type WritableState, writable } from "./state.js";

/** Handle of an open that is counted on a record; 0 for one of a file that was in the image only. */
const COUNTED = 1;
/** Added to the handle of an open with O_NOATIME. */
const NO_ATIME = 2;

/** From this many bytes on, allocating them is left to a helper thread. */
const LARGE = 16 << 20;
/** Bytes copied by one request of copy_file_range, as many as take about as long as other requests may wait. */
const COPIED_AT_ONCE = 4 << 20;

/** FUSE OPEN. */
export function open(m: OverlayState, q: Request, flags: number, killSuidgid: boolean, out: Open): Status {
  const writes = (flags & O_ACCMODE) !== O_RDONLY || (flags & O_TRUNC) !== 0;
  out.fh = 0;
  // This mount makes every change, so what the kernel has of a file is always what it holds.
  out.openFlags = FOPEN_KEEP_CACHE;
  if (writes) {
    const truncates = (flags & O_TRUNC) !== 0;
    // The data follow with the first write: touch(1) and many others open for writing and change none.
    const result = truncates ? resize(m, q, q.nodeid, 0, killSuidgid) : copyUp(writable(m), q, q.nodeid);
    if (result < 0) return result;
  }
  const node = m.inodes.get(q.nodeid);
  if (node === undefined || node.backing === 0) return 0;
  m.fds.of(node);
  node.opens++;
  out.fh = (flags & O_NOATIME) === 0 ? COUNTED : COUNTED | NO_ATIME;
  return 0;
}

/** FUSE RELEASE. */
export function release(m: OverlayState, q: Request, fh: number): Status {
  if ((fh & COUNTED) === 0) return 0;
  const node = m.inodes.get(q.nodeid);
  if (node === undefined || node.opens === 0) return 0;
  node.opens--;
  if (node.opens > 0) return 0;
  if (node.parent !== undefined) m.fds.close(node);
  m.inodes.settle(node);
  return 0;
}

/** FUSE READ. */
export function read(m: OverlayState, q: Request, fh: number, offset: number, out: DataOut): Status {
  const node = m.inodes.get(q.nodeid);
  const row = dataRow(node, q.nodeid);
  if (row < 0) m.fds.trim();
  const got =
    row >= 0
      ? readLower(m, q, row, offset, out, out.capacity)
      : readUpper(m.fds.of(node as Node), fh, offset, out);
  if (got < 0) return got;
  out.length = got;
  return 0;
}

function readUpper(fd: number, fh: number, offset: number, out: DataOut): number {
  const { address, capacity } = out;
  if ((fh & NO_ATIME) === 0) return pread(fd, address, capacity, offset);
  return withoutAtime(fd, () => pread(fd, address, capacity, offset));
}

/** FUSE WRITE. */
export function write(
  m: OverlayState,
  q: Request,
  _fh: number,
  offset: number,
  data: DataIn,
  _fromCache: boolean,
  killSuidgid: boolean,
): Status {
  const node = writableNode(m, q);
  if (typeof node === "number") return node;
  const fd = m.fds.of(node);
  const cleared = fault("data.write") || beforeWrite(m as WritableState, node, fd, killSuidgid);
  if (cleared < 0) return cleared;
  let done = 0;
  while (done < data.length) {
    const got = pwrite(fd, data.address + done, data.length - done, offset + done);
    if (got === -Errno.EINTR) continue;
    if (got < 0) return done > 0 ? done : got;
    if (got === 0) break;
    done += got;
  }
  return done;
}

/** The record of a file that is about to change, or a status to answer with. */
function writableNode(m: OverlayState, q: Request): Node | Status {
  const copied = copyUpData(writable(m), q, q.nodeid);
  return copied < 0 ? copied : recordOf(m, q.nodeid);
}

/** Cuts or extends a file, of which no more is copied up than stays. */
export function resize(m: OverlayState, q: Request, id: number, size: number, kill: boolean): Status {
  const state = writable(m);
  const copied = copyUpData(state, q, id, size, kill);
  if (copied !== 0) return copied === CUT ? 0 : copied;
  return truncate(state, recordOf(m, id), size, kill);
}

/** Cuts or extends a file that exists in the upper directory. */
export function truncate(m: WritableState, node: Node, size: number, killSuidgid: boolean): Status {
  const fd = m.fds.of(node);
  const cleared = fault("attributes.size") || beforeWrite(m, node, fd, killSuidgid);
  return cleared < 0 ? cleared : truncateFd(fd, size);
}

/** Takes off what a write takes off and the filesystem below does not: bits if asked to, capabilities always. */
function beforeWrite(m: WritableState, node: Node, fd: number, killSuidgid: boolean): Status {
  const dropped = dropKeptCapabilities(m, node);
  return dropped < 0 || !killSuidgid ? dropped : clearSuidgid(m, node, fd);
}

/** Takes setuid and, from what a group may run, setgid off: the writer has no right to keep them. */
function clearSuidgid(m: WritableState, node: Node, fd: number): Status {
  const { stat } = m;
  const result = statFd(fd, stat);
  if (result < 0) return result;
  const mode = shownMode(node, stat);
  const kept = withoutSuidgid(mode);
  if (kept === mode) return 0;
  // After a write the kernel asks for size and times anew, but exec would go by the mode it has kept.
  m.services?.invalidateInode(node.id, -1, 0);
  return changeMode(m, node, kept & 0o7777);
}

/** The same for requests that come without a word of privilege: root has it, and nobody else is taken to. */
function clearForUser(m: WritableState, q: Request, node: Node, fd: number): Status {
  return beforeWrite(m, node, fd, q.uid !== 0);
}

/** FUSE FSYNC and FSYNCDIR. */
export function fsync(m: OverlayState, q: Request, _fh: number, dataOnly: boolean): Status {
  const node = m.inodes.get(q.nodeid);
  if (node === undefined || node.backing === 0 || m.upper?.volatile === true) return 0;
  m.fds.trim();
  const failed = fault("data.sync");
  if (failed < 0) return failed;
  const fd = m.fds.of(node);
  const later = elsewhere(m, q, fd, (own) => ({ kind: "fsync", fd: own, dataOnly, owned: true }));
  return later ?? (dataOnly ? fdatasyncFd(fd) : fsyncFd(fd));
}

/** Has a helper thread do what may take long, on a descriptor of its own, and answer. Undefined when that cannot be. */
function elsewhere(m: OverlayState, q: Request, fd: number, job: (own: number) => Job): Status | undefined {
  if (m.services === undefined) return undefined;
  const own = duplicateFd(fd);
  return own < 0 ? undefined : m.services.offload(q, job(own));
}

/** FUSE SYNCFS. */
export function syncfs(m: OverlayState, q: Request): Status {
  if (m.upper === undefined || m.upper.volatile) return 0;
  const fd = m.upper.rootFd;
  return m.services === undefined ? syncFs(fd) : m.services.offload(q, { kind: "syncfs", fd });
}

/** FUSE FALLOCATE. */
export function fallocate(
  m: OverlayState,
  q: Request,
  _fh: number,
  mode: number,
  offset: number,
  length: number,
): Status {
  const node = writableNode(m, q);
  if (typeof node === "number") return node;
  const fd = m.fds.of(node);
  const cleared = fault("data.allocate") || clearForUser(m as WritableState, q, node, fd);
  if (cleared < 0) return cleared;
  const later =
    length < LARGE
      ? undefined
      : elsewhere(m, q, fd, (own) => ({ kind: "fallocate", fd: own, mode, offset, length, owned: true }));
  return later ?? fallocateFd(fd, mode, offset, length);
}

/** FUSE LSEEK, for SEEK_DATA and SEEK_HOLE. */
export function lseek(m: OverlayState, q: Request, _fh: number, offset: number, whence: number): Status {
  const node = m.inodes.get(q.nodeid);
  const row = dataRow(node, q.nodeid);
  if (row >= 0) return m.lower.tree.seek(row, offset, whence);
  m.fds.trim();
  return seekFd(m.fds.of(node as Node), offset, whence);
}

/** FUSE COPY_FILE_RANGE. May copy less than asked. */
export function copyFileRange(
  m: OverlayState,
  q: Request,
  _fh: number,
  offset: number,
  toNodeid: number,
  _toFh: number,
  toOffset: number,
  length: number,
  _flags: number,
): Status {
  const copied = copyUpData(writable(m), q, toNodeid);
  if (copied < 0) return copied;
  const target = recordOf(m, toNodeid);
  const to = m.fds.of(target);
  const cleared = fault("data.copy") || clearForUser(m as WritableState, q, target, to);
  if (cleared < 0) return cleared;
  const node = m.inodes.get(q.nodeid);
  const row = dataRow(node, q.nodeid);
  if (row < 0)
    return copyRange(m.fds.of(node as Node), offset, to, toOffset, Math.min(length, COPIED_AT_ONCE));
  const { buffer } = m;
  const into = { address: buffer.address, bytes: buffer.bytes, start: 0 };
  const got = readLower(m, q, row, offset, into, Math.min(length, buffer.length));
  return got <= 0 ? got : writeAll(to, buffer.address, got, toOffset);
}
