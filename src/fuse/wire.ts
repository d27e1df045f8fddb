// One request and its reply in memory, read and written by the layouts of abi.ts. The records handed to the
// filesystem are made once and reused for every request: nothing here allocates while serving.
// Invariants: the request lies at page - 80, so the payload of WRITE starts on a page; the reply lies at page - 16, so
// the data of READ does (both copies in the kernel are then whole pages). 64-bit fields beyond 2**53 are clamped.
import { alignUp } from "../base/bytes.js";
import { Errno } from "../base/errno.js";
import { allocatePages, PAGE_SIZE, type Region } from "../sys/memory.js";
import { deviceMajor, deviceMinor } from "../sys/stat.js";
import * as abi from "./abi.js";
import {
  type Attr,
  type AttrReply,
  type DataIn,
  type DataOut,
  type DirectorySink,
  type Entry,
  emptyAttr,
  emptyEntry,
  emptySetAttr,
  type NameView,
  type Open,
  type Request,
  type SetAttr,
  type StatfsReply,
  type Status,
  type StatxReply,
} from "./operations.js";

const IN_START = PAGE_SIZE - abi.InHeader.byteLength - abi.WriteIn.byteLength;
const IN_BODY = IN_START + abi.InHeader.byteLength;
const OUT_START = PAGE_SIZE - abi.OutHeader.byteLength;
const OUT_BODY = PAGE_SIZE;
const HIGH = 0x1_0000_0000;
/** Longest name of a directory entry, in bytes (NAME_MAX). The kernel's own limit may be higher. */
const NAME_MAX = 255;
/** "For as long as it likes", in seconds: 68 years, far from overflow in the kernel's jiffies. */
const FOREVER = 0x7fff_ffff;

export function putU64(view: DataView, at: number, value: number): void {
  view.setUint32(at, value >>> 0, true);
  view.setUint32(at + 4, Math.floor(value / HIGH), true);
}

function putAttr(view: DataView, at: number, attr: Attr): void {
  putU64(view, at + abi.Attr.ino, attr.ino);
  putU64(view, at + abi.Attr.size, attr.size);
  putU64(view, at + abi.Attr.blocks, attr.blocks);
  putU64(view, at + abi.Attr.atime, attr.atimeSec);
  putU64(view, at + abi.Attr.mtime, attr.mtimeSec);
  putU64(view, at + abi.Attr.ctime, attr.ctimeSec);
  view.setUint32(at + abi.Attr.atimensec, attr.atimeNsec, true);
  view.setUint32(at + abi.Attr.mtimensec, attr.mtimeNsec, true);
  view.setUint32(at + abi.Attr.ctimensec, attr.ctimeNsec, true);
  view.setUint32(at + abi.Attr.mode, attr.mode, true);
  view.setUint32(at + abi.Attr.nlink, attr.nlink, true);
  view.setUint32(at + abi.Attr.uid, attr.uid, true);
  view.setUint32(at + abi.Attr.gid, attr.gid, true);
  view.setUint32(at + abi.Attr.rdev, attr.rdev, true);
  view.setUint32(at + abi.Attr.blksize, attr.blksize, true);
  view.setUint32(at + abi.Attr.flags, 0, true);
}

/** Into zeroed bytes. */
function putStatx(
  view: DataView,
  at: number,
  { attr, attrTimeout, born, btimeSec, btimeNsec }: StatxReply,
): void {
  const layout = abi.StatxOut;
  putTimeout(view, at + layout.attrValid, at + layout.attrValidNsec, attrTimeout);
  view.setUint32(at + layout.mask, abi.STATX_BASIC_STATS | (born ? abi.STATX_BTIME : 0), true);
  view.setUint32(at + layout.blksize, attr.blksize, true);
  view.setUint32(at + layout.nlink, attr.nlink, true);
  view.setUint32(at + layout.uid, attr.uid, true);
  view.setUint32(at + layout.gid, attr.gid, true);
  view.setUint16(at + layout.mode, attr.mode, true);
  putU64(view, at + layout.ino, attr.ino);
  putU64(view, at + layout.size, attr.size);
  putU64(view, at + layout.blocks, attr.blocks);
  putTime(view, at + layout.atime, attr.atimeSec, attr.atimeNsec);
  putTime(view, at + layout.ctime, attr.ctimeSec, attr.ctimeNsec);
  putTime(view, at + layout.mtime, attr.mtimeSec, attr.mtimeNsec);
  if (born) putTime(view, at + layout.btime, btimeSec, btimeNsec);
  view.setUint32(at + layout.rdevMajor, deviceMajor(attr.rdev), true);
  view.setUint32(at + layout.rdevMinor, deviceMinor(attr.rdev), true);
}

