// The FileSystem interface: what a transport asks of a filesystem. Inode based, in the kernel's terms: nodeid is the
// kernel's handle on an inode (1 is the root), ino is st_ino, fh a handle on an open file.
//
// Calling rules, for both sides:
// - Every operation is synchronous and returns a Status: 0 (for write, copyFileRange and lseek a count or position),
//   a negative errno, or SUSPENDED. It may also throw FsError; anything else thrown is logged and becomes EIO.
// - Arguments and `out` records are owned by the transport and reused for the next request: read and fill them during
//   the call, never keep them.
// - Nothing here knows the wire format; the direct transport, the fuse-native adapter and tests call it alike.

/** 0 or a count for success, a negative errno for failure, or {@link SUSPENDED}. */
export type Status = number;

/** The request has been taken by {@link Services}: a reply comes later. Outside the range of errnos. */
export const SUSPENDED: Status = -0x4000_0000;

/** One request's header, in the ids of the mount (FUSE_IN_HEADER). */
export interface Request {
  /** Kernel's number of this request; 0 where the transport has none. */
  unique: number;
  /** The inode the operation is about; for operations on a name, its directory. */
  nodeid: number;
  uid: number;
  gid: number;
  pid: number;
}

/** A name inside a larger buffer, without terminator: bytes [start, end). */
export interface NameView {
  bytes: Uint8Array;
  start: number;
  end: number;
}

/** Attributes of an inode. Times are seconds (may be negative) and nanoseconds in [0, 1e9). */
export interface Attr {
  /** st_ino, below 2**53. */
  ino: number;
  size: number;
  /** Units of 512 bytes. */
  blocks: number;
  atimeSec: number;
  atimeNsec: number;
  mtimeSec: number;
  mtimeNsec: number;
  ctimeSec: number;
  ctimeNsec: number;
  /** Type and permission bits, as st_mode. */
  mode: number;
  nlink: number;
  uid: number;
  gid: number;
  /** The kernel's 32-bit device encoding. */
  rdev: number;
  blksize: number;
}

/** Reply to what names an inode. nodeid 0 with status 0 is a negative entry the kernel may cache. */
export interface Entry {
  nodeid: number;
  generation: number;
  /** Seconds the kernel may keep the name, and the attributes; Infinity for as long as it likes. */
  entryTimeout: number;
  attrTimeout: number;
  readonly attr: Attr;
}

/** Reply to getattr and setattr. */
export interface AttrReply {
  attrTimeout: number;
  readonly attr: Attr;
}

/** Reply to statx: the attributes, and the time of birth where there is one to tell. */
export interface StatxReply extends AttrReply {
  born: boolean;
  btimeSec: number;
  btimeNsec: number;
}

/** Reply to open, opendir and create. */
export interface Open {
  fh: number;
  /** FOPEN_* bits (src/fuse/abi.ts). */
  openFlags: number;
}

/** What to change, each present by its bit in `valid` (FATTR_*). */
export interface SetAttr {
  valid: number;
  fh: number;
  size: number;
  atimeSec: number;
  atimeNsec: number;
  mtimeSec: number;
  mtimeNsec: number;
  ctimeSec: number;
  ctimeNsec: number;
  /** Permission bits, the type bits not to be trusted. */
  mode: number;
  uid: number;
  gid: number;
}

/** Bits of {@link SetAttr.valid} (include/uapi/linux/fuse.h). */
export const FATTR_MODE = 1 << 0;
export const FATTR_UID = 1 << 1;
export const FATTR_GID = 1 << 2;
export const FATTR_SIZE = 1 << 3;
export const FATTR_ATIME = 1 << 4;
export const FATTR_MTIME = 1 << 5;
export const FATTR_FH = 1 << 6;
export const FATTR_ATIME_NOW = 1 << 7;
export const FATTR_MTIME_NOW = 1 << 8;
export const FATTR_LOCKOWNER = 1 << 9;
export const FATTR_CTIME = 1 << 10;
export const FATTR_KILL_SUIDGID = 1 << 11;

