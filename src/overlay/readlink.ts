// The target of a symlink.
import { Errno } from "../base/errno.js";
import type { DataOut, Request, Status } from "../fuse/operations.js";
import { noName, readlinkAt } from "../sys/files.js";
import { S_IFLNK, S_IFMT } from "../sys/stat.js";
import { readTarget } from "./stand-ins.js";
import type { OverlayState } from "./state.js";

/** FUSE READLINK. */
export function readlink(m: OverlayState, q: Request, out: DataOut): Status {
  const node = m.inodes.get(q.nodeid);
  if (node === undefined || node.backing === 0) {
    const row = q.nodeid - 1;
    if ((m.lower.tree.mode(row) & S_IFMT) !== S_IFLNK) return -Errno.EINVAL;
    const target = m.lower.tree.symlinkTarget(row);
    const length = Math.min(target.length, out.capacity);
    out.bytes.set(target.subarray(0, length), out.start);
    out.length = length;
    return 0;
  }
  m.fds.trim();
  if (node.override !== undefined) {
    const length = readTarget(m.fds.of(node), out.bytes, out.start, out.address, out.capacity);
    if (length < 0) return length;
    out.length = length;
    return 0;
  }
  const got =
    node.fd >= 0 || node.parent === undefined
      ? readlinkAt(node.fd, noName, out.address, out.capacity)
      : readlinkAt(m.fds.of(node.parent), node.name, out.address, out.capacity);
  if (got < 0) return got;
  out.length = got;
  return 0;
}
