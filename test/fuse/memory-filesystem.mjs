// A small writable filesystem in memory, served through the real session in a real daemon. Plain JavaScript, because the
// daemon's worker loads it as it is. Names with a meaning make trouble on purpose:
//   boom-*        lookup throws what no filesystem should throw
//   crash         lookup ends the worker thread
//   bad-status    lookup returns something that is no errno
//   sleep-MS      fsync blocks the whole loop that long (used as the slow disk of another mount)
//   offload*      fsync is handed to a helper, which syncs settings.slowFile
//   suspend*      open waits for a sync of settings.slowFile first; every open is noted in the attribute user.journal
//   refresh       takes commands: "change NAME" and "hide NAME" behind the kernel's back, "inode NAME",
//                 "attributes NAME" and "entry NAME" to tell the kernel
import { openSync, readFileSync } from "node:fs";
import { constants } from "node:os";

const { ENOENT, EEXIST, ENOTEMPTY, ENODATA, ENOTDIR, EISDIR, ERANGE, EINVAL, EINTR, ENXIO, EOPNOTSUPP } =
  constants.errno;
const S_IFMT = 0o170000;
const S_IFDIR = 0o040000;
const S_IFREG = 0o100000;
const S_IFLNK = 0o120000;
const FOPEN_KEEP_CACHE = 2;
const FATTR = { mode: 1, uid: 2, gid: 4, size: 8, atime: 16, mtime: 32, atimeNow: 128, mtimeNow: 256 };
const RENAME_NOREPLACE = 1;
const RENAME_EXCHANGE = 2;

/** A name of the transport as a string with one char per byte. */
const text = (view) => Buffer.from(view.bytes.subarray(view.start, view.end)).toString("latin1");

export function createFileSystem({ options, daemonPid, log }) {
  return new MemoryFileSystem(options.fileSystem.settings ?? {}, daemonPid, log);
}

class MemoryFileSystem {
  constructor(settings, daemonPid, log) {
    if (settings.fail) throw new Error(settings.fail);
    this.settings = settings;
    this.log = log;
    this.features = { posixAcl: settings.posixAcl === true };
    this.nodes = new Map();
    this.next = 1;
    this.journal = [];
    this.handles = new Map();
    this.nextHandle = 1;
    const root = this.make(S_IFDIR | 0o755, 0, 0);
    root.parent = root;
    const stat = readFileSync(`/proc/${daemonPid}/stat`, "latin1");
    this.daemon = `${daemonPid} ${stat.slice(stat.lastIndexOf(")") + 2).split(" ")[19]}`;
    for (const name of settings.files ?? []) this.addFile(root, name, Buffer.from(`content of ${name}\n`));
    for (let i = 0; i < (settings.count ?? 0); i++) this.addFile(root, `file-${i}`, Buffer.alloc(0));
    if (settings.leaveOut) for (const name of settings.leaveOut) this[name] = undefined;
  }

  init(info, services) {
    this.info = info;
    this.services = services;
  }

  destroy() {
    this.log.info("memory filesystem destroyed", { lookups: this.lookups ?? 0 });
  }

  make(mode, uid, gid) {
    const now = Date.now();
    const node = {
      id: this.next++,
      mode,
      uid,
      gid,
      nlink: (mode & S_IFMT) === S_IFDIR ? 2 : 1,
      atime: [Math.floor(now / 1000), (now % 1000) * 1e6],
      mtime: [Math.floor(now / 1000), (now % 1000) * 1e6],
      rdev: 0,
      data: Buffer.alloc(0),
      size: 0,
      xattrs: new Map(),
      children: (mode & S_IFMT) === S_IFDIR ? new Map() : undefined,
      lookups: 0,
    };
    this.nodes.set(node.id, node);
    return node;
  }

  addFile(directory, name, data) {
    const node = this.make(S_IFREG | 0o644, 0, 0);
    node.data = data;
    node.size = data.length;
    directory.children.set(name, node);
  }

  node(q) {
    const node = this.nodes.get(q.nodeid);
    if (node === undefined) throw new Error(`unknown nodeid ${q.nodeid}`);
    return node;
  }

