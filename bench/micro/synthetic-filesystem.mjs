// A read-only tree computed from numbers, for measuring the transport alone: `directories` directories of `files` files
// of `size` bytes, their data read from one backing file. Loaded by the daemon's worker.
import { openSync, readFileSync } from "node:fs";
import { constants } from "node:os";

const S_IFDIR = 0o040755;
const S_IFREG = 0o100644;
const HOLD = 2 ** 40;

export async function createFileSystem({ options, daemonPid }) {
  const { dist, backing, directories, files, size, timeout, hold } = options.fileSystem.settings;
  const { pread } = await import(`${dist}/sys/files.js`);
  const fd = openSync(backing, "r");
  const holdFd = hold === undefined ? -1 : openSync(hold, "r");
  const stat = readFileSync(`/proc/${daemonPid}/stat`, "latin1");
  const daemon = Buffer.from(`${daemonPid} ${stat.slice(stat.lastIndexOf(")") + 2).split(" ")[19]}`);
  const released = new Set();
  let services;
  // nodeid 1 is the root, 2.. the directories, then the files in order.
  const firstFile = 2 + directories;
  const isDirectory = (nodeid) => nodeid < firstFile;
  const names = Array.from({ length: Math.max(directories, files) }, (_, i) => Buffer.from(`entry-${i}`));
  const dots = [Buffer.from("."), Buffer.from("..")];

  const fill = (nodeid, attr) => {
    attr.ino = nodeid;
    attr.mode = isDirectory(nodeid) ? S_IFDIR : S_IFREG;
    attr.size = isDirectory(nodeid) ? 4096 : size;
    attr.blocks = Math.ceil(attr.size / 512);
    attr.nlink = 1;
  };
  const give = (nodeid, out) => {
    out.nodeid = nodeid;
    out.entryTimeout = timeout;
    out.attrTimeout = timeout;
    fill(nodeid, out.attr);
    return 0;
  };
  const childOf = (nodeid, index) => (nodeid === 1 ? 2 + index : firstFile + (nodeid - 2) * files + index);

  return {
    init: (_info, offered) => {
      services = offered;
    },
    lookup: (q, name, out) => {
      const text =
        name.bytes.latin1Slice?.(name.start, name.end) ??
        Buffer.from(name.bytes.slice(name.start, name.end)).toString("latin1");
      if (text.startsWith("hold-") && holdFd >= 0) {
        if (released.delete(text)) return -constants.errno.ENOENT;
        const job = { kind: "fsync", fd: holdFd, dataOnly: false };
        return services.suspend(q, HOLD, job, () => void released.add(text));
      }
      const index = text.startsWith("entry-") ? Number(text.slice(6)) : -1;
      const limit = q.nodeid === 1 ? directories : isDirectory(q.nodeid) ? files : 0;
      if (!(index >= 0 && index < limit)) return -constants.errno.ENOENT;
      return give(childOf(q.nodeid, index), out);
    },
    forget: () => {},
    getattr: (q, out) => {
      out.attrTimeout = timeout;
      fill(q.nodeid, out.attr);
      return 0;
    },
    open: (_q, _flags, _kill, out) => {
      out.openFlags = 0;
      return 0;
    },
    read: (_q, _fh, offset, out) => {
      const got = pread(fd, out.address, Math.min(out.capacity, Math.max(0, size - offset)), offset);
      out.length = Math.max(got, 0);
      return Math.min(got, 0);
    },
    release: () => 0,
    // Only the question of unmount, who serves this, is ever asked here.
    getxattr: (q, _name, out) => {
      if (q.nodeid !== 1) return -constants.errno.ENODATA;
      if (out.capacity > 0) out.bytes.set(daemon, out.start);
      out.length = daemon.length;
      return 0;
    },
    fsync: () => 0,
    readdir: (q, _fh, offset, sink) => {
      const count = 2 + (q.nodeid === 1 ? directories : files);
      for (let i = offset; i < count; i++) {
        const name = i < 2 ? dots[i] : names[i - 2];
        const nodeid = i < 2 ? q.nodeid : childOf(q.nodeid, i - 2);
        if (sink.plus && i >= 2) give(nodeid, sink.entry);
        if (!sink.add(name, 0, name.length, isDirectory(nodeid) ? 4 : 8, nodeid, i + 1)) break;
      }
      return 0;
    },
  };
}
