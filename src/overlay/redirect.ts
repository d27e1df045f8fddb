// Where in the image what is merged below an upper directory lies, where that is not its own place.
//   user.imgfs.redirect    the row, as in an origin: what imgfs goes by, short whatever lies between the two
//   overlay.redirect       the path: what others go by, and imgfs where there is no mark of its own (overlayfs.rst,
//                          "Redirecting directories")
// Those in user. are ordinary xattrs to the kernel's overlayfs, which copies them with a directory (cp -a): where the path
// was told in trusted., too, the mark of our own says so, and counts only beside that.
import { Errno } from "../base/errno.js";
import { usesTrusted } from "../sys/process.js";
import { getXattrFd, readXattrFd, removeXattrFd, writeXattrFd, XATTR_SIZE_MAX } from "../sys/xattr.js";
import { fault } from "./fault.js";
import type { Lower } from "./lower.js";
import { parseRow, rowText } from "./origin.js";
import type { Upper } from "./upper.js";

const ownRedirect = Buffer.from("user.imgfs.redirect");
export const userRedirect: Buffer = Buffer.from("user.overlay.redirect");
export const trustedRedirect: Buffer = Buffer.from("trusted.overlay.redirect");
const SLASH = 0x2f;
/** How a mark of our own ends where the trusted one was set before it. */
const TOLD = " told";

/** The redirect marks of a directory. */
export interface Redirect {
  /** The text of our own, which then alone counts. */
  readonly own: string | undefined;
  readonly path: Buffer | undefined;
}

/** The redirect marks of the directory open at `fd` with these xattrs, or undefined. */
export function readRedirect(fd: number, names: readonly string[]): Redirect | undefined {
  const read = (key: Buffer): Buffer | undefined => {
    const value = names.includes(key.toString()) ? readXattrFd(fd, key) : -Errno.ENODATA;
    return typeof value !== "number" && value.length > 0 ? value : undefined;
  };
  const trusted = read(trustedRedirect);
  const own = read(ownRedirect)?.toString("latin1");
  if (own?.endsWith(TOLD) === true && trusted === undefined && usesTrusted) return undefined;
  const path = trusted ?? read(userRedirect);
  return own === undefined && path === undefined ? undefined : { own, path };
}

/** The image directory that redirect marks name, for a directory in one that is merged with `parentRow`; -1 for none. */
export function resolveRedirect(lower: Lower, { own, path }: Redirect, parentRow: number): number {
  if (own === undefined && path === undefined) return -1;
  const row = own === undefined ? resolvePath(lower, path as Buffer, parentRow) : parseRow(lower, own).row;
  return row >= 0 && lower.isDirectory(row) ? row : -1;
}

/**
 * The image directory that is merged with the upper directory `name` with these marks, in one merged with `parentRow`; -1 for
 * none.
 */
export function mergedBelow(
  lower: Lower,
  parentRow: number,
  name: Uint8Array,
  { opaque, redirect }: { readonly opaque: boolean; readonly redirect: Redirect | undefined },
): number {
  if (opaque) return -1;
  if (redirect !== undefined) return resolveRedirect(lower, redirect, parentRow);
  if (parentRow < 0) return -1;
  const row = lower.find(parentRow, name, 0, name.length);
  return row >= 0 && lower.isDirectory(row) ? row : -1;
}

/**
 * The image row at a path: from the root, or a name beside what would be merged, in `parentRow`. -1 when there is none.
 */
export function resolvePath(lower: Lower, path: Buffer, parentRow: number): number {
  let row = path[0] === SLASH ? 0 : parentRow;
  for (let at = 0; at < path.length && row >= 0; ) {
    const slash = path.indexOf(SLASH, at);
    const end = slash < 0 ? path.length : slash;
    if (end > at) row = lower.isDirectory(row) ? lower.find(row, path, at, end) : -1;
    at = end + 1;
  }
  return row;
}

/** Marks the directory open at `fd`: the image directory of `row` is merged below it. 0 or a negative errno. */
export function writeRedirect(upper: Upper, lower: Lower, fd: number, row: number): number {
  const told = tellPlace(upper, fd, lower.pathOf(row));
  if (told < 0 && !isLackOfRoom(told)) return told;
  const isTold = upper.trustedXattrs && getXattrFd(fd, trustedRedirect, 0, 0) >= 0;
  const text = Buffer.from(`${rowText(lower.tree.treeRoot, row)}${isTold ? TOLD : ""}`);
  return fault("mark.redirect") || writeXattrFd(fd, ownRedirect, text);
}

/**
 * Tells other overlays where in the image what is open at `fd` belongs. There is no limit to what the kernel's overlayfs
 * reads (ovl_get_redirect_xattr), though what it writes is at most 256 bytes. 0 or a negative errno.
 */
export function tellPlace(upper: Upper, fd: number, path: Buffer): number {
  if (path.length > XATTR_SIZE_MAX) return -Errno.E2BIG;
  // The kernel reads trusted. by default and user. only under -o userxattr: where both can be set, both are.
  if (upper.trustedXattrs) {
    const result = fault("mark.redirect") || writeXattrFd(fd, trustedRedirect, path);
    if (result < 0) return result;
  }
  return fault("mark.redirect") || writeXattrFd(fd, userRedirect, path);
}

/** The filesystem has no room for such an xattr (setxattr(2)); ext4 has one block for all of a file's. */
export function isLackOfRoom(result: number): boolean {
  return result === -Errno.ENOSPC || result === -Errno.ERANGE || result === -Errno.E2BIG;
}

/** Takes what others go by away. 0 or a negative errno. */
export function removeRedirect(fd: number): number {
  for (const key of [trustedRedirect, userRedirect]) {
    const result = removeXattrFd(fd, key);
    if (result < 0 && result !== -Errno.ENODATA && result !== -Errno.EPERM) return result;
  }
  return 0;
}