/**
 * Where read, readlink and the xattr calls put bytes: native memory of `capacity` bytes at `address`, the same bytes
 * in `bytes` from index `start`. The operation sets `length`.
 */
export interface DataOut {
  address: number;
  bytes: Uint8Array;
  start: number;
  capacity: number;
  length: number;
}

/** The bytes of a write or of an xattr value: native memory at `address`, the same in `bytes` [start, start+length). */
export interface DataIn {
  address: number;
  bytes: Uint8Array;
  start: number;
  length: number;
}

/** Takes the entries of readdir and readdirplus in order. */
export interface DirectorySink {
  /** True for readdirplus: the filesystem fills {@link entry} before each {@link add}. */
  readonly plus: boolean;
  /** Reply to the lookup that readdirplus does on the way. nodeid 0: no lookup was done for this name. */
  readonly entry: Entry;
  /**
   * Adds one name. `next` is the offset that continues after it (non-zero). Returns false, and adds nothing, when the
   * buffer is full: then the lookup of readdirplus must not be counted. `.` and `..` never count a lookup.
   */
  add(bytes: Uint8Array, start: number, end: number, type: number, ino: number, next: number): boolean;
}

/** Counts for statfs, blocks in units of `frsize` bytes. */
export interface StatfsReply {
  blocks: number;
  bfree: number;
  bavail: number;
  files: number;
  ffree: number;
  bsize: number;
  namelen: number;
  frsize: number;
}

/** What was agreed with the kernel at INIT. */
export interface ConnectionInfo {
  readonly protocolMinor: number;
  /** FUSE_INIT flags in force, flags2 as bits from 2**32. */
  readonly flags: bigint;
  readonly maxWrite: number;
}

/**
 * What may block or take long, for a helper thread. Descriptors must stay open until it has ended; one that is `owned`
 * is the job's, which closes it.
 */
export type Job =
  | { readonly kind: "fsync"; readonly fd: number; readonly dataOnly: boolean; readonly owned?: boolean }
  | { readonly kind: "syncfs"; readonly fd: number }
  | {
      readonly kind: "fallocate";
      readonly fd: number;
      readonly mode: number;
      readonly offset: number;
      readonly length: number;
      readonly owned?: boolean;
    }
  | {
      /** Copies byte ranges between files, flat triples [fromOffset, toOffset, length]; then `to` is synced on demand. */
      readonly kind: "copy";
      readonly from: number;
      readonly to: number;
      readonly ranges: readonly number[];
      readonly sync: boolean;
    }
  /** Waits. */
  | { readonly kind: "pause"; readonly milliseconds: number }
  /** The filesystem's own: plain data for the module it names, see {@link FileSystem.helperModule}. */
  | { readonly kind: "own"; readonly task: unknown };

/** How a job ended. */
export interface JobResult {
  readonly status: Status;
  /** What is wrong with what, for the log; only of jobs of the filesystem's own. */
  readonly problem?: string;
}

/** What {@link FileSystem.helperModule} exports as `runTask`: does a task in the thread that calls it; never throws. */
export type RunTask = (task: unknown) => JobResult;

