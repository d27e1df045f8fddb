// The mountpoint `/dev/fd/N`: /dev/fuse, opened and mounted by whoever started us (libfuse's convention; mount.fuse(8)
// -o drop_privileges).
import { fstatSync } from "node:fs";
import { MountFailure } from "./options.js";

/** Device 10:229 (Documentation/admin-guide/devices.txt) as st_rdev has it. */
const FUSE_DEVICE = 10 * 256 + 229;

/** The descriptor that a mountpoint names; undefined for a path. Throws MountFailure for one that is no /dev/fuse. */
export function givenFd(mountpoint: string): number | undefined {
  const number = /^\/dev\/fd\/(\d+)$/.exec(mountpoint)?.[1];
  if (number === undefined) return undefined;
  const fd = Number(number);
  try {
    const stat = fstatSync(fd);
    if (fd > 2 && stat.isCharacterDevice() && stat.rdev === FUSE_DEVICE) return fd;
  } catch {
    throw new MountFailure(`mount ${mountpoint}: no such descriptor`);
  }
  throw new MountFailure(`mount ${mountpoint}: not an open /dev/fuse`);
}
