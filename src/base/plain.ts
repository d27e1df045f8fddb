// Small files in a folder where somebody may have put something else.
import { closeSync, constants, fstatSync, lstatSync, openSync, readFileSync } from "node:fs";

/** Bytes of a small file: none of ours comes near it. */
const MOST = 16 << 20;

/** Why a file could not be read, in words that come after its name. */
export class NotPlain extends Error {}

/** The text of a small file: neither through a symlink, nor of a pipe that nobody writes to. Throws as open(2), or NotPlain. */
export function readPlain(path: string): string {
  const { O_RDONLY, O_NOFOLLOW, O_NONBLOCK, O_NOCTTY } = constants;
  // What is no file is not opened: to open a device may be to use it.
  if (!lstatSync(path).isFile()) throw new NotPlain("not a regular file");
  const fd = openSync(path, O_RDONLY | O_NOFOLLOW | O_NONBLOCK | O_NOCTTY);
  try {
    const stat = fstatSync(fd);
    if (!stat.isFile()) throw new NotPlain("not a regular file");
    if (stat.size > MOST) throw new NotPlain("too large");
    return readFileSync(fd, "utf8");
  } finally {
    closeSync(fd);
  }
}