/** What a transport offers to its filesystem. */
export interface Services {
  /**
   * Hands the current request to a helper thread: it runs `job` and itself replies with the job's status and no body.
   * The operation returns what this returns.
   */
  offload(q: Request, job: Job): Status;
  /**
   * Runs `job` in a helper thread, then `done(status)` in the filesystem's own thread, then the current request again
   * from its start, and with it every request suspended on the same key meanwhile, in their order.
   * The operation returns what this returns.
   */
  suspend(q: Request, key: number, job: Job, done: (status: Status, problem?: string) => void): Status;
  /**
   * Begins a job that holds `key`, which no other does, before any request waits for it: those that want to call
   * {@link suspendBehind}. A `long` one does not keep short ones waiting. False when it is better done by the caller:
   * no helper thread runs yet, or transports have none.
   */
  begin?(key: number, job: Job, long: boolean, done: (result: JobResult) => void): boolean;
  /** Suspends the current request behind the job that holds `key`; undefined when none does. */
  suspendBehind(q: Request, key: number): Status | undefined;
  /** True when no other request waits to be served, so that a moment of work holds up nobody. */
  idle?(): boolean;
  /** True once the kernel has sent an interrupt for this request. */
  interrupted(unique: number): boolean;
  /** Drops what the kernel caches of an inode: attributes, and pages from `offset` (length 0 to the end; offset -1 none). */
  invalidateInode(nodeid: number, offset: number, length: number): Status;
  /** Drops a cached name, positive or negative. Never call it for a directory that the current request holds. */
  invalidateEntry(parent: number, name: Uint8Array): Status;
}

/** What a filesystem asks the kernel for at INIT, beyond what every filesystem here gets. Absent means no. */
export interface Features {
  /**
   * POSIX ACLs: the kernel checks them and sends `system.posix_acl_*` xattrs. Then it leaves the umask to the
   * filesystem: mknod, mkdir, create and tmpfile get the unmasked mode, to be masked unless a default ACL applies.
   * Without this, modes come masked.
   */
  readonly posixAcl?: boolean;
  /** lookup answers the names `.` and `..` for any nodeid it has issued, so file handles outlive the kernel's cache. */
  readonly export?: boolean;
  /** Owners, modes and kinds in it may be the word of somebody who could not give them: setuid and devices must not work. */
  readonly untrusted?: boolean;
  /**
   * write may do a part of what it is asked for. The kernel then sends writes that bypass its cache (O_DIRECT) one after the
   * other: of several at once it makes EIO where one is short (fuse_get_res_by_io).
   */
  readonly shortWrites?: boolean;
}

/** Figures of what a filesystem keeps in memory, for who watches the mount. Filled in after each request: must be cheap. */
export interface Gauges {
  /** At most 16. */
  readonly names: readonly string[];
  /** Puts the figures into `cells`, in the order of their names. */
  fill(cells: Float64Array): void;
}

/**
 * A filesystem. Operations that are absent answer ENOSYS, which the kernel remembers for the optional ones.
 * Directory offsets are opaque to callers, 0 is the start.
 */
export interface FileSystem {
  readonly features?: Features;
  readonly gauges?: Gauges;
  /** URL of a module that does the filesystem's own jobs in helper threads: it exports {@link RunTask}. */
  readonly helperModule?: string | undefined;
  init?(info: ConnectionInfo, services: Services): void;
  /**
   * The connection has ended; release everything. Called once, also after an error. `unfinished` when helper threads go on
   * with what they were given, or have been given up.
   */
  destroy?(unfinished?: boolean): void;

  lookup(q: Request, name: NameView, out: Entry): Status;
  /** The kernel drops `count` lookups of a nodeid. */
  forget(nodeid: number, count: number): void;
  getattr(q: Request, out: AttrReply): Status;
  /** Asked instead of getattr where a program wants the time of birth. */
  statx?(q: Request, out: StatxReply): Status;
  setattr?(q: Request, set: SetAttr, out: AttrReply): Status;
  readlink?(q: Request, out: DataOut): Status;
  mknod?(q: Request, name: NameView, mode: number, rdev: number, umask: number, out: Entry): Status;
  mkdir?(q: Request, name: NameView, mode: number, umask: number, out: Entry): Status;
  symlink?(q: Request, name: NameView, target: NameView, out: Entry): Status;
  unlink?(q: Request, name: NameView): Status;
  rmdir?(q: Request, name: NameView): Status;
  rename?(q: Request, name: NameView, newParent: number, newName: NameView, flags: number): Status;
  /** A new name in directory q.nodeid for the inode `nodeid`. */
  link?(q: Request, nodeid: number, newName: NameView, out: Entry): Status;