  fill(node, attr) {
    attr.ino = node.id;
    attr.size = node.size;
    attr.blocks = Math.ceil(node.size / 512);
    [attr.atimeSec, attr.atimeNsec] = node.atime;
    [attr.mtimeSec, attr.mtimeNsec] = node.mtime;
    [attr.ctimeSec, attr.ctimeNsec] = node.mtime;
    attr.mode = node.mode;
    attr.nlink = node.nlink;
    attr.uid = node.uid;
    attr.gid = node.gid;
    attr.rdev = node.rdev;
    attr.blksize = 4096;
  }

  give(node, out) {
    node.lookups++;
    this.lookups = (this.lookups ?? 0) + 1;
    out.nodeid = node.id;
    out.generation = 0;
    this.fill(node, out.attr);
    return 0;
  }

  lookup(q, name, out) {
    const key = text(name);
    if (key.startsWith("boom-")) throw new TypeError("a bug");
    if (key === "bad-status") return -123456;
    if (key === "crash") process.exit(3);
    const child = this.node(q).children.get(key);
    if (child !== undefined) return this.give(child, out);
    out.nodeid = 0;
    return 0;
  }

  forget(nodeid, count) {
    const node = this.nodes.get(nodeid);
    if (node === undefined) return;
    node.lookups -= count;
    this.lookups -= count;
    if (node.lookups < 0) throw new Error(`lookups of ${nodeid} below zero`);
    if (node.lookups === 0 && node.nlink === 0) this.nodes.delete(nodeid);
  }

  getattr(q, out) {
    this.fill(this.node(q), out.attr);
    return 0;
  }

  setattr(q, set, out) {
    const node = this.node(q);
    if (set.valid & FATTR.mode) node.mode = (node.mode & S_IFMT) | (set.mode & 0o7777);
    if (set.valid & FATTR.uid) node.uid = set.uid;
    if (set.valid & FATTR.gid) node.gid = set.gid;
    if (set.valid & FATTR.size) this.resize(node, set.size);
    const now = [Math.floor(Date.now() / 1000), 0];
    if (set.valid & FATTR.atime)
      node.atime = set.valid & FATTR.atimeNow ? now : [set.atimeSec, set.atimeNsec];
    if (set.valid & FATTR.mtime)
      node.mtime = set.valid & FATTR.mtimeNow ? now : [set.mtimeSec, set.mtimeNsec];
    this.fill(node, out.attr);
    return 0;
  }

  resize(node, size) {
    if (size > node.data.length) {
      const data = Buffer.alloc(Math.max(size, node.data.length * 2));
      node.data.copy(data, 0, 0, node.size);
      node.data = data;
    } else node.data.fill(0, size, node.data.length);
    node.size = size;
  }

  create(q, name, _flags, mode, umask, entry, open) {
    const status = this.add(q, name, S_IFREG | (mode & 0o7777 & ~umask), entry);
    return status < 0 ? status : this.openNode(this.nodes.get(entry.nodeid), open);
  }

  tmpfile(q, _flags, mode, umask, entry, open) {
    const node = this.make(S_IFREG | (mode & 0o7777 & ~umask), q.uid, q.gid);
    node.nlink = 0;
    this.give(node, entry);
    return this.openNode(node, open);
  }

  add(q, name, mode, out) {
    const directory = this.node(q);
    const key = text(name);
    if (directory.children.has(key)) return -EEXIST;
    const node = this.make(mode, q.uid, q.gid);
    node.parent = directory;
    directory.children.set(key, node);
    return this.give(node, out);
  }

  mknod(q, name, mode, rdev, umask, out) {
    const status = this.add(q, name, (mode & S_IFMT) | (mode & 0o7777 & ~umask), out);
    if (status === 0) {
      this.nodes.get(out.nodeid).rdev = rdev;
      out.attr.rdev = rdev;
    }
    return status;
  }

  mkdir(q, name, mode, umask, out) {
    return this.add(q, name, S_IFDIR | (mode & 0o7777 & ~umask), out);
  }

  symlink(q, name, target, out) {
    const status = this.add(q, name, S_IFLNK | 0o777, out);
    if (status === 0) {
      const node = this.nodes.get(out.nodeid);
      node.data = Buffer.from(target.bytes.slice(target.start, target.end));
      node.size = node.data.length;
      out.attr.size = node.size;
    }
    return status;
  }

