// libfuse 2's operations by path, each told to a FileSystem in its own terms: what dispatch.ts is for the kernel's
// protocol. One row an operation: its name, the opcode it is counted as, what the filesystem must have for it, what goes
// back to the addon, and how it is served. The results lie in the exchange when `run` returns.
// Without the caller's ids: everything is asked as the user who runs this process, after the kernel has checked
// permissions. New objects are that user's, so setuid and setgid are not taken over from their mode.
import { Errno } from "../../base/errno.js";
import { Op } from "../abi.js";
import {
  FATTR_ATIME,
  FATTR_FH,
  FATTR_GID,
  FATTR_MODE,
  FATTR_MTIME,
  FATTR_SIZE,
  FATTR_UID,
  type FileSystem,
  type NameView,
  type StatfsReply,
  type Status,
} from "../operations.js";
import { putStat, putStatfs } from "./attributes.js";
import type { NativeExchange } from "./exchange.js";
import { type NativeThread, ThreadRecord } from "./library.js";
import { Listing } from "./listing.js";
import { isFaithful, ROOT, viewOf } from "./paths.js";

const HIGH = 0x1_0000_0000;
const KEEP_ID = 0xffff_ffff;
const O_RDWR = 2;
const O_CREAT = 0o100;
const S_ISUID_ISGID = 0o6000;
const LINK_MAX = 4095;

/** An argument as the addon gives it: text, a number or a buffer; which, depends on the operation. */
export type Argument = string & number & Buffer;
export type Arguments = readonly [Argument, Argument, Argument, Argument, Argument, Argument];

/** What the addon takes after the status. */
export type Gives = "nothing" | "stat" | "statfs" | "listing" | "target" | "handle" | "value" | "data";

export interface Row {
  readonly name: string;
  readonly opcode: number;
  readonly needs: keyof FileSystem;
  readonly gives: Gives;
  /** `thread` is the request's record in the addon. */
  run(x: NativeExchange, args: Arguments, thread: NativeThread): Status;
  /** The argument that is the addon's buffer, which it gets back. */
  readonly buffer: number;
}

const row = (
  name: string,
  opcode: number,
  needs: keyof FileSystem,
  gives: Gives,
  run: Row["run"],
  buffer = 0,
): Row => ({ name, opcode, needs, gives, run, buffer });

