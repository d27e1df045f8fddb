// Copies of a file's metadata alone: chmod, chown, times, xattrs, a new name or a new link of a file of the image need
// none of its bytes. The copy is a file of the right size without data, whose data are those of an image row until the
// first change of them (complete-data.ts).
//   user.imgfs.origin ends in a word       what imgfs goes by
//   overlay.metacopy, overlay.redirect     what root's kernel overlayfs goes by (overlayfs.rst, "Metadata only copy up")
// Invariant: the overlay marks go after the data are on disk, the origin's word last; only then may data change. A crash
// between leaves data that are equal wherever they are read from.
import { displayName, nameOf } from "../base/bytes.js";
import { Errno } from "../base/errno.js";
import { truncateFd } from "../sys/files.js";
import { check } from "../sys/libc.js";
import { S_IFMT, S_IFREG, type Stat } from "../sys/stat.js";
import { getXattrAt, getXattrFd, readXattrAt, removeXattrFd, writeXattrFd } from "../sys/xattr.js";
import { fault } from "./fault.js";
import type { Node } from "./inode-table.js";
import { writeOrigin } from "./origin.js";
import { removeRedirect, resolvePath, tellPlace, trustedRedirect, userRedirect } from "./redirect.js";
import type { OverlayState, WritableState } from "./state.js";
import type { Upper } from "./upper.js";

const userMetacopy = Buffer.from("user.overlay.metacopy");
const trustedMetacopy = Buffer.from("trusted.overlay.metacopy");
const none = Buffer.alloc(0);

/** The image row whose data a nodeid has; -1 for one with data of its own in the upper directory. */
export function dataRow(node: Node | undefined, id: number): number {
  return node === undefined || node.backing === 0 ? id - 1 : node.dataRow;
}

/** Gives a staged file the size it has in the image, and the marks. 0 or a negative errno. */
export function markMetadataOnly(upper: Upper, fd: number, size: number): number {
  const sized = fault("copy-up.size") || truncateFd(fd, size);
  if (sized < 0) return sized;
  // Under -o userxattr the kernel reads no such mark.
  if (!upper.trustedXattrs) return 0;
  return fault("copy-up.metacopy") || writeXattrFd(fd, trustedMetacopy, none);
}

/** Puts the marks of overlayfs back on a file whose data are still the image's. 0 or a negative errno. */
export function markAgain(m: WritableState, node: Node, fd: number): number {
  if (!m.upper.trustedXattrs || getXattrFd(fd, trustedMetacopy, 0, 0) >= 0) return 0;
  tellPlace(m.upper, fd, m.lower.pathOf(node.dataRow));
  return writeXattrFd(fd, trustedMetacopy, none);
}

/** Takes the marks of overlayfs off. 0 or a negative errno. */
export function dropMarks(fd: number): number {
  for (const key of [trustedMetacopy, userMetacopy]) {
    const result = removeXattrFd(fd, key);
    if (result < 0 && result !== -Errno.ENODATA && result !== -Errno.EPERM) return result;
  }
  return removeRedirect(fd);
}

/**
 * Before a file without data gets a name that the image does not have for it: its origin says where its data are, and the
 * kernel is told, too. imgfs itself goes by the origin, so a mark that cannot be set is no failure. Throws FsError.
 */
export function keepData(m: WritableState, node: Node): void {
  if (node.dataRow < 0) return;
  const fd = m.fds.of(node);
  // Where another overlay has made the copy, its name may be all that told.
  if (node.row < 0) check(writeOrigin(m, fd, node.dataRow, true), "origin of a file");
  if (!m.upper.trustedXattrs) return;
  const result = tellPlace(m.upper, fd, m.lower.pathOf(node.dataRow));
  if (result < 0) m.log.debug("redirect of a file not set", { row: node.dataRow, errno: -result });
}

/** True for a file that may be a copy of metadata alone: it has a size, and no more blocks than its xattrs may take. */
export function mayLackData({ mode, size, blocks, blksize }: Stat): boolean {
  return (mode & S_IFMT) === S_IFREG && size > 0 && blocks * 512 <= blksize;
}

/**
 * The row whose data a file has that another overlay copied up without: what its redirect names, or the image's file of the
 * same name in `lowerRow`. -1 for a file with data of its own.
 */
export function foreignDataRow(
  m: OverlayState,
  lowerRow: number,
  directoryFd: number,
  name: Uint8Array,
): number {
  const marked = [trustedMetacopy, userMetacopy].some((key) => getXattrAt(directoryFd, name, key, 0, 0) >= 0);
  if (!marked) return -1;
  const redirect = [trustedRedirect, userRedirect]
    .map((key) => readXattrAt(directoryFd, name, key))
    .find((value) => typeof value !== "number");
  const row =
    redirect !== undefined
      ? resolvePath(m.lower, redirect, lowerRow)
      : lowerRow < 0
        ? -1
        : m.lower.find(lowerRow, name, 0, name.length);
  if (row >= 0 && (m.lower.tree.mode(row) & S_IFMT) === S_IFREG) return row;
  m.log.error("a file copied up without its data has none in the image", { file: displayName(nameOf(name)) });
  return -1;
}