/** struct fuse_sx_time. */
function putTime(view: DataView, at: number, seconds: number, nanoseconds: number): void {
  putU64(view, at, seconds);
  view.setUint32(at + 8, nanoseconds, true);
}

function putTimeout(view: DataView, secondsAt: number, nsecAt: number, timeout: number): void {
  const seconds = timeout >= FOREVER ? FOREVER : Math.floor(timeout);
  putU64(view, secondsAt, seconds);
  view.setUint32(nsecAt, timeout >= FOREVER ? 0 : Math.floor((timeout - seconds) * 1e9), true);
}

function putEntry(view: DataView, at: number, entry: Entry): void {
  putU64(view, at + abi.EntryOut.nodeid, entry.nodeid);
  putU64(view, at + abi.EntryOut.generation, entry.generation);
  putTimeout(view, at + abi.EntryOut.entryValid, at + abi.EntryOut.entryValidNsec, entry.entryTimeout);
  putTimeout(view, at + abi.EntryOut.attrValid, at + abi.EntryOut.attrValidNsec, entry.attrTimeout);
  putAttr(view, at + abi.EntryOut.attr, entry.attr);
}

function isDotName(bytes: Uint8Array, start: number, end: number): boolean {
  const length = end - start;
  return length <= 2 && bytes[start] === 0x2e && (length === 1 || bytes[start + 1] === 0x2e);
}

/** Encodes directory entries straight into the reply. */
class Sink implements DirectorySink {
  plus = false;
  readonly entry: Entry = emptyEntry();
  used = 0;
  capacity = 0;
  private readonly out: Region;

  constructor(out: Region) {
    this.out = out;
  }

  add(bytes: Uint8Array, start: number, end: number, type: number, ino: number, next: number): boolean {
    const { view, bytes: target } = this.out;
    const prefix = this.plus ? abi.EntryOut.byteLength : 0;
    const length = end - start;
    const record = alignUp8(prefix + abi.Dirent.byteLength + length);
    if (this.used + record > this.capacity) return false;
    let at = OUT_BODY + this.used;
    if (this.plus) {
      if (this.entry.nodeid !== 0) putEntry(view, at, this.entry);
      else target.fill(0, at, at + abi.EntryOut.byteLength);
      this.entry.nodeid = 0;
      at += prefix;
    }
    putU64(view, at + abi.Dirent.ino, ino);
    putU64(view, at + abi.Dirent.off, next);
    view.setUint32(at + abi.Dirent.namelen, length, true);
    view.setUint32(at + abi.Dirent.type, type, true);
    at += abi.Dirent.byteLength;
    for (let i = start; i < end; i++) target[at++] = bytes[i] as number;
    this.used += record;
    for (const stop = OUT_BODY + this.used; at < stop; at++) target[at] = 0;
    return true;
  }
}

function alignUp8(value: number): number {
  return (value + 7) & ~7;
}

/** The buffers of one session, with the request that lies in them at the moment. */
export class Exchange {
  readonly request: Request = { unique: 0, nodeid: 0, uid: 0, gid: 0, pid: 0 };
  readonly name: NameView;
  readonly name2: NameView;
  readonly set: SetAttr = emptySetAttr();
  readonly entry: Entry = emptyEntry();
  readonly attr: AttrReply = { attrTimeout: Infinity, attr: emptyAttr() };
  readonly statx: StatxReply = {
    attrTimeout: Infinity,
    attr: emptyAttr(),
    born: false,
    btimeSec: 0,
    btimeNsec: 0,
  };
  readonly open: Open = { fh: 0, openFlags: 0 };
  readonly statfs: StatfsReply = {
    blocks: 0,
    bfree: 0,
    bavail: 0,
    files: 0,
    ffree: 0,
    bsize: 4096,
    namelen: NAME_MAX,
    frsize: 4096,
  };
  readonly data: DataOut;
  readonly value: DataIn;
  /** Where read(2) puts the next request, and how much it must be able to take. */
  readonly inAddress: number;
  readonly inCapacity: number;
  /** Where write(2) finds the reply. */
  readonly outAddress: number;
  opcode = 0;
  /** Length of SETXATTR's record, which depends on what INIT has agreed. */
  setxattrLength: number = abi.SetxattrInCompat.byteLength;

