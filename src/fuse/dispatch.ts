// The op table: one line per opcode says what the message holds, which operation it is and how the reply is encoded.
// Never: an exception past handle(), a reply to FORGET, a request without a reply that the kernel waits for.
// A missing operation, and every opcode without a line here, is ENOSYS; a message too short for its opcode is EINVAL.
import { Errno, toErrno } from "../base/errno.js";
import type { Logger } from "../base/log.js";
import * as abi from "./abi.js";
import { Op } from "./abi.js";
import type { Counters } from "./counters.js";
import { type FileSystem, SUSPENDED } from "./operations.js";
import { type Exchange, isTooLong } from "./wire.js";

/** Result of an operation that must not be answered. */
const NO_REPLY = -0x4000_0001;
/** The kernel refuses replies with errnos from here on. */
const ERRNO_LIMIT = 512;
/** Longest copy asked of the filesystem at once; a short copy is continued by the caller. */
const COPY_LIMIT = 0x7fff_f000;

type Run = (x: Exchange, fs: FileSystem) => number;
/** Which nodeids a successful reply has handed to the kernel. */
type Gives = "entry" | "listing" | undefined;
type Row = readonly [
  opcode: number,
  method: keyof FileSystem,
  inLength: number,
  names: 0 | 1 | 2,
  run: Run,
  gives?: Gives,
];

const { SetattrIn, MknodIn, MkdirIn, Rename2In, OpenIn, CreateIn, ReadIn, FallocateIn, LseekIn } = abi;