// biome-ignore format: a table, one line per operation
export const rows: readonly Row[] = [
  row("getattr",     Op.GETATTR,     "getattr",     "stat",    (x, [path]) => getattr(x, path, x.paths.resolve(path))),
  row("fgetattr",    Op.GETATTR,     "getattr",     "stat",    (x, [path, handle]) => getattr(x, path, x.at(path, handle))),
  row("statfs",      Op.STATFS,      "statfs",      "statfs",  (x) => statfs(x)),
  row("readdir",     Op.READDIR,     "readdir",     "listing", (x, [path]) => readdir(x, path)),
  row("readlink",    Op.READLINK,    "readlink",    "target",  (x, [path]) => readlink(x, path)),
  row("truncate",    Op.SETATTR,     "setattr",     "nothing", (x, [path, low, high]) => truncate(x, x.paths.resolve(path), 0, low + high * HIGH)),
  row("ftruncate",   Op.SETATTR,     "setattr",     "nothing", (x, [path, handle, low, high]) => truncate(x, x.at(path, handle), handle, low + high * HIGH)),
  row("chmod",       Op.SETATTR,     "setattr",     "nothing", (x, [path, mode]) => chmod(x, path, mode)),
  row("chown",       Op.SETATTR,     "setattr",     "nothing", (x, [path, uid, gid]) => chown(x, path, uid, gid)),
  row("utimens",     Op.SETATTR,     "setattr",     "nothing", (x, [path], thread) => utimens(x, path, thread)),
  row("mknod",       Op.MKNOD,       "mknod",       "nothing", (x, [path, mode, rdev]) => make(x, path, (name) => x.fs.mknod!(x.request, name, mode & ~S_ISUID_ISGID, rdev, 0, x.emptyEntry()))),
  row("mkdir",       Op.MKDIR,       "mkdir",       "nothing", (x, [path, mode]) => make(x, path, (name) => x.fs.mkdir!(x.request, name, mode, 0, x.emptyEntry()))),
  row("symlink",     Op.SYMLINK,     "symlink",     "nothing", (x, [target, path]) => symlink(x, target, path)),
  row("link",        Op.LINK,        "link",        "nothing", (x, [from, to]) => link(x, from, to)),
  row("unlink",      Op.UNLINK,      "unlink",      "nothing", (x, [path]) => x.paths.dropAlias(path) ? 0 : remove(x, path, (name) => x.fs.unlink!(x.request, name))),
  row("rmdir",       Op.RMDIR,       "rmdir",       "nothing", (x, [path]) => remove(x, path, (name) => x.fs.rmdir!(x.request, name))),
  row("rename",      Op.RENAME,      "rename",      "nothing", (x, [from, to]) => rename(x, from, to)),
  row("create",      Op.CREATE,      "create",      "handle",  (x, [path, mode]) => create(x, path, mode)),
  row("open",        Op.OPEN,        "open",        "handle",  (x, [path, flags]) => open(x, path, flags)),
  row("release",     Op.RELEASE,     "release",     "nothing", (x, [, handle]) => release(x, handle)),
  row("read",        Op.READ,        "read",        "data",    (x, [path, handle, buffer, , low, high]) => read(x, path, handle, buffer, low + high * HIGH), 2),
  row("write",       Op.WRITE,       "write",       "data",    (x, [path, handle, buffer, , low, high]) => write(x, path, handle, buffer, low + high * HIGH), 2),
  row("flush",       Op.FLUSH,       "flush",       "nothing", (x, [path, handle]) => onObject(x.at(path, handle), () => x.fs.flush!(x.request, x.fh(handle)))),
  row("fsync",       Op.FSYNC,       "fsync",       "nothing", (x, [path, dataOnly, handle]) => onObject(x.at(path, handle), () => x.fs.fsync!(x.request, x.fh(handle), dataOnly !== 0))),
  row("fsyncdir",    Op.FSYNCDIR,    "fsyncdir",    "nothing", (x, [path, dataOnly]) => onObject(x.paths.resolve(path), () => x.fs.fsyncdir!(x.request, 0, dataOnly !== 0))),
  row("getxattr",    Op.GETXATTR,    "getxattr",    "value",   (x, [path, name, buffer]) => getxattr(x, path, name, buffer), 2),
  row("listxattr",   Op.LISTXATTR,   "listxattr",   "value",   (x, [path, buffer]) => listxattr(x, path, buffer), 1),
  row("setxattr",    Op.SETXATTR,    "setxattr",    "value",   (x, [path, name, value, , flags]) => setxattr(x, path, name, value, flags), 2),
  row("removexattr", Op.REMOVEXATTR, "removexattr", "nothing", (x, [path, name]) => removexattr(x, path, name)),
];

/** Runs `call` when the object was found. */
function onObject(nodeid: number, call: () => Status): Status {
  return nodeid < 0 ? nodeid : call();
}

function getattr(x: NativeExchange, path: string, nodeid: number): Status {
  if (nodeid < 0) return nodeid;
  let { attr } = x.paths.entry;
  if (x.paths.fresh !== nodeid) {
    const status = x.fs.getattr(x.request, x.attr);
    if (status < 0) return status;
    attr = x.attr.attr;
  }
  // libfuse takes one off the links of a file that it thinks to have renamed: the name it has made up.
  putStat(x.stat, attr, x.paths.isAlias(path) ? attr.nlink + 1 : attr.nlink, x.inodes);
  return 0;
}

function statfs(x: NativeExchange): Status {
  const counts: StatfsReply = {
    blocks: 0,
    bfree: 0,
    bavail: 0,
    files: 0,
    ffree: 0,
    bsize: 4096,
    namelen: 255,
    frsize: 4096,
  };
  x.request.nodeid = ROOT;
  const status = x.fs.statfs!(x.request, counts);
  if (status >= 0) putStatfs(x.statfs, counts);
  return status;
}

function readdir(x: NativeExchange, path: string): Status {
  const nodeid = x.paths.resolve(path);
  if (nodeid < 0) return nodeid;
  const open = x.emptyOpen();
  const opened = x.fs.opendir?.(x.request, 0, open) ?? 0;
  if (opened < 0) return opened;
  const listing = new Listing(x.inodes);
  const status = x.fs.readdir!(x.request, open.fh, 0, listing);
  x.fs.releasedir?.(x.request, open.fh);
  x.listing = listing;
  return status;
}

