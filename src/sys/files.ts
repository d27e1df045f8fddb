// Files by directory descriptor and name bytes, beyond what node:fs offers: names that are not UTF-8, nanosecond
// times, device nodes, renameat2, SEEK_DATA, fallocate, copy_file_range.
// Each function returns 0, a count or a descriptor, or a negative errno.
import { constants } from "node:fs";
import { Errno } from "../base/errno.js";
import { bind } from "./libc.js";
import { allocatePages, pathArgument, type Region } from "./memory.js";
import { AT_EMPTY_PATH, AT_SYMLINK_NOFOLLOW } from "./stat.js";

export const { O_RDONLY, O_WRONLY, O_RDWR, O_CREAT, O_EXCL, O_TRUNC, O_APPEND, O_DIRECTORY, O_NOFOLLOW } =
  constants;
export const O_ACCMODE = 3;
export const O_CLOEXEC = 0o2000000;
export const { O_NONBLOCK } = constants;
export const O_PATH = 0o10000000;
export const O_NOATIME = 0o1000000;
export const O_TMPFILE = 0o20000000 | O_DIRECTORY;
export const AT_FDCWD = -100;
export const AT_REMOVEDIR = 0x200;
export const RENAME_NOREPLACE = 1;
export const RENAME_EXCHANGE = 2;
export const RENAME_WHITEOUT = 4;
export const UTIME_NOW = 0x3fffffff;
export const UTIME_OMIT = 0x3ffffffe;
export const SEEK_DATA = 3;
export const SEEK_HOLE = 4;
export const LOCK_SH = 1;
export const LOCK_EX = 2;
export const LOCK_NB = 4;
export const FALLOC_FL_INSERT_RANGE = 0x20;

const c = {
  openat: bind<[number, number, number, number]>("openat64", "int", ["int", "uintptr_t", "int", "uint32_t"]),
  close: bind<[number]>("close", "int", ["int"]),
  read: bind<[number, number, number]>("read", "int", ["int", "uintptr_t", "int"]),
  write: bind<[number, number, number]>("write", "int", ["int", "uintptr_t", "int"]),
  pread: bind<[number, number, number, number]>("pread64", "int", ["int", "uintptr_t", "int", "int64_t"]),
  pwrite: bind<[number, number, number, number]>("pwrite64", "int", ["int", "uintptr_t", "int", "int64_t"]),
  mkdirat: bind<[number, number, number]>("mkdirat", "int", ["int", "uintptr_t", "uint32_t"]),
  mknodat: bind<[number, number, number, number]>("mknodat", "int", [
    "int",
    "uintptr_t",
    "uint32_t",
    "uint64_t",
  ]),
  unlinkat: bind<[number, number, number]>("unlinkat", "int", ["int", "uintptr_t", "int"]),
  symlinkat: bind<[number, number, number]>("symlinkat", "int", ["uintptr_t", "int", "uintptr_t"]),
  linkat: bind<[number, number, number, number, number]>("linkat", "int", [
    "int",
    "uintptr_t",
    "int",
    "uintptr_t",
    "int",
  ]),
  renameat2: bind<[number, number, number, number, number]>("renameat2", "int", [
    "int",
    "uintptr_t",
    "int",
    "uintptr_t",
    "uint32_t",
  ]),
  readlinkat: bind<[number, number, number, number]>("readlinkat", "int64_t", [
    "int",
    "uintptr_t",
    "uintptr_t",
    "size_t",
  ]),
  fchmod: bind<[number, number]>("fchmod", "int", ["int", "uint32_t"]),
  fchmodat: bind<[number, number, number, number]>("fchmodat", "int", [
    "int",
    "uintptr_t",
    "uint32_t",
    "int",
  ]),
  fchownat: bind<[number, number, number, number, number]>("fchownat", "int", [
    "int",
    "uintptr_t",
    "uint32_t",
    "uint32_t",
    "int",
  ]),
  utimensat: bind<[number, number, number, number]>("utimensat", "int", [
    "int",
    "uintptr_t",
    "uintptr_t",
    "int",
  ]),
  futimens: bind<[number, number]>("futimens", "int", ["int", "uintptr_t"]),
  ftruncate: bind<[number, number]>("ftruncate64", "int", ["int", "int64_t"]),
  fsync: bind<[number]>("fsync", "int", ["int"]),
  fdatasync: bind<[number]>("fdatasync", "int", ["int"]),
  syncfs: bind<[number]>("syncfs", "int", ["int"]),
  fallocate: bind<[number, number, number, number]>("fallocate64", "int", [
    "int",
    "int",
    "int64_t",
    "int64_t",
  ]),
  syncFileRange: bind<[number, number, number, number]>("sync_file_range", "int", [
    "int",
    "int64_t",
    "int64_t",
    "uint32_t",
  ]),
  lseek: bind<[number, number, number]>("lseek64", "int64_t", ["int", "int64_t", "int"]),
  copyFileRange: bind<[number, number, number, number, number, number]>("copy_file_range", "int64_t", [
    "int",
    "uintptr_t",
    "int",
    "uintptr_t",
    "size_t",
    "uint32_t",
  ]),
  flock: bind<[number, number]>("flock", "int", ["int", "int"]),
  fcntl: bind<[number, number, number]>("fcntl64", "int", ["int", "int", "int"]),
  getdents: bind<[number, number, number]>("getdents64", "int64_t", ["int", "uintptr_t", "size_t"]),
};