// biome-ignore format: a table, one line per opcode
const rows: readonly Row[] = [
  [Op.LOOKUP,      "lookup",      0,                        1, (x, fs) => x.entryBody(fs.lookup(x.request, x.name, x.emptyEntry())), "entry"],
  [Op.FORGET,      "forget",      abi.ForgetIn.byteLength,  0, (x, fs) => forget(x, fs)],
  [Op.BATCH_FORGET, "forget",     abi.BatchForgetIn.byteLength, 0, (x, fs) => batchForget(x, fs)],
  [Op.GETATTR,     "getattr",     0,                        0, (x, fs) => x.attrBody(fs.getattr(x.request, x.emptyAttr()))],
  [Op.STATX,       "statx",       abi.StatxIn.byteLength,   0, (x, fs) => x.statxBody(fs.statx!(x.request, x.emptyStatx()))],
  [Op.SETATTR,     "setattr",     SetattrIn.byteLength,     0, (x, fs) => x.attrBody(fs.setattr!(x.request, x.decodeSetattr(), x.emptyAttr()))],
  [Op.READLINK,    "readlink",    0,                        0, (x, fs) => x.dataBody(fs.readlink!(x.request, x.emptyData(4095)))],
  [Op.MKNOD,       "mknod",       MknodIn.byteLength,       1, (x, fs) => x.entryBody(fs.mknod!(x.request, x.name, x.u32(MknodIn.mode), x.u32(MknodIn.rdev), x.u32(MknodIn.umask), x.emptyEntry())), "entry"],
  [Op.MKDIR,       "mkdir",       MkdirIn.byteLength,       1, (x, fs) => x.entryBody(fs.mkdir!(x.request, x.name, x.u32(MkdirIn.mode), x.u32(MkdirIn.umask), x.emptyEntry())), "entry"],
  [Op.SYMLINK,     "symlink",     0,                        2, (x, fs) => x.entryBody(fs.symlink!(x.request, x.name, x.name2, x.emptyEntry())), "entry"],
  [Op.UNLINK,      "unlink",      0,                        1, (x, fs) => x.noBody(fs.unlink!(x.request, x.name))],
  [Op.RMDIR,       "rmdir",       0,                        1, (x, fs) => x.noBody(fs.rmdir!(x.request, x.name))],
  [Op.RENAME,      "rename",      abi.RenameIn.byteLength,  2, (x, fs) => rename(x, fs, 0)],
  [Op.RENAME2,     "rename",      Rename2In.byteLength,     2, (x, fs) => rename(x, fs, x.u32(Rename2In.flags))],
  [Op.LINK,        "link",        abi.LinkIn.byteLength,    1, (x, fs) => x.entryBody(fs.link!(x.request, x.u64(abi.LinkIn.oldnodeid), x.name, x.emptyEntry())), "entry"],
  [Op.OPEN,        "open",        OpenIn.byteLength,        0, (x, fs) => x.openBody(fs.open!(x.request, x.u32(OpenIn.flags), (x.u32(OpenIn.openFlags) & abi.OPEN_KILL_SUIDGID) !== 0, x.emptyOpen()))],
  [Op.CREATE,      "create",      CreateIn.byteLength,      1, (x, fs) => x.createBody(fs.create!(x.request, x.name, x.u32(CreateIn.flags), x.u32(CreateIn.mode), x.u32(CreateIn.umask), x.emptyEntry(), x.emptyOpen())), "entry"],
  [Op.TMPFILE,     "tmpfile",     CreateIn.byteLength,      0, (x, fs) => x.createBody(fs.tmpfile!(x.request, x.u32(CreateIn.flags), x.u32(CreateIn.mode), x.u32(CreateIn.umask), x.emptyEntry(), x.emptyOpen())), "entry"],
  [Op.READ,        "read",        ReadIn.byteLength,        0, (x, fs) => x.dataBody(fs.read!(x.request, x.u64(ReadIn.fh), x.u64(ReadIn.offset), x.emptyData(x.u32(ReadIn.size))))],
  [Op.WRITE,       "write",       abi.WriteIn.byteLength,   0, (x, fs) => write(x, fs)],
  [Op.FLUSH,       "flush",       abi.FlushIn.byteLength,   0, (x, fs) => x.noBody(fs.flush!(x.request, x.u64(abi.FlushIn.fh)))],
  [Op.RELEASE,     "release",     abi.ReleaseIn.byteLength, 0, (x, fs) => x.noBody(fs.release!(x.request, x.u64(abi.ReleaseIn.fh)))],
  [Op.FSYNC,       "fsync",       abi.FsyncIn.byteLength,   0, (x, fs) => x.noBody(fs.fsync!(x.request, x.u64(abi.FsyncIn.fh), (x.u32(abi.FsyncIn.fsyncFlags) & abi.FSYNC_FDATASYNC) !== 0))],
  [Op.FALLOCATE,   "fallocate",   FallocateIn.byteLength,   0, (x, fs) => x.noBody(fs.fallocate!(x.request, x.u64(FallocateIn.fh), x.u32(FallocateIn.mode), x.u64(FallocateIn.offset), x.u64(FallocateIn.length)))],
  [Op.LSEEK,       "lseek",       LseekIn.byteLength,       0, (x, fs) => x.countBody(fs.lseek!(x.request, x.u64(LseekIn.fh), x.u64(LseekIn.offset), x.u32(LseekIn.whence)))],
  [Op.COPY_FILE_RANGE,    "copyFileRange", abi.CopyFileRangeIn.byteLength, 0, (x, fs) => copyFileRange(x, fs)],
  [Op.COPY_FILE_RANGE_64, "copyFileRange", abi.CopyFileRangeIn.byteLength, 0, (x, fs) => copyFileRange(x, fs)],
  [Op.OPENDIR,     "opendir",     OpenIn.byteLength,        0, (x, fs) => x.openBody(fs.opendir!(x.request, x.u32(OpenIn.flags), x.emptyOpen()))],
  [Op.READDIR,     "readdir",     ReadIn.byteLength,        0, (x, fs) => readdir(x, fs, false)],
  [Op.READDIRPLUS, "readdir",     ReadIn.byteLength,        0, (x, fs) => readdir(x, fs, true), "listing"],
  [Op.RELEASEDIR,  "releasedir",  abi.ReleaseIn.byteLength, 0, (x, fs) => x.noBody(fs.releasedir!(x.request, x.u64(abi.ReleaseIn.fh)))],
  [Op.FSYNCDIR,    "fsyncdir",    abi.FsyncIn.byteLength,   0, (x, fs) => x.noBody(fs.fsyncdir!(x.request, x.u64(abi.FsyncIn.fh), (x.u32(abi.FsyncIn.fsyncFlags) & abi.FSYNC_FDATASYNC) !== 0))],
  [Op.SYNCFS,      "syncfs",      0,                        0, (x, fs) => x.noBody(fs.syncfs!(x.request))],
  [Op.STATFS,      "statfs",      0,                        0, (x, fs) => x.statfsBody(fs.statfs!(x.request, x.statfs))],
  [Op.GETXATTR,    "getxattr",    abi.GetxattrIn.byteLength, 1, (x, fs) => getxattr(x, fs)],
  [Op.LISTXATTR,   "listxattr",   abi.GetxattrIn.byteLength, 0, (x, fs) => x.xattrBody(fs.listxattr!(x.request, x.emptyData(x.u32(abi.GetxattrIn.size))), x.u32(abi.GetxattrIn.size))],
  [Op.SETXATTR,    "setxattr",    abi.SetxattrInCompat.byteLength, 0, (x, fs) => setxattr(x, fs)],
  [Op.REMOVEXATTR, "removexattr", 0,                        1, (x, fs) => x.noBody(fs.removexattr!(x.request, x.name))],
];