  /** `flags` are the O_* flags of open(2); `killSuidgid` asks for clearing setuid and setgid with O_TRUNC. */
  open?(q: Request, flags: number, killSuidgid: boolean, out: Open): Status;
  create?(
    q: Request,
    name: NameView,
    flags: number,
    mode: number,
    umask: number,
    entry: Entry,
    open: Open,
  ): Status;
  /** O_TMPFILE in directory q.nodeid: an open file without a name, nlink 0, that link may name later. */
  tmpfile?(q: Request, flags: number, mode: number, umask: number, entry: Entry, open: Open): Status;
  read?(q: Request, fh: number, offset: number, out: DataOut): Status;
  /** The count written. `fromCache` marks pages the kernel writes back for a mapping or its cache. */
  write?(
    q: Request,
    fh: number,
    offset: number,
    data: DataIn,
    fromCache: boolean,
    killSuidgid: boolean,
  ): Status;
  /** close(2) of one descriptor: errors of earlier writes may be told here. */
  flush?(q: Request, fh: number): Status;
  release?(q: Request, fh: number): Status;
  fsync?(q: Request, fh: number, dataOnly: boolean): Status;
  fallocate?(q: Request, fh: number, mode: number, offset: number, length: number): Status;
  /** The position found, for SEEK_DATA (3) and SEEK_HOLE (4). */
  lseek?(q: Request, fh: number, offset: number, whence: number): Status;
  /** The count copied into `toNodeid`/`toFh`. */
  copyFileRange?(
    q: Request,
    fh: number,
    offset: number,
    toNodeid: number,
    toFh: number,
    toOffset: number,
    length: number,
    flags: number,
  ): Status;

  opendir?(q: Request, flags: number, out: Open): Status;
  /** Adds entries from directory offset `offset` on until the sink is full or the directory ends. */
  readdir?(q: Request, fh: number, offset: number, sink: DirectorySink): Status;
  releasedir?(q: Request, fh: number): Status;
  fsyncdir?(q: Request, fh: number, dataOnly: boolean): Status;
  syncfs?(q: Request): Status;
  statfs?(q: Request, out: StatfsReply): Status;

  /** `out.capacity` 0 asks for the size alone: then set `length` to it. Too small a buffer is ERANGE. */
  getxattr?(q: Request, name: NameView, out: DataOut): Status;
  /** Names, each with a NUL; sizes as in getxattr. */
  listxattr?(q: Request, out: DataOut): Status;
  /** `flags`: XATTR_CREATE, XATTR_REPLACE; `killSgid` comes with an ACL that takes the setgid bit away. */
  setxattr?(q: Request, name: NameView, value: DataIn, flags: number, killSgid: boolean): Status;
  removexattr?(q: Request, name: NameView): Status;
}

/** A zeroed Attr. */
export function emptyAttr(): Attr {
  return {
    ino: 0,
    size: 0,
    blocks: 0,
    atimeSec: 0,
    atimeNsec: 0,
    mtimeSec: 0,
    mtimeNsec: 0,
    ctimeSec: 0,
    ctimeNsec: 0,
    mode: 0,
    nlink: 0,
    uid: 0,
    gid: 0,
    rdev: 0,
    blksize: 4096,
  };
}

/** A zeroed Entry with infinite timeouts. */
export function emptyEntry(): Entry {
  return { nodeid: 0, generation: 0, entryTimeout: Infinity, attrTimeout: Infinity, attr: emptyAttr() };
}

/** A SetAttr that changes nothing. */
export function emptySetAttr(): SetAttr {
  return {
    valid: 0,
    fh: 0,
    size: 0,
    atimeSec: 0,
    atimeNsec: 0,
    mtimeSec: 0,
    mtimeNsec: 0,
    ctimeSec: 0,
    ctimeNsec: 0,
    mode: 0,
    uid: 0,
    gid: 0,
  };
}
