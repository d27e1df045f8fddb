// overlayfs's redirect mark (Documentation/filesystems/overlayfs.rst, "Redirecting directories"): the place in the image
// of what is merged below an upper directory, where that is not its own place.
import { readXattrFd, writeXattrFd } from "../sys/xattr.js";
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
 * The image row of the directory that a redirect names: a path from the root, or a name beside the directory that would
 * be merged. -1 when there is none.
 */
export function resolveRedirect(m: OverlayState, redirect: Buffer, parentRow: number): number {
  let row = redirect[0] === SLASH ? 0 : parentRow;
  for (let at = 0; at < redirect.length && row >= 0; ) {
    const slash = redirect.indexOf(SLASH, at);
    const end = slash < 0 ? redirect.length : slash;
    if (end > at) {
      row = m.lower.find(row, redirect, at, end);
      if (row >= 0 && !m.lower.isDirectory(row)) row = -1;
    }
    at = end + 1;
  }
  return row;
}

/** Marks the directory open at `fd` as merged with the image directory at `path`. 0 or a negative errno. */
export function writeRedirect(upper: Upper, fd: number, path: Buffer): number {
  // The kernel reads trusted. by default and user. only under -o userxattr: where both can be set, both are.
  if (upper.trustedXattrs) {
    const result = writeXattrFd(fd, trustedRedirect, path);
    if (result < 0) return result;
  }
  return writeXattrFd(fd, userRedirect, path);
}