function readlink(x: NativeExchange, path: string): Status {
  const nodeid = x.paths.resolve(path);
  if (nodeid < 0) return nodeid;
  const data = x.stagedData(LINK_MAX);
  const status = x.fs.readlink!(x.request, data);
  if (status < 0) return status;
  x.target = Buffer.from(data.bytes.buffer, data.bytes.byteOffset + data.start, data.length).toString();
  return isFaithful(x.target) ? 0 : -Errno.EILSEQ;
}

function setattr(x: NativeExchange, nodeid: number): Status {
  return nodeid < 0 ? nodeid : x.fs.setattr!(x.request, x.set, x.attr);
}

function truncate(x: NativeExchange, nodeid: number, handle: number, size: number): Status {
  x.set.valid = handle === 0 ? FATTR_SIZE : FATTR_SIZE | FATTR_FH;
  x.set.fh = x.fh(handle);
  x.set.size = size;
  return setattr(x, nodeid);
}

function chmod(x: NativeExchange, path: string, mode: number): Status {
  x.set.valid = FATTR_MODE;
  x.set.mode = mode;
  return setattr(x, x.paths.resolve(path));
}

function chown(x: NativeExchange, path: string, uid: number, gid: number): Status {
  x.set.valid = (uid === KEEP_ID ? 0 : FATTR_UID) | (gid === KEEP_ID ? 0 : FATTR_GID);
  x.set.uid = uid;
  x.set.gid = gid;
  return setattr(x, x.paths.resolve(path));
}

function utimens(x: NativeExchange, path: string, thread: NativeThread): Status {
  const atime = Number(thread.readBigInt64LE(ThreadRecord.atime));
  const mtime = Number(thread.readBigInt64LE(ThreadRecord.mtime));
  x.set.valid = FATTR_ATIME | FATTR_MTIME;
  x.set.atimeSec = Math.floor(atime / 1000);
  x.set.atimeNsec = (atime - x.set.atimeSec * 1000) * 1e6;
  x.set.mtimeSec = Math.floor(mtime / 1000);
  x.set.mtimeNsec = (mtime - x.set.mtimeSec * 1000) * 1e6;
  return setattr(x, x.paths.resolve(path));
}

/** Makes an object, whose entry the filesystem leaves in the exchange. */
function make(x: NativeExchange, path: string, call: (name: NameView) => Status): Status {
  const name = x.paths.parent(path);
  if (typeof name === "number") return name;
  const status = call(name);
  if (status >= 0) x.paths.learn(path, x.entry);
  return status;
}

function symlink(x: NativeExchange, target: string, path: string): Status {
  if (!isFaithful(target)) return -Errno.EILSEQ;
  const bytes = Buffer.from(target);
  const view: NameView = { bytes, start: 0, end: bytes.length };
  return make(x, path, (name) => x.fs.symlink!(x.request, name, view, x.emptyEntry()));
}

function link(x: NativeExchange, from: string, to: string): Status {
  const nodeid = x.paths.resolve(from);
  if (nodeid < 0) return nodeid;
  return make(x, to, (name) => x.fs.link!(x.request, nodeid, name, x.emptyEntry()));
}

function remove(x: NativeExchange, path: string, call: (name: NameView) => Status): Status {
  const name = x.paths.parent(path);
  if (typeof name === "number") return name;
  const status = call(name);
  if (status >= 0) x.paths.gone(path);
  return status;
}

function rename(x: NativeExchange, from: string, to: string): Status {
  if (x.paths.isHiding(from, to)) return hide(x, from, to);
  const target = x.paths.parent(to);
  if (typeof target === "number") return target;
  const directory = x.request.nodeid;
  const name = x.paths.parent(from);
  if (typeof name === "number") return name;
  const status = x.fs.rename!(x.request, name, directory, target, 0);
  if (status >= 0) x.paths.moved(from, to);
  return status;
}

/** libfuse's removal of an open file: the name goes, and what is open stays until libfuse removes the other name. */
function hide(x: NativeExchange, from: string, to: string): Status {
  const nodeid = x.paths.resolve(from);
  if (nodeid < 0) return nodeid;
  const status = x.fs.unlink === undefined ? -Errno.ENOSYS : unlinkName(x, from);
  if (status < 0) return status;
  x.paths.alias(nodeid, to);
  x.paths.gone(from);
  return 0;
}