function forget(x: Exchange, fs: FileSystem): number {
  fs.forget(x.request.nodeid, x.u64(abi.ForgetIn.nlookup));
  return NO_REPLY;
}

function batchForget(x: Exchange, fs: FileSystem): number {
  const room = Math.floor((x.bodyLength - abi.BatchForgetIn.byteLength) / abi.ForgetOne.byteLength);
  const count = Math.min(x.u32(abi.BatchForgetIn.count), room);
  for (let i = 0; i < count; i++) {
    const at = abi.BatchForgetIn.byteLength + i * abi.ForgetOne.byteLength;
    fs.forget(x.u64(at + abi.ForgetOne.nodeid), x.u64(at + abi.ForgetOne.nlookup));
  }
  return NO_REPLY;
}

function rename(x: Exchange, fs: FileSystem, flags: number): number {
  if (isTooLong(x.name2)) return -Errno.ENAMETOOLONG;
  return x.noBody(fs.rename!(x.request, x.name, x.u64(abi.RenameIn.newdir), x.name2, flags));
}

function write(x: Exchange, fs: FileSystem): number {
  const data = x.payload(abi.WriteIn.byteLength, x.u32(abi.WriteIn.size));
  if (data === undefined) return -Errno.EINVAL;
  const flags = x.u32(abi.WriteIn.writeFlags);
  return x.countBody(
    fs.write!(
      x.request,
      x.u64(abi.WriteIn.fh),
      x.u64(abi.WriteIn.offset),
      data,
      (flags & abi.WRITE_CACHE) !== 0,
      (flags & abi.WRITE_KILL_SUIDGID) !== 0,
    ),
  );
}

function readdir(x: Exchange, fs: FileSystem, plus: boolean): number {
  const sink = x.emptySink(x.u32(ReadIn.size), plus);
  return x.directoryBody(fs.readdir!(x.request, x.u64(ReadIn.fh), x.u64(ReadIn.offset), sink));
}

function copyFileRange(x: Exchange, fs: FileSystem): number {
  const { fhIn, offsetIn, nodeidOut, fhOut, offsetOut, length, flags } = abi.CopyFileRangeIn;
  return x.countBody(
    fs.copyFileRange!(
      x.request,
      x.u64(fhIn),
      x.u64(offsetIn),
      x.u64(nodeidOut),
      x.u64(fhOut),
      x.u64(offsetOut),
      Math.min(x.u64(length), COPY_LIMIT),
      x.u64(flags),
    ),
  );
}

function getxattr(x: Exchange, fs: FileSystem): number {
  const size = x.u32(abi.GetxattrIn.size);
  return x.xattrBody(fs.getxattr!(x.request, x.name, x.emptyData(size)), size);
}