  readlink(q, out) {
    const { data } = this.node(q);
    out.bytes.set(data, out.start);
    out.length = data.length;
    return 0;
  }

  link(q, nodeid, name, out) {
    const node = this.nodes.get(nodeid);
    const directory = this.node(q);
    if (directory.children.has(text(name))) return -EEXIST;
    directory.children.set(text(name), node);
    node.nlink++;
    return this.give(node, out);
  }

  remove(q, name, wantDirectory) {
    const directory = this.node(q);
    const node = directory.children.get(text(name));
    if (node === undefined) return -ENOENT;
    if (wantDirectory && node.children === undefined) return -ENOTDIR;
    if (!wantDirectory && node.children !== undefined) return -EISDIR;
    if (node.children?.size > 0) return -ENOTEMPTY;
    directory.children.delete(text(name));
    node.nlink -= wantDirectory ? 2 : 1;
    return 0;
  }

  unlink(q, name) {
    return this.remove(q, name, false);
  }

  rmdir(q, name) {
    return this.remove(q, name, true);
  }

  rename(q, name, newParent, newName, flags) {
    const from = this.node(q).children;
    const to = this.nodes.get(newParent).children;
    const node = from.get(text(name));
    const target = to.get(text(newName));
    if (node === undefined) return -ENOENT;
    if (flags & RENAME_NOREPLACE && target) return -EEXIST;
    if (flags & RENAME_EXCHANGE) {
      if (target === undefined) return -ENOENT;
      from.set(text(name), target);
      to.set(text(newName), node);
      return 0;
    }
    if (target !== undefined) target.nlink--;
    from.delete(text(name));
    to.set(text(newName), node);
    return 0;
  }

  openNode(node, out) {
    const fh = this.nextHandle++;
    this.handles.set(fh, node);
    out.fh = fh;
    out.openFlags = FOPEN_KEEP_CACHE;
    return 0;
  }

  open(q, flags, killSuidgid, out) {
    const node = this.node(q);
    const name = this.nameOf(node);
    if (name.startsWith("suspend")) {
      const status = this.wait(q, node);
      if (status !== 0) return status;
      this.journal.push(name);
    }
    if (killSuidgid) node.mode &= ~0o6000;
    if (flags & constants.O_TRUNC || flags & 0o1000) this.resize(node, 0);
    return this.openNode(node, out);
  }

  wait(q) {
    if (this.services.interrupted(q.unique)) return -EINTR;
    const behind = this.services.suspendBehind(q, 1);
    if (behind !== undefined) return behind;
    if (this.prepared) return 0;
    return this.services.suspend(q, 1, this.slowJob(), (status) => {
      this.journal.push(`done ${status}`);
      this.prepared = true;
    });
  }

  slowJob() {
    this.slowFd ??= openSync(this.settings.slowFile, "r");
    return { kind: "fsync", fd: this.slowFd, dataOnly: false };
  }

  nameOf(node) {
    for (const [name, child] of this.nodes.get(1).children) if (child === node) return name;
    return "";
  }

  release(_q, fh) {
    this.handles.delete(fh);
    return 0;
  }

  flush() {
    return 0;
  }

  read(q, _fh, offset, out) {
    const node = this.node(q);
    if (offset < 0 || offset >= node.size) {
      out.length = 0;
      return 0;
    }
    const length = Math.min(out.capacity, node.size - offset);
    out.bytes.set(node.data.subarray(offset, offset + length), out.start);
    out.length = length;
    return 0;
  }

  write(q, _fh, offset, data) {
    const node = this.node(q);
    if (this.nameOf(node) === "refresh") return this.refresh(data);
    if (offset + data.length > node.size) this.resize(node, offset + data.length);
    node.data.set(data.bytes.subarray(data.start, data.start + data.length), offset);
    return data.length;
  }