const small = allocatePages(4096);
const times = { address: small.address, view: small.view };
const offsets = { address: small.address + 64, view: new DataView(small.bytes.buffer, 64, 16) };
const empty = new Uint8Array(0);

export function openAt(dirfd: number, name: Uint8Array, flags: number, mode = 0): number {
  const path = pathArgument(0, name);
  return path < 0 ? path : c.openat(dirfd, path, flags | O_CLOEXEC, mode);
}

export function closeFd(fd: number): number {
  return c.close(fd);
}

const F_SETFD = 2;
const F_SETFL = 4;
const F_DUPFD_CLOEXEC = 1030;
const FD_CLOEXEC = 1;

/** Keeps a descriptor that was inherited from being inherited further. */
export function closeOnExec(fd: number): number {
  return c.fcntl(fd, F_SETFD, FD_CLOEXEC);
}

/** One more descriptor of the same open file, not inherited. */
export function duplicateFd(fd: number): number {
  return c.fcntl(fd, F_DUPFD_CLOEXEC, 0);
}

/**
 * Runs `call`, whose reads of `fd` leave its atime as it is. Where that is not for this process to ask (open(2),
 * O_NOATIME) they do not.
 */
export function withoutAtime<T>(fd: number, call: () => T): T {
  const quiet = c.fcntl(fd, F_SETFL, O_NOATIME) === 0;
  try {
    return call();
  } finally {
    if (quiet) c.fcntl(fd, F_SETFL, 0);
  }
}

/** read(2) into native memory at `address`. */
export function readFd(fd: number, address: number, length: number): number {
  return c.read(fd, address, length);
}

/** write(2) from native memory at `address`. */
export function writeFd(fd: number, address: number, length: number): number {
  return c.write(fd, address, length);
}

/** pread(2) into native memory at `address`; may be short. */
export function pread(fd: number, address: number, length: number, offset: number): number {
  return c.pread(fd, address, length, offset);
}

/** pwrite(2) from native memory at `address`; may be short. */
export function pwrite(fd: number, address: number, length: number, offset: number): number {
  return c.pwrite(fd, address, length, offset);
}

export function mkdirAt(dirfd: number, name: Uint8Array, mode: number): number {
  const path = pathArgument(0, name);
  return path < 0 ? path : c.mkdirat(dirfd, path, mode);
}

/** `device` in the kernel's 32-bit encoding, which is what dev_t holds for majors below 4096. */
export function mknodAt(dirfd: number, name: Uint8Array, mode: number, device: number): number {
  const path = pathArgument(0, name);
  return path < 0 ? path : c.mknodat(dirfd, path, mode, device);
}