  private readonly in: Region;
  private readonly out: Region;
  private readonly sink: Sink;
  private readonly outCapacity: number;
  private length = 0;

  /** `maxTransfer` bytes at most travel in one READ or WRITE. */
  constructor(maxTransfer: number) {
    this.in = allocatePages(PAGE_SIZE + maxTransfer + PAGE_SIZE);
    this.out = allocatePages(PAGE_SIZE + alignUp(maxTransfer, PAGE_SIZE));
    this.inAddress = this.in.address + IN_START;
    this.inCapacity = this.in.length - IN_START;
    this.outAddress = this.out.address + OUT_START;
    this.outCapacity = this.out.length - OUT_BODY;
    this.name = { bytes: this.in.bytes, start: 0, end: 0 };
    this.name2 = { bytes: this.in.bytes, start: 0, end: 0 };
    this.data = {
      address: this.out.address + OUT_BODY,
      bytes: this.out.bytes,
      start: OUT_BODY,
      capacity: 0,
      length: 0,
    };
    this.value = { address: 0, bytes: this.in.bytes, start: 0, length: 0 };
    this.sink = new Sink(this.out);
  }

  /** Takes up the request of `length` bytes at {@link inAddress}. False when it is no whole message. */
  load(length: number): boolean {
    const { view } = this.in;
    if (length < abi.InHeader.byteLength || view.getUint32(IN_START, true) !== length) return false;
    this.length = length;
    this.opcode = view.getUint32(IN_START + abi.InHeader.opcode, true);
    const q = this.request;
    q.unique = this.wide(IN_START + abi.InHeader.unique);
    q.nodeid = this.wide(IN_START + abi.InHeader.nodeid);
    q.uid = view.getUint32(IN_START + abi.InHeader.uid, true);
    q.gid = view.getUint32(IN_START + abi.InHeader.gid, true);
    q.pid = view.getUint32(IN_START + abi.InHeader.pid, true);
    return true;
  }

  /** Bytes after the header. */
  get bodyLength(): number {
    return this.length - abi.InHeader.byteLength;
  }

  /** A copy of the whole request, for {@link restore}. */
  save(): Uint8Array {
    return this.in.bytes.slice(IN_START, IN_START + this.length);
  }

  /** Puts a saved request back in place as if it had just been read; its length. */
  restore(saved: Uint8Array): number {
    this.in.bytes.set(saved, IN_START);
    return saved.length;
  }

  u32(field: number): number {
    return this.in.view.getUint32(IN_BODY + field, true);
  }

  u64(field: number): number {
    return this.wide(IN_BODY + field);
  }

  private i64(field: number): number {
    return this.in.view.getInt32(IN_BODY + field + 4, true) * HIGH + this.u32(field);
  }

  private wide(at: number): number {
    const value = this.in.view.getUint32(at, true) + this.in.view.getUint32(at + 4, true) * HIGH;
    return Math.min(value, Number.MAX_SAFE_INTEGER);
  }

  /**
   * Finds the one or two NUL-terminated strings that follow a record of `skip` bytes. 0, or EINVAL when one is
   * missing or empty.
   */
  findNames(skip: number, count: 1 | 2): Status {
    const end = IN_START + this.length;
    const first = this.findName(this.name, IN_BODY + skip, end);
    return count === 1 || first < 0 ? Math.min(first, 0) : Math.min(this.findName(this.name2, first, end), 0);
  }

