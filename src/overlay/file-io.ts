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
import {
  afterResize,
  beforeResize,
  chargeWrite,
  holeAtEnd,
  keepHole,
  settle,
  written,
} from "./quota/charge-data.js";
import { afterRange, chargeRange } from "./quota/charge-range.js";
import {
  afterPunch,
  beforePunch,
  finishReservation,
  punches,
  type Reservation,
  reserve,
} from "./quota/reserve.js";
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
  fromCache: boolean,
  killSuidgid: boolean,
): Status {
  const node = writableNode(m, q);
  if (typeof node === "number") return node;
  const fd = m.fds.of(node);
  const { quota } = m;
  const state = m as WritableState;
  const length =
    quota === undefined ? data.length : chargeWrite(state, quota, q, node, offset, data.length, fromCache);
  if (length < 0) return length;
  const hole = quota === undefined ? -1 : holeAtEnd(state, node, offset);
  const cleared = fault("data.write") || beforeWrite(state, node, fd, killSuidgid);
  const done = cleared < 0 ? cleared : writeSome(fd, data.address, length, offset);
  keepHole(state, node, hole);
  if (quota !== undefined) written(state, quota, node, done === length);
  return done;
}

/** Writes until all is written or nothing more can be. The count, or a negative errno. */
function writeSome(fd: number, address: number, length: number, offset: number): number {
  let done = 0;
  while (done < length) {
    const got = pwrite(fd, address + done, length - done, offset + done);
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
  return truncate(state, q, recordOf(m, id), size, kill);
}

/** Cuts or extends a file that exists in the upper directory. */
export function truncate(
  m: WritableState,
  q: Request,
  node: Node,
  size: number,
  killSuidgid: boolean,
): Status {
  const fd = m.fds.of(node);
  const charged = beforeResize(m, q, node, size);
  if (charged < 0) return charged;
  const before = sizeBefore(m, fd, size);
  const cleared = fault("attributes.size") || beforeWrite(m, node, fd, killSuidgid);
  const hole = size > before ? holeAtEnd(m, node, Infinity) : -1;
  const result = cleared < 0 ? cleared : truncateFd(fd, size);
  keepHole(m, node, hole);
  if (result === 0) afterResize(m, node, before, size);
  else if (m.quota !== undefined) settle(m, m.quota, node);
  return result;
}

/** A file's size where that matters to what it costs; nothing is larger than what is cut to 0. */
function sizeBefore(m: WritableState, fd: number, size: number): number {
  if (size === 0 || (m.quota === undefined && !m.upper.costs.allocated)) return size;
  return statFd(fd, m.stat) < 0 ? size : m.stat.size;
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
  const finished = m.allocations.get(q.unique);
  if (finished !== undefined) {
    m.allocations.delete(q.unique);
    return finished;
  }
  const node = writableNode(m, q);
  if (typeof node === "number") return node;
  const state = m as WritableState;
  const fd = m.fds.of(node);
  if (punches(mode)) {
    beforePunch(state, node);
    const cleared = fault("data.allocate") || clearForUser(state, q, node, fd);
    const result = cleared < 0 ? cleared : fallocateFd(fd, mode, offset, length);
    if (result === 0) afterPunch(state, node, offset, length);
    return result;
  }
  const reservation = reserve(state, q, node, mode, offset, length);
  if (typeof reservation === "number") return reservation;
  const cleared = fault("data.allocate") || clearForUser(state, q, node, fd);
  if (cleared < 0) return finishReservation(state, node, reservation, cleared);
  const hole = holeAtEnd(state, node, offset);
  if (length >= LARGE && hole < 0) {
    const later = allocateElsewhere(state, q, node, { fd, mode, offset, length }, reservation);
    if (later !== undefined) return later;
  }
  const allocated = fallocateFd(fd, mode, offset, length);
  keepHole(state, node, hole);
  return finishReservation(state, node, reservation, allocated);
}

/** Has a helper thread allocate; the request comes again for the result. Undefined when that cannot be. */
function allocateElsewhere(
  m: WritableState,
  q: Request,
  node: Node,
  { fd, mode, offset, length }: { fd: number; mode: number; offset: number; length: number },
  reservation: Reservation,
): Status | undefined {
  if (m.services === undefined) return undefined;
  const own = duplicateFd(fd);
  if (own < 0) return undefined;
  const job = { kind: "fallocate", fd: own, mode, offset, length, owned: true } as const;
  // The kernel holds the inode meanwhile: nothing else changes its size or its blocks but pages on their way back.
  const { unique } = q;
  return m.services.suspend(q, -unique, job, (status) => {
    m.allocations.set(unique, status);
    m.allocations.set(unique, finishReservation(m, node, reservation, status));
  });
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
  const state = m as WritableState;
  const target = recordOf(m, toNodeid);
  const to = m.fds.of(target);
  const node = m.inodes.get(q.nodeid);
  const row = dataRow(node, q.nodeid);
  const most = Math.min(length, row < 0 ? COPIED_AT_ONCE : m.buffer.length);
  const wanted = chargeRange(state, q, { node, row, offset }, target, toOffset, most);
  if (wanted <= 0) return wanted;
  const hole = holeAtEnd(state, target, toOffset);
  const cleared = fault("data.copy") || clearForUser(state, q, target, to);
  const done =
    cleared < 0
      ? cleared
      : row < 0
        ? copyRange(m.fds.of(node as Node), offset, to, toOffset, wanted)
        : copyFromImage(m, q, row, offset, to, toOffset, wanted);
  keepHole(state, target, hole);
  afterRange(state, node, row, target, done === wanted);
  return done;
}

function copyFromImage(
  m: OverlayState,
  q: Request,
  row: number,
  offset: number,
  to: number,
  toOffset: number,
  length: number,
): Status {
  const { buffer } = m;
  const into = { address: buffer.address, bytes: buffer.bytes, start: 0 };
  const got = readLower(m, q, row, offset, into, length);
  return got <= 0 ? got : writeAll(to, buffer.address, got, toOffset);
}