/** `flags` 0 for a file, AT_REMOVEDIR for a directory. */
export function unlinkAt(dirfd: number, name: Uint8Array, flags = 0): number {
  const path = pathArgument(0, name);
  return path < 0 ? path : c.unlinkat(dirfd, path, flags);
}

export function symlinkAt(target: Uint8Array, dirfd: number, name: Uint8Array): number {
  const to = pathArgument(1, target);
  if (to < 0) return to;
  const path = pathArgument(0, name);
  return path < 0 ? path : c.symlinkat(to, dirfd, path);
}

export function linkAt(
  dirfd: number,
  name: Uint8Array,
  newDirfd: number,
  newName: Uint8Array,
  flags = 0,
): number {
  const from = pathArgument(0, name);
  if (from < 0) return from;
  const to = pathArgument(1, newName);
  return to < 0 ? to : c.linkat(dirfd, from, newDirfd, to, flags);
}

export function renameAt(
  dirfd: number,
  name: Uint8Array,
  newDirfd: number,
  newName: Uint8Array,
  flags = 0,
): number {
  const from = pathArgument(0, name);
  if (from < 0) return from;
  const to = pathArgument(1, newName);
  return to < 0 ? to : c.renameat2(dirfd, from, newDirfd, to, flags);
}

/** readlinkat(2) into native memory; the length of the target. An empty `name` reads an O_PATH descriptor. */
export function readlinkAt(dirfd: number, name: Uint8Array, address: number, length: number): number {
  const path = pathArgument(0, name);
  return path < 0 ? path : c.readlinkat(dirfd, path, address, length);
}

export function chmodFd(fd: number, mode: number): number {
  return c.fchmod(fd, mode);
}

/** Follows a final symlink, as fchmodat(2) does: never call it on a name that may be one. */
export function chmodAt(dirfd: number, name: Uint8Array, mode: number): number {
  const path = pathArgument(0, name);
  return path < 0 ? path : c.fchmodat(dirfd, path, mode, 0);
}

/** Owner of `name` itself, symlinks not followed; 0xffffffff leaves an id as it is. An empty name means `dirfd`. */
export function chownAt(dirfd: number, name: Uint8Array, uid: number, gid: number): number {
  const path = pathArgument(0, name);
  if (path < 0) return path;
  return c.fchownat(dirfd, path, uid, gid, AT_SYMLINK_NOFOLLOW | (name.length === 0 ? AT_EMPTY_PATH : 0));
}

function setTimes(atimeSec: number, atimeNsec: number, mtimeSec: number, mtimeNsec: number): void {
  times.view.setInt32(4, Math.floor(atimeSec / 0x1_0000_0000), true);
  times.view.setUint32(0, atimeSec >>> 0, true);
  times.view.setBigInt64(8, BigInt(atimeNsec), true);
  times.view.setInt32(20, Math.floor(mtimeSec / 0x1_0000_0000), true);
  times.view.setUint32(16, mtimeSec >>> 0, true);
  times.view.setBigInt64(24, BigInt(mtimeNsec), true);
}

/** Times of `name` itself; nanoseconds may be UTIME_NOW or UTIME_OMIT. An empty name means `dirfd`. */
export function utimesAt(
  dirfd: number,
  name: Uint8Array,
  atimeSec: number,
  atimeNsec: number,
  mtimeSec: number,
  mtimeNsec: number,
): number {
  const path = pathArgument(0, name);
  if (path < 0) return path;
  setTimes(atimeSec, atimeNsec, mtimeSec, mtimeNsec);
  return c.utimensat(
    dirfd,
    path,
    times.address,
    AT_SYMLINK_NOFOLLOW | (name.length === 0 ? AT_EMPTY_PATH : 0),
  );
}

/** Times of an open file (not O_PATH). */
export function utimesFd(
  fd: number,
  atimeSec: number,
  atimeNsec: number,
  mtimeSec: number,
  mtimeNsec: number,
): number {
  setTimes(atimeSec, atimeNsec, mtimeSec, mtimeNsec);
  return c.futimens(fd, times.address);
}