  private findName(view: NameView, start: number, end: number): number {
    const stop = this.in.bytes.indexOf(0, start);
    if (start >= end || stop < 0 || stop >= end || stop === start) return -Errno.EINVAL;
    view.start = start;
    view.end = stop;
    return stop + 1;
  }

  /** The bytes after a record of `skip` bytes, or undefined when the message holds fewer than `length`. */
  payload(skip: number, length: number): DataIn | undefined {
    if (skip + length > this.bodyLength) return undefined;
    this.value.address = this.in.address + IN_BODY + skip;
    this.value.start = IN_BODY + skip;
    this.value.length = length;
    return this.value;
  }

  /** Bytes from the record to the end of the second string of a rename or the name of a setxattr. */
  nameEnd(view: NameView): number {
    return view.end + 1 - IN_BODY;
  }

  decodeSetattr(): SetAttr {
    const { set } = this;
    set.valid = this.u32(abi.SetattrIn.valid);
    set.fh = this.u64(abi.SetattrIn.fh);
    set.size = this.u64(abi.SetattrIn.size);
    set.atimeSec = this.i64(abi.SetattrIn.atime);
    set.atimeNsec = this.u32(abi.SetattrIn.atimensec);
    set.mtimeSec = this.i64(abi.SetattrIn.mtime);
    set.mtimeNsec = this.u32(abi.SetattrIn.mtimensec);
    set.ctimeSec = this.i64(abi.SetattrIn.ctime);
    set.ctimeNsec = this.u32(abi.SetattrIn.ctimensec);
    set.mode = this.u32(abi.SetattrIn.mode);
    set.uid = this.u32(abi.SetattrIn.uid);
    set.gid = this.u32(abi.SetattrIn.gid);
    return set;
  }

  emptyEntry(): Entry {
    this.entry.nodeid = 0;
    this.entry.generation = 0;
    this.entry.entryTimeout = Infinity;
    this.entry.attrTimeout = Infinity;
    return this.entry;
  }

  emptyAttr(): AttrReply {
    this.attr.attrTimeout = Infinity;
    return this.attr;
  }

  emptyStatx(): StatxReply {
    this.statx.attrTimeout = Infinity;
    this.statx.born = false;
    return this.statx;
  }

  /** The record for data of at most `size` bytes, empty. */
  emptyData(size: number): DataOut {
    this.data.capacity = Math.min(size, this.outCapacity);
    this.data.length = 0;
    return this.data;
  }

  emptySink(size: number, plus: boolean): DirectorySink {
    this.sink.plus = plus;
    this.sink.used = 0;
    this.sink.capacity = Math.min(size, this.outCapacity);
    this.sink.entry.nodeid = 0;
    return this.sink;
  }

  emptyOpen(): Open {
    this.open.fh = 0;
    this.open.openFlags = 0;
    return this.open;
  }

  // Encoders: each takes the operation's status and gives the length of the reply's body, or the error unchanged.

  noBody(status: Status): number {
    return status < 0 ? status : 0;
  }

  entryBody(status: Status): number {
    if (status < 0) return status;
    putEntry(this.out.view, OUT_BODY, this.entry);
    return abi.EntryOut.byteLength;
  }

  attrBody(status: Status): number {
    if (status < 0) return status;
    const { view } = this.out;
    putTimeout(
      view,
      OUT_BODY + abi.AttrOut.attrValid,
      OUT_BODY + abi.AttrOut.attrValidNsec,
      this.attr.attrTimeout,
    );
    view.setUint32(OUT_BODY + abi.AttrOut.dummy, 0, true);
    putAttr(view, OUT_BODY + abi.AttrOut.attr, this.attr.attr);
    return abi.AttrOut.byteLength;
  }

  statxBody(status: Status): number {
    if (status < 0) return status;
    const { view, bytes } = this.out;
    bytes.fill(0, OUT_BODY, OUT_BODY + abi.StatxOut.byteLength);
    putStatx(view, OUT_BODY, this.statx);
    return abi.StatxOut.byteLength;
  }