function unlinkName(x: NativeExchange, path: string): Status {
  const name = x.paths.parent(path);
  return typeof name === "number" ? name : x.fs.unlink!(x.request, name);
}

/** Only a file that is not there is created, so O_EXCL and O_TRUNC, which the addon drops, would mean nothing. */
function create(x: NativeExchange, path: string, mode: number): Status {
  const status = make(x, path, (name) =>
    x.fs.create!(x.request, name, O_RDWR | O_CREAT, mode & ~S_ISUID_ISGID, 0, x.emptyEntry(), x.emptyOpen()),
  );
  if (status >= 0) keepOpen(x, x.entry.nodeid);
  return status;
}

function open(x: NativeExchange, path: string, flags: number): Status {
  const nodeid = x.paths.resolve(path);
  if (nodeid < 0) return nodeid;
  const status = x.fs.open!(x.request, flags, false, x.emptyOpen());
  if (status >= 0) keepOpen(x, nodeid);
  return status;
}

function keepOpen(x: NativeExchange, nodeid: number): void {
  x.paths.opened(nodeid);
  x.handle = x.handles.add({ nodeid, fh: x.open.fh });
}

function release(x: NativeExchange, number: number): Status {
  const handle = x.handles.remove(number);
  if (handle === undefined) return 0;
  x.request.nodeid = handle.nodeid;
  const status = x.fs.release?.(x.request, handle.fh) ?? 0;
  x.paths.closed(handle.nodeid);
  return status;
}

function read(x: NativeExchange, path: string, handle: number, buffer: Buffer, offset: number): Status {
  const nodeid = x.at(path, handle);
  if (nodeid < 0) return nodeid;
  const data = x.directData(buffer);
  const status = x.fs.read!(x.request, x.fh(handle), offset, data);
  return status < 0 ? status : data.length;
}

function write(x: NativeExchange, path: string, handle: number, buffer: Buffer, offset: number): Status {
  const nodeid = x.at(path, handle);
  if (nodeid < 0) return nodeid;
  return x.fs.write!(x.request, x.fh(handle), offset, x.directValue(buffer), false, false);
}

/** Hands out what the filesystem has put into the staging memory: its length alone for a buffer of none. */
function giveValue(x: NativeExchange, buffer: Buffer, status: Status): Status {
  const { bytes, start, length } = x.data;
  if (status < 0 || buffer.length === 0) return status < 0 ? status : length;
  if (length > buffer.length) return -Errno.ERANGE;
  buffer.set(bytes.subarray(start, start + length));
  return length;
}

function getxattr(x: NativeExchange, path: string, name: string, buffer: Buffer): Status {
  const nodeid = x.paths.resolve(path);
  if (nodeid < 0) return nodeid;
  const view = viewOf(name);
  if (typeof view === "number") return view;
  return giveValue(x, buffer, x.fs.getxattr!(x.request, view, x.stagedData(buffer.length)));
}

function listxattr(x: NativeExchange, path: string, buffer: Buffer): Status {
  const nodeid = x.paths.resolve(path);
  if (nodeid < 0) return nodeid;
  return giveValue(x, buffer, x.fs.listxattr!(x.request, x.stagedData(buffer.length)));
}

/** The kernel passes ACLs on, but does not check them for a filesystem that has not asked it to. */
function isAcl(name: string): boolean {
  return name.startsWith("system.posix_acl_");
}

function setxattr(x: NativeExchange, path: string, name: string, value: Buffer, flags: number): Status {
  const nodeid = x.paths.resolve(path);
  if (nodeid < 0) return nodeid;
  const view = viewOf(name);
  if (typeof view === "number") return view;
  if (isAcl(name)) return -Errno.EOPNOTSUPP;
  return x.fs.setxattr!(x.request, view, x.stagedValue(value), flags, false);
}

function removexattr(x: NativeExchange, path: string, name: string): Status {
  const nodeid = x.paths.resolve(path);
  if (nodeid < 0) return nodeid;
  const view = viewOf(name);
  if (typeof view === "number") return view;
  return isAcl(name) ? -Errno.EOPNOTSUPP : x.fs.removexattr!(x.request, view);
}