function setxattr(x: Exchange, fs: FileSystem): number {
  const malformed = x.bodyLength < x.setxattrLength ? -Errno.EINVAL : x.findNames(x.setxattrLength, 1);
  if (malformed < 0) return malformed;
  const value = x.payload(x.nameEnd(x.name), x.u32(abi.SetxattrIn.size));
  if (value === undefined) return -Errno.EINVAL;
  const extended = x.setxattrLength === abi.SetxattrIn.byteLength;
  const killSgid = extended && (x.u32(abi.SetxattrIn.setxattrFlags) & abi.SETXATTR_ACL_KILL_SGID) !== 0;
  return x.noBody(fs.setxattr!(x.request, x.name, value, x.u32(abi.SetxattrIn.flags), killSgid));
}

const opcodeNames = new Map<number, string>(Object.entries(Op).map(([name, opcode]) => [opcode, name]));

/** Decodes, calls and encodes; one filesystem, one exchange. */
export class Dispatcher {
  private readonly table: ReadonlyArray<Row | undefined>;
  private readonly x: Exchange;
  private readonly fs: FileSystem;
  private readonly counters: Counters;
  private readonly log: Logger;
  private succeeded = false;

  constructor(x: Exchange, fs: FileSystem, counters: Counters, log: Logger) {
    this.x = x;
    this.fs = fs;
    this.counters = counters;
    this.log = log;
    const table = new Array<Row | undefined>(abi.OPCODE_LIMIT).fill(undefined);
    for (const row of rows) if (fs[row[1]] !== undefined) table[row[0]] = row;
    this.table = table;
  }

  /** Serves the request loaded in the exchange. Bytes of reply to write, 0 when there is none to be written now. */
  handle(): number {
    const { x, counters } = this;
    const { opcode } = x;
    const row = opcode < this.table.length ? this.table[opcode] : undefined;
    let result: number;
    if (row === undefined) result = -Errno.ENOSYS;
    else {
      try {
        result = this.run(row);
      } catch (cause) {
        result = -toErrno(cause, (error) => this.tellUnexpected(error));
        if (row[1] === "forget") result = NO_REPLY;
      }
    }
    if (result === SUSPENDED || result === NO_REPLY) return 0;
    if (result < 0) {
      counters.error(opcode);
      if (result <= -ERRNO_LIMIT) {
        this.log.error("filesystem returned no errno", { op: this.opName(), status: result });
        result = -Errno.EIO;
      }
    }
    this.succeeded = result >= 0;
    return x.seal(result);
  }

  private run(row: Row): number {
    const { x } = this;
    if (x.bodyLength < row[2]) return row[1] === "forget" ? NO_REPLY : -Errno.EINVAL;
    if (row[3] !== 0) {
      const malformed = x.findNames(row[2], row[3]);
      if (malformed < 0) return malformed;
      if (isTooLong(x.name)) return -Errno.ENAMETOOLONG;
    }
    return row[4](x, this.fs);
  }

  /**
   * The kernel has not taken the reply just sealed: lookups it would have counted are forgotten again.
   */
  undo(): void {
    const { x, fs } = this;
    const gives = this.succeeded ? this.table[x.opcode]?.[5] : undefined;
    if (gives === "entry" && x.entry.nodeid !== 0) fs.forget(x.entry.nodeid, 1);
    else if (gives === "listing") x.eachListedNode((nodeid) => fs.forget(nodeid, 1));
  }

  /** One line; where the error came from only for who looks for it. */
  private tellUnexpected(error: unknown): void {
    const { level } = this.log;
    const reason = error instanceof Error ? error.message : String(error);
    const detail = level === "debug" || level === "trace" ? { error } : { reason };
    this.log.error("unexpected error", { op: this.opName(), ...detail });
  }

  opName(): string {
    return opcodeNames.get(this.x.opcode) ?? String(this.x.opcode);
  }
}