export function truncateFd(fd: number, size: number): number {
  return c.ftruncate(fd, size);
}

export function fsyncFd(fd: number): number {
  return c.fsync(fd);
}

export function fdatasyncFd(fd: number): number {
  return c.fdatasync(fd);
}

export function syncFs(fd: number): number {
  return c.syncfs(fd);
}

export function fallocateFd(fd: number, mode: number, offset: number, length: number): number {
  return c.fallocate(fd, mode, offset, length);
}

const SYNC_FILE_RANGE_WRITE = 2;

/** Has the kernel begin to write dirty pages of a file to its device, and does not wait for them (sync_file_range(2)). */
export function startWriteback(fd: number, offset: number, length: number): number {
  return c.syncFileRange(fd, offset, length, SYNC_FILE_RANGE_WRITE);
}

/** lseek(2) with SEEK_DATA or SEEK_HOLE: the position found, or -ENXIO past the last data. */
export function seekFd(fd: number, offset: number, whence: number): number {
  return c.lseek(fd, offset, whence);
}

/** One copy_file_range(2) call: bytes copied, possibly fewer than asked. */
export function copyRange(
  from: number,
  fromOffset: number,
  to: number,
  toOffset: number,
  length: number,
): number {
  offsets.view.setBigInt64(0, BigInt(fromOffset), true);
  offsets.view.setBigInt64(8, BigInt(toOffset), true);
  return c.copyFileRange(from, offsets.address, to, offsets.address + 8, length, 0);
}

/** flock(2); with LOCK_NB a held lock is -EAGAIN. */
export function flockFd(fd: number, operation: number): number {
  return c.flock(fd, operation);
}

/** Called with each entry's name bytes [start, end) of `bytes`, its DT_* type and inode number. */
export type DirectoryVisitor = (
  bytes: Uint8Array,
  start: number,
  end: number,
  type: number,
  ino: number,
) => void;

let direntBuffer: Region | undefined;

/**
 * Reads the directory open at `fd` from its current position to the end, `.` and `..` left out. The visitor must
 * not call readDirectory itself. 0 or a negative errno.
 */
export function readDirectory(fd: number, visit: DirectoryVisitor): number {
  direntBuffer ??= allocatePages(64 * 1024);
  const { bytes, view, address, length } = direntBuffer;
  for (;;) {
    const got = c.getdents(fd, address, length);
    if (got === -Errno.EINTR) continue;
    if (got <= 0) return got;
    for (let at = 0; at < got; ) {
      const recordLength = view.getUint16(at + 16, true);
      const end = bytes.indexOf(0, at + 19);
      const dot = bytes[at + 19] === 0x2e;
      const special = dot && (end === at + 20 || (end === at + 21 && bytes[at + 20] === 0x2e));
      if (!special) {
        const ino = view.getUint32(at, true) + (view.getUint32(at + 4, true) & 0x1f_ffff) * 0x1_0000_0000;
        visit(bytes, at + 19, end, bytes[at + 18] as number, ino);
      }
      at += recordLength;
    }
  }
}

/**
 * Opens, within a visitor of {@link readDirectory}, the entry whose name begins at `start`: without a copy of the name. A
 * descriptor or a negative errno.
 */
export function openListed(dirfd: number, start: number, flags: number): number {
  return c.openat(dirfd, (direntBuffer as Region).address + start, flags | O_CLOEXEC, 0);
}

/** Reads no more of the directory open at `fd` than sets its atime by the rules of its mount. 0 or a negative errno. */
export function touchDirectory(fd: number): number {
  const rewound = c.lseek(fd, 0, 0);
  if (rewound < 0) return rewound;
  return Math.min(0, c.getdents(fd, small.address, SHORT_READ));
}

/** Room for the longest name and some more. */
const SHORT_READ = 512;

/** Opens a directory descriptor again as readable, at its start: O_PATH descriptors cannot be listed. */
export function reopenDirectory(fd: number): number {
  return openAt(fd, dot, O_RDONLY | O_DIRECTORY);
}

const dot = Buffer.from(".");
export const noName: Uint8Array = empty;
