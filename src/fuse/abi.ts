// The kernel's FUSE protocol as data: opcodes, flags and record layouts of include/uapi/linux/fuse.h, 7.31 to 7.45.
// All integers are little-endian in host order (x64, arm64). Nothing here has behaviour; wire.ts reads and writes by
// these tables, and test/fuse/abi.test.ts pins every size.
import { raw, struct, u16, u32, u64 } from "../base/bytes.js";

export const FUSE_ROOT_ID = 1;
export const PROTOCOL_MAJOR = 7;
/** The newest minor version this code has been written against. */
export const PROTOCOL_MINOR = 45;
/** Linux 5.4: the oldest kernel with everything relied on without asking. */
export const PROTOCOL_MINOR_LEAST = 31;

/** Opcodes (enum fuse_opcode). */
export const Op = {
  LOOKUP: 1,
  FORGET: 2,
  GETATTR: 3,
  SETATTR: 4,
  READLINK: 5,
  SYMLINK: 6,
  MKNOD: 8,
  MKDIR: 9,
  UNLINK: 10,
  RMDIR: 11,
  RENAME: 12,
  LINK: 13,
  OPEN: 14,
  READ: 15,
  WRITE: 16,
  STATFS: 17,
  RELEASE: 18,
  FSYNC: 20,
  SETXATTR: 21,
  GETXATTR: 22,
  LISTXATTR: 23,
  REMOVEXATTR: 24,
  FLUSH: 25,
  INIT: 26,
  OPENDIR: 27,
  READDIR: 28,
  RELEASEDIR: 29,
  FSYNCDIR: 30,
  GETLK: 31,
  SETLK: 32,
  SETLKW: 33,
  ACCESS: 34,
  CREATE: 35,
  INTERRUPT: 36,
  BMAP: 37,
  DESTROY: 38,
  IOCTL: 39,
  POLL: 40,
  NOTIFY_REPLY: 41,
  BATCH_FORGET: 42,
  FALLOCATE: 43,
  READDIRPLUS: 44,
  RENAME2: 45,
  LSEEK: 46,
  COPY_FILE_RANGE: 47,
  SETUPMAPPING: 48,
  REMOVEMAPPING: 49,
  SYNCFS: 50,
  TMPFILE: 51,
  STATX: 52,
  COPY_FILE_RANGE_64: 53,
} as const;

/** One more than the largest opcode that is counted and dispatched by table; larger ones are ENOSYS. */
export const OPCODE_LIMIT = 64;

/** INIT flags by bit number; from 32 on they travel in flags2. */
export const InitBit = {
  ASYNC_READ: 0,
  POSIX_LOCKS: 1,
  ATOMIC_O_TRUNC: 3,
  EXPORT_SUPPORT: 4,
  BIG_WRITES: 5,
  DONT_MASK: 6,
  FLOCK_LOCKS: 10,
  AUTO_INVAL_DATA: 12,
  DO_READDIRPLUS: 13,
  READDIRPLUS_AUTO: 14,
  ASYNC_DIO: 15,
  WRITEBACK_CACHE: 16,
  NO_OPEN_SUPPORT: 17,
  PARALLEL_DIROPS: 18,
  POSIX_ACL: 20,
  ABORT_ERROR: 21,
  MAX_PAGES: 22,
  CACHE_SYMLINKS: 23,
  NO_OPENDIR_SUPPORT: 24,
  EXPLICIT_INVAL_DATA: 25,
  HANDLE_KILLPRIV_V2: 28,
  SETXATTR_EXT: 29,
  INIT_EXT: 30,
  SECURITY_CTX: 32,
  CREATE_SUPP_GROUP: 34,
  PASSTHROUGH: 37,
  HAS_RESEND: 39,
} as const;
export type InitFlag = keyof typeof InitBit;

/** Replies to open, opendir and create. */
export const FOPEN_DIRECT_IO = 1 << 0;
export const FOPEN_KEEP_CACHE = 1 << 1;
export const FOPEN_NONSEEKABLE = 1 << 2;
export const FOPEN_CACHE_DIR = 1 << 3;
export const FOPEN_STREAM = 1 << 4;
export const FOPEN_NOFLUSH = 1 << 5;
export const FOPEN_PARALLEL_DIRECT_WRITES = 1 << 6;
export const FOPEN_PASSTHROUGH = 1 << 7;

/** Bits of requests. */
export const OPEN_KILL_SUIDGID = 1 << 0;
export const WRITE_CACHE = 1 << 0;
export const WRITE_KILL_SUIDGID = 1 << 2;
export const FSYNC_FDATASYNC = 1 << 0;
export const SETXATTR_ACL_KILL_SGID = 1 << 0;

/** What a reply to STATX holds (include/uapi/linux/stat.h). */
export const STATX_BASIC_STATS = 0x7ff;
export const STATX_BTIME = 0x800;

/** Codes of unsolicited messages to the kernel, in the error field of their header. */
export const Notify = { POLL: 1, INVAL_INODE: 2, INVAL_ENTRY: 3, STORE: 4, RETRIEVE: 5, DELETE: 6 } as const;

export const InHeader = struct({
  len: u32,
  opcode: u32,
  unique: u64,
  nodeid: u64,
  uid: u32,
  gid: u32,
  pid: u32,
  extensions: u16,
  padding: u16,
});
export const OutHeader = struct({ len: u32, error: u32, unique: u64 });