  refresh(data) {
    const [kind, name] = Buffer.from(data.bytes.subarray(data.start, data.start + data.length))
      .toString()
      .trim()
      .split(" ");
    const root = this.nodes.get(1);
    const node = root.children.get(name);
    if (kind === "change") {
      node.data = Buffer.alloc(node.size, "x");
      node.mode = S_IFREG | 0o600;
    } else if (kind === "hide") root.children.delete(name);
    else if (kind === "inode") this.services.invalidateInode(node.id, 0, 0);
    else if (kind === "attributes") this.services.invalidateInode(node.id, -1, 0);
    else if (kind === "entry") this.services.invalidateEntry(1, Buffer.from(name));
    else return -EINVAL;
    return data.length;
  }

  fsync(q) {
    const name = this.nameOf(this.node(q));
    const sleep = /^sleep-(\d+)$/.exec(name);
    if (sleep) Atomics.wait(new Int32Array(new SharedArrayBuffer(4)), 0, 0, Number(sleep[1]));
    if (name.startsWith("offload")) return this.services.offload(q, this.slowJob());
    return 0;
  }

  fallocate(q, _fh, mode, offset, length) {
    const node = this.node(q);
    if (mode !== 0) return -EOPNOTSUPP;
    if (offset + length > node.size) this.resize(node, offset + length);
    return 0;
  }

  lseek(q, _fh, offset, whence) {
    const node = this.node(q);
    if (offset >= node.size) return -ENXIO;
    return whence === 3 ? offset : node.size;
  }

  copyFileRange(q, _fh, offset, toNodeid, _toFh, toOffset, length) {
    const from = this.node(q);
    const to = this.nodes.get(toNodeid);
    const count = Math.max(0, Math.min(length, from.size - offset));
    if (toOffset + count > to.size) this.resize(to, toOffset + count);
    from.data.copy(to.data, toOffset, offset, offset + count);
    return count;
  }

  opendir(_q, _flags, out) {
    out.openFlags = this.settings.cacheDirectories ? 8 | 2 : 0;
    return 0;
  }

  readdir(q, _fh, offset, sink) {
    const node = this.node(q);
    const parent = node.parent ?? node;
    const entries = [[".", node], ["..", parent], ...node.children];
    for (let i = offset; i < entries.length; i++) {
      const [name, child] = entries[i];
      const bytes = Buffer.from(name, "latin1");
      const counted = sink.plus && i > 1;
      if (counted) this.give(child, sink.entry);
      const added = sink.add(bytes, 0, bytes.length, (child.mode & S_IFMT) >> 12, child.id, i + 1);
      if (!added) {
        if (counted) this.forget(child.id, 1);
        break;
      }
    }
    return 0;
  }

  releasedir() {
    return 0;
  }

  fsyncdir() {
    return 0;
  }

  statfs(_q, out) {
    out.blocks = 1000;
    out.bfree = 400;
    out.bavail = 300;
    out.files = 70;
    out.ffree = 50;
    out.bsize = 4096;
    out.frsize = 4096;
    out.namelen = 255;
    return 0;
  }

  answer(out, bytes) {
    out.length = bytes.length;
    if (out.capacity === 0) return 0;
    if (bytes.length > out.capacity) return -ERANGE;
    out.bytes.set(bytes, out.start);
    return 0;
  }

  getxattr(q, name, out) {
    const node = this.node(q);
    const key = text(name);
    if (node.id === 1 && key === "user.imgfs.daemon") return this.answer(out, Buffer.from(this.daemon));
    if (node.id === 1 && key === "user.journal")
      return this.answer(out, Buffer.from(this.journal.join("\n")));
    const value = node.xattrs.get(key);
    return value === undefined ? -ENODATA : this.answer(out, value);
  }

  listxattr(q, out) {
    return this.answer(
      out,
      Buffer.from([...this.node(q).xattrs.keys()].map((key) => `${key}\0`).join(""), "latin1"),
    );
  }

  setxattr(q, name, value, flags) {
    const { xattrs } = this.node(q);
    if (flags === 1 && xattrs.has(text(name))) return -EEXIST;
    if (flags === 2 && !xattrs.has(text(name))) return -ENODATA;
    xattrs.set(text(name), Buffer.from(value.bytes.slice(value.start, value.start + value.length)));
    return 0;
  }

  removexattr(q, name) {
    return this.node(q).xattrs.delete(text(name)) ? 0 : -ENODATA;
  }
}
