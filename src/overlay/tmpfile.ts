// O_TMPFILE: a file of the upper directory without a name, which link(2) may give it later.
import { FOPEN_KEEP_CACHE } from "../fuse/abi.js";
import type { Entry, Open, Request, Status } from "../fuse/operations.js";
import { closeFd, noName, O_EXCL, O_RDWR, O_TMPFILE, openAt } from "../sys/files.js";
import { emptyStat, S_IFREG } from "../sys/stat.js";
import { answer, directoryFor } from "./create.js";
import { fault } from "./fault.js";
import { createNode, type DirectoryPart, upperIno } from "./inode-table.js";
import { makeAs } from "./make-object.js";
import { settleNew, usableMode } from "./new-owner.js";
import type { Override } from "./override.js";
import { chargeNew, creditNew, ownNew } from "./quota/charge-objects.js";
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
  const usable = usableMode(S_IFREG, exact);
  const charged = chargeNew(state, q, S_IFREG);
  if (charged < 0) return charged;
  const fd = fault("tmpfile.make") || makeAs(q, () => openAt(directoryFd, here, opened, usable));
  if (fd < 0) {
    creditNew(state, S_IFREG);
    return fd;
  }
  const stat = emptyStat();
  let override: Override | undefined;
  try {
    override = settleNew(state, q, directory, { atFd: fd, name: noName, fd }, exact, stat);
  } catch (cause) {
    closeFd(fd);
    creditNew(state, S_IFREG);
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
  node.override = override;
  node.removed = true;
  ownNew(state, node);
  node.opens++;
  m.inodes.add(node);
  m.fds.hold(node, fd);
  out.fh = 1;
  out.openFlags = FOPEN_KEEP_CACHE;
  return answer(m, { node, stat }, entry);
}