export const Attr = struct({
  ino: u64,
  size: u64,
  blocks: u64,
  atime: u64,
  mtime: u64,
  ctime: u64,
  atimensec: u32,
  mtimensec: u32,
  ctimensec: u32,
  mode: u32,
  nlink: u32,
  uid: u32,
  gid: u32,
  rdev: u32,
  blksize: u32,
  flags: u32,
});
export const EntryOut = struct({
  nodeid: u64,
  generation: u64,
  entryValid: u64,
  attrValid: u64,
  entryValidNsec: u32,
  attrValidNsec: u32,
  attr: raw(Attr.byteLength),
});
export const AttrOut = struct({ attrValid: u64, attrValidNsec: u32, dummy: u32, attr: raw(Attr.byteLength) });
export const OpenOut = struct({ fh: u64, openFlags: u32, backingId: u32 });
export const WriteOut = struct({ size: u32, padding: u32 });
export const StatfsOut = struct({
  blocks: u64,
  bfree: u64,
  bavail: u64,
  files: u64,
  ffree: u64,
  bsize: u32,
  namelen: u32,
  frsize: u32,
  padding: u32,
  spare: raw(24),
});
export const GetxattrOut = struct({ size: u32, padding: u32 });
export const LseekOut = struct({ offset: u64 });
export const CopyFileRangeOut = struct({ bytesCopied: u64 });
export const Dirent = struct({ ino: u64, off: u64, namelen: u32, type: u32 });

export const InitIn = struct({
  major: u32,
  minor: u32,
  maxReadahead: u32,
  flags: u32,
  flags2: u32,
  unused: raw(44),
});
export const InitOut = struct({
  major: u32,
  minor: u32,
  maxReadahead: u32,
  flags: u32,
  maxBackground: u16,
  congestionThreshold: u16,
  maxWrite: u32,
  timeGran: u32,
  maxPages: u16,
  mapAlignment: u16,
  flags2: u32,
  maxStackDepth: u32,
  requestTimeout: u16,
  unused: raw(22),
});
export const ForgetIn = struct({ nlookup: u64 });
export const BatchForgetIn = struct({ count: u32, dummy: u32 });
export const ForgetOne = struct({ nodeid: u64, nlookup: u64 });
export const GetattrIn = struct({ flags: u32, dummy: u32, fh: u64 });
export const StatxIn = struct({ getattrFlags: u32, reserved: u32, fh: u64, sxFlags: u32, sxMask: u32 });
export const StatxOut = struct({
  attrValid: u64,
  attrValidNsec: u32,
  flags: u32,
  spare: raw(16),
  mask: u32,
  blksize: u32,
  attributes: u64,
  nlink: u32,
  uid: u32,
  gid: u32,
  mode: u16,
  spare0: u16,
  ino: u64,
  size: u64,
  blocks: u64,
  attributesMask: u64,
  atime: u64,
  atimensec: u32,
  spare1: u32,
  btime: u64,
  btimensec: u32,
  spare2: u32,
  ctime: u64,
  ctimensec: u32,
  spare3: u32,
  mtime: u64,
  mtimensec: u32,
  spare4: u32,
  rdevMajor: u32,
  rdevMinor: u32,
  devMajor: u32,
  devMinor: u32,
  spare5: raw(112),
});
export const SetattrIn = struct({
  valid: u32,
  padding: u32,
  fh: u64,
  size: u64,
  lockOwner: u64,
  atime: u64,
  mtime: u64,
  ctime: u64,
  atimensec: u32,
  mtimensec: u32,
  ctimensec: u32,
  mode: u32,
  unused4: u32,
  uid: u32,
  gid: u32,
  unused5: u32,
});
export const MknodIn = struct({ mode: u32, rdev: u32, umask: u32, padding: u32 });
export const MkdirIn = struct({ mode: u32, umask: u32 });
export const RenameIn = struct({ newdir: u64 });
export const Rename2In = struct({ newdir: u64, flags: u32, padding: u32 });
export const LinkIn = struct({ oldnodeid: u64 });
export const OpenIn = struct({ flags: u32, openFlags: u32 });
export const CreateIn = struct({ flags: u32, mode: u32, umask: u32, openFlags: u32 });
export const ReadIn = struct({
  fh: u64,
  offset: u64,
  size: u32,
  readFlags: u32,
  lockOwner: u64,
  flags: u32,
  padding: u32,
});
export const WriteIn = struct({
  fh: u64,
  offset: u64,
  size: u32,
  writeFlags: u32,
  lockOwner: u64,
  flags: u32,
  padding: u32,
});
export const ReleaseIn = struct({ fh: u64, flags: u32, releaseFlags: u32, lockOwner: u64 });
export const FlushIn = struct({ fh: u64, unused: u32, padding: u32, lockOwner: u64 });
export const FsyncIn = struct({ fh: u64, fsyncFlags: u32, padding: u32 });
export const SetxattrIn = struct({ size: u32, flags: u32, setxattrFlags: u32, padding: u32 });
/** What SETXATTR has without SETXATTR_EXT. */
export const SetxattrInCompat = struct({ size: u32, flags: u32 });
export const GetxattrIn = struct({ size: u32, padding: u32 });
export const InterruptIn = struct({ unique: u64 });
export const FallocateIn = struct({ fh: u64, offset: u64, length: u64, mode: u32, padding: u32 });
export const LseekIn = struct({ fh: u64, offset: u64, whence: u32, padding: u32 });
export const CopyFileRangeIn = struct({
  fhIn: u64,
  offsetIn: u64,
  nodeidOut: u64,
  fhOut: u64,
  offsetOut: u64,
  length: u64,
  flags: u64,
});
export const SyncfsIn = struct({ padding: u64 });
export const NotifyInvalInodeOut = struct({ nodeid: u64, offset: u64, length: u64 });
export const NotifyInvalEntryOut = struct({ parent: u64, namelen: u32, flags: u32 });