  openBody(status: Status, at = 0): number {
    if (status < 0) return status;
    putU64(this.out.view, OUT_BODY + at + abi.OpenOut.fh, this.open.fh);
    this.out.view.setUint32(OUT_BODY + at + abi.OpenOut.openFlags, this.open.openFlags, true);
    this.out.view.setUint32(OUT_BODY + at + abi.OpenOut.backingId, 0, true);
    return at + abi.OpenOut.byteLength;
  }

  createBody(status: Status): number {
    const length = this.entryBody(status);
    return length < 0 ? length : this.openBody(0, length);
  }

  dataBody(status: Status): number {
    if (status < 0) return status;
    return this.data.length > this.data.capacity ? -Errno.EIO : this.data.length;
  }

  /** For getxattr and listxattr, which may ask for the size alone. */
  xattrBody(status: Status, size: number): number {
    if (status < 0) return status;
    if (size > 0) return this.data.length > size ? -Errno.ERANGE : this.dataBody(0);
    putU64(this.out.view, OUT_BODY, this.data.length);
    return abi.GetxattrOut.byteLength;
  }

  directoryBody(status: Status): number {
    return status < 0 ? status : this.sink.used;
  }

  /** For write, lseek and copyFileRange: a count or position as the one 64-bit field of the reply. */
  countBody(status: Status): number {
    if (status < 0) return status;
    putU64(this.out.view, OUT_BODY, status);
    return abi.LseekOut.byteLength;
  }

  statfsBody(status: Status): number {
    if (status < 0) return status;
    const { view, bytes } = this.out;
    bytes.fill(0, OUT_BODY, OUT_BODY + abi.StatfsOut.byteLength);
    putU64(view, OUT_BODY + abi.StatfsOut.blocks, this.statfs.blocks);
    putU64(view, OUT_BODY + abi.StatfsOut.bfree, this.statfs.bfree);
    putU64(view, OUT_BODY + abi.StatfsOut.bavail, this.statfs.bavail);
    putU64(view, OUT_BODY + abi.StatfsOut.files, this.statfs.files);
    putU64(view, OUT_BODY + abi.StatfsOut.ffree, this.statfs.ffree);
    view.setUint32(OUT_BODY + abi.StatfsOut.bsize, this.statfs.bsize, true);
    view.setUint32(OUT_BODY + abi.StatfsOut.namelen, this.statfs.namelen, true);
    view.setUint32(OUT_BODY + abi.StatfsOut.frsize, this.statfs.frsize, true);
    return abi.StatfsOut.byteLength;
  }

  /** A body of `length` zero bytes to be written by its layout. */
  rawBody(length: number): DataView {
    this.out.bytes.fill(0, OUT_BODY, OUT_BODY + length);
    return new DataView(this.out.bytes.buffer, OUT_BODY, length);
  }

  /** Completes the reply to the current request: `result` is a body length or a negative errno. Bytes to write. */
  seal(result: number): number {
    const { view } = this.out;
    const length = abi.OutHeader.byteLength + Math.max(result, 0);
    view.setUint32(OUT_START, length, true);
    view.setInt32(OUT_START + abi.OutHeader.error, Math.min(result, 0), true);
    const unique = IN_START + abi.InHeader.unique;
    view.setUint32(OUT_START + abi.OutHeader.unique, this.in.view.getUint32(unique, true), true);
    view.setUint32(OUT_START + abi.OutHeader.unique + 4, this.in.view.getUint32(unique + 4, true), true);
    return length;
  }

  /** Calls `visit` with each nodeid whose lookup the READDIRPLUS reply in the buffer has counted. */
  eachListedNode(visit: (nodeid: number) => void): void {
    const { view, bytes } = this.out;
    for (let at = OUT_BODY; at < OUT_BODY + this.sink.used; ) {
      const dirent = at + abi.EntryOut.byteLength;
      const name = dirent + abi.Dirent.byteLength;
      const length = view.getUint32(dirent + abi.Dirent.namelen, true);
      const nodeid = view.getUint32(at, true) + view.getUint32(at + 4, true) * HIGH;
      if (nodeid !== 0 && !isDotName(bytes, name, name + length)) visit(nodeid);
      at = alignUp8(name + length);
    }
  }
}

/** True for a name longer than a directory entry may have. */
export function isTooLong(name: NameView): boolean {
  return name.end - name.start > NAME_MAX;
}
