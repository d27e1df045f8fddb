// statx(2) and statfs(2) into plain records.
import { bind } from "./libc.js";
import { allocatePages, pathArgument } from "./memory.js";

/** What statx says of one object. Times are seconds (may be negative) and nanoseconds [0, 1e9). */
export interface Stat {
  mask: number;
  /** Type and permission bits, as st_mode. */
  mode: number;
  nlink: number;
  uid: number;
  gid: number;
  /** Inode number; exact below 2**53, folded into that range beyond. */
  ino: number;
  size: number;
  /** Units of 512 bytes. */
  blocks: number;
  blksize: number;
  /** The kernel's 32-bit device encoding (include/linux/kdev_t.h, new_encode_dev). */
  rdev: number;
  /** Device that holds the object, same encoding. */
  dev: number;
  atimeSec: number;
  atimeNsec: number;
  mtimeSec: number;
  mtimeNsec: number;
  ctimeSec: number;
  ctimeNsec: number;
  btimeSec: number;
  btimeNsec: number;
}

export function emptyStat(): Stat {
  return {
    mask: 0,
    mode: 0,
    nlink: 0,
    uid: 0,
    gid: 0,
    ino: 0,
    size: 0,
    blocks: 0,
    blksize: 0,
    rdev: 0,
    dev: 0,
    atimeSec: 0,
    atimeNsec: 0,
    mtimeSec: 0,
    mtimeNsec: 0,
    ctimeSec: 0,
    ctimeNsec: 0,
    btimeSec: 0,
    btimeNsec: 0,
  };
}

export const S_IFMT = 0o170000;
export const S_IFSOCK = 0o140000;
export const S_IFLNK = 0o120000;
export const S_IFREG = 0o100000;
export const S_IFBLK = 0o060000;
export const S_IFDIR = 0o040000;
export const S_IFCHR = 0o020000;
export const S_IFIFO = 0o010000;
export const S_ISUID = 0o4000;
export const S_ISGID = 0o2000;

/** Device numbers in the kernel's 32-bit encoding: 12 bits of major, 20 of minor. */
export function makeDevice(major: number, minor: number): number {
  return ((minor & 0xff) | ((major & 0xfff) << 8) | ((minor & 0xfff00) << 12)) >>> 0;
}

export function deviceMajor(device: number): number {
  return (device >>> 8) & 0xfff;
}

export function deviceMinor(device: number): number {
  return (device & 0xff) | ((device >>> 12) & 0xfff00);
}

export const AT_SYMLINK_NOFOLLOW = 0x100;
export const AT_EMPTY_PATH = 0x1000;
const STATX_BASIC_AND_BTIME = 0xfff;

const statxCall = bind<[number, number, number, number, number]>("statx", "int", [
  "int",
  "uintptr_t",
  "int",
  "uint32_t",
  "uintptr_t",
]);
const statfsCall = bind<[number, number]>("fstatfs64", "int", ["int", "uintptr_t"]);

const buffer = allocatePages(4096);
/** A byte of the buffer that nothing is written to. */
const emptyPath = buffer.address + 4095;

function ino(view: DataView): number {
  const high = view.getUint32(36, true);
  // Folding keeps the low bits of the high half, which is where filesystems with 64-bit numbers put a generation.
  return view.getUint32(32, true) + (high & 0x1f_ffff) * 0x1_0000_0000;
}

function decode(view: DataView, out: Stat): void {
  out.mask = view.getUint32(0, true);
  out.blksize = view.getUint32(4, true);
  out.nlink = view.getUint32(16, true);
  out.uid = view.getUint32(20, true);
  out.gid = view.getUint32(24, true);
  out.mode = view.getUint16(28, true);
  out.ino = ino(view);
  out.size = view.getUint32(40, true) + view.getUint32(44, true) * 0x1_0000_0000;
  out.blocks = view.getUint32(48, true) + view.getUint32(52, true) * 0x1_0000_0000;
  out.atimeSec = seconds(view, 64);
  out.atimeNsec = view.getUint32(72, true);
  out.btimeSec = seconds(view, 80);
  out.btimeNsec = view.getUint32(88, true);
  out.ctimeSec = seconds(view, 96);
  out.ctimeNsec = view.getUint32(104, true);
  out.mtimeSec = seconds(view, 112);
  out.mtimeNsec = view.getUint32(120, true);
  out.rdev = makeDevice(view.getUint32(128, true), view.getUint32(132, true));
  out.dev = makeDevice(view.getUint32(136, true), view.getUint32(140, true));
}

function seconds(view: DataView, at: number): number {
  return view.getInt32(at + 4, true) * 0x1_0000_0000 + view.getUint32(at, true);
}

/** statx of `name` in directory `dirfd`, a final symlink not followed. 0 or a negative errno. */
export function statAt(dirfd: number, name: Uint8Array, out: Stat): number {
  const path = pathArgument(0, name);
  if (path < 0) return path;
  const result = statxCall(dirfd, path, AT_SYMLINK_NOFOLLOW, STATX_BASIC_AND_BTIME, buffer.address);
  if (result === 0) decode(buffer.view, out);
  return result;
}

/** statx of an open descriptor, O_PATH ones too. 0 or a negative errno. */
export function statFd(fd: number, out: Stat): number {
  const result = statxCall(fd, emptyPath, AT_EMPTY_PATH, STATX_BASIC_AND_BTIME, buffer.address);
  if (result === 0) decode(buffer.view, out);
  return result;
}

const STATX_FILE = 0x307;

/** Type, mode, links, inode number and size alone of an open descriptor; the rest of `out` stays. 0 or a negative errno. */
export function statFileFd(fd: number, out: Stat): number {
  const result = statxCall(fd, emptyPath, AT_EMPTY_PATH, STATX_FILE, buffer.address);
  if (result !== 0) return result;
  const { view } = buffer;
  out.nlink = view.getUint32(16, true);
  out.mode = view.getUint16(28, true);
  out.ino = ino(view);
  out.size = view.getUint32(40, true) + view.getUint32(44, true) * 0x1_0000_0000;
  return 0;
}

/** The inode number that the last {@link statAt} or {@link statFd} of this thread found, exact. */
export function exactIno(): bigint {
  return buffer.view.getBigUint64(32, true);
}

/** Counts of a filesystem; blocks in units of `frsize` bytes. */
export interface Statfs {
  /** Magic number of the filesystem's type (linux/magic.h). */
  type: number;
  bsize: number;
  blocks: number;
  bfree: number;
  bavail: number;
  files: number;
  ffree: number;
  namelen: number;
  frsize: number;
}

/** fstatfs(2). 0 or a negative errno. */
export function statfsFd(fd: number, out: Statfs): number {
  const result = statfsCall(fd, buffer.address);
  if (result < 0) return result;
  const { view } = buffer;
  const u64 = (at: number): number => view.getUint32(at, true) + view.getUint32(at + 4, true) * 0x1_0000_0000;
  out.type = u64(0);
  out.bsize = u64(8);
  out.blocks = u64(16);
  out.bfree = u64(24);
  out.bavail = u64(32);
  out.files = u64(40);
  out.ffree = u64(48);
  out.namelen = u64(64);
  out.frsize = u64(72);
  return 0;
}
