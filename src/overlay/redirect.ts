// overlayfs's redirect mark (Documentation/filesystems/overlayfs.rst, "Redirecting directories"): the place in the image
// of what is merged below an upper directory, where that is not its own place.
import { Errno } from "../base/errno.js";
import { readXattrFd, removeXattrFd, writeXattrFd } from "../sys/xattr.js";
import { fault } from "./fault.js";
import type { OverlayState } from "./state.js";
import type { Upper } from "./upper.js";

export const userRedirect: Buffer = Buffer.from("user.overlay.redirect");
export const trustedRedirect: Buffer = Buffer.from("trusted.overlay.redirect");
const SLASH = 0x2f;

/** The redirect mark of the directory open at `fd`, or undefined. */
export function readRedirect(fd: number, names: readonly string[]): Buffer | undefined {
  for (const key of [trustedRedirect, userRedirect]) {
    if (!names.includes(key.toString())) continue;
    const value = readXattrFd(fd, key);
    if (typeof value !== "number" && value.length > 0) return value;
  }
  return undefined;
}

/**
 * The image row that a redirect names: a path from the root, or a name beside what would be merged, in `parentRow`. -1 when
 * there is none.
 */
export function resolveRedirect(m: OverlayState, redirect: Buffer, parentRow: number): number {
  let row = redirect[0] === SLASH ? 0 : parentRow;
  for (let at = 0; at < redirect.length && row >= 0; ) {
    const slash = redirect.indexOf(SLASH, at);
    const end = slash < 0 ? redirect.length : slash;
    if (end > at) row = m.lower.isDirectory(row) ? m.lower.find(row, redirect, at, end) : -1;
    at = end + 1;
  }
  return row;
}

/** Marks what is open at `fd`: what belongs to it is at `path` in the image. 0 or a negative errno. */
export function writeRedirect(upper: Upper, fd: number, path: Buffer): number {
  // The kernel reads trusted. by default and user. only under -o userxattr: where both can be set, both are.
  if (upper.trustedXattrs) {
    const result = fault("mark.redirect") || writeXattrFd(fd, trustedRedirect, path);
    if (result < 0) return result;
  }
  return fault("mark.redirect") || writeXattrFd(fd, userRedirect, path);
}

/** Takes the mark away. 0 or a negative errno. */
export function removeRedirect(fd: number): number {
  for (const key of [trustedRedirect, userRedirect]) {
    const result = removeXattrFd(fd, key);
    if (result < 0 && result !== -Errno.ENODATA && result !== -Errno.EPERM) return result;
  }
  return 0;
}
