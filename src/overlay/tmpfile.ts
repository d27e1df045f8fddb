// O_TMPFILE: a file of the upper directory without a name, which link(2) may give it later.
import { FOPEN_KEEP_CACHE } from "../fuse/abi.js";
import type { Entry, Open, Request, Status } from "../fuse/operations.js";
import { chmodFd, chownAt, closeFd, noName, O_EXCL, O_RDWR, O_TMPFILE, openAt } from "../sys/files.js";
import { check } from "../sys/libc.js";
import { emptyStat, S_IFREG, statFd } from "../sys/stat.js";
import { answer, directoryFor, inheritedGroup, makeAs } from "./create.js";
import { fault } from "./fault.js";
import { chownResult } from "./id-map.js";
import { createNode, type DirectoryPart, NO_GROUP, upperIno } from "./inode-table.js";
import { type OverlayState, writable } from "./state.js";

const noNameView = { bytes: new Uint8Array(0), start: 0, end: 0 };
const here = Buffer.from(".");

/** FUSE TMPFILE. EOPNOTSUPP where the upper's filesystem has no such files. */
export function tmpfile(
  m: OverlayState,
  q: Request,
  flags: number,
  mode: number,
  umask: number,
  entry: Entry,
  out: Open,
): Status {
  const state = writable(m);
  const directory = directoryFor(state, q, q.nodeid, noNameView);
  if (typeof directory === "number") return directory;
  const { defaultAcl } = directory.directory as DirectoryPart;
  const exact = (defaultAcl ? mode : mode & ~umask) & 0o7777;
  const directoryFd = m.fds.of(directory);
  // With O_EXCL it never gets a name, which is the backing filesystem's to see to.
  const opened = O_TMPFILE | O_RDWR | (flags & O_EXCL);
  const fd = fault("tmpfile.make") || makeAs(q, () => openAt(directoryFd, here, opened, exact));
  if (fd < 0) return fd;
  const stat = emptyStat();
  try {
    check(statFd(fd, stat), "stat of a new file");
    const group = inheritedGroup(state, directory);
    const gid = group === NO_GROUP ? q.gid : group;
    if (stat.uid !== q.uid || stat.gid !== gid) {
      const owned = fault("tmpfile.owner") || chownResult(m.lower.squash, chownAt(fd, noName, q.uid, gid));
      check(owned, "owner of a new file");
    }
    if (!defaultAcl) check(fault("tmpfile.mode") || chmodFd(fd, exact), "mode of a new file");
    check(statFd(fd, stat), "stat of a new file");
  } catch (cause) {
    closeFd(fd);
    throw cause;
  }
  const node = createNode(
    {
      id: m.inodes.newId(),
      row: -1,
      type: S_IFREG,
      ino: upperIno(stat.ino),
      backing: stat.ino,
      directory: undefined,
    },
    undefined,
    Buffer.alloc(0),
  );
  node.removed = true;
  node.opens++;
  m.inodes.add(node);
  m.fds.hold(node, fd);
  out.fh = 1;
  out.openFlags = FOPEN_KEEP_CACHE;
  return answer(m, { node, stat }, entry);
}
