// The way to the kernel: a descriptor that speaks FUSE, and how it came to be. The session sees only the descriptor, so
// that other openers (fusermount3, /dev/fd/N, a socket) can stand beside this one.
import { Errno, FsError } from "../base/errno.js";
import { AT_FDCWD, closeFd, O_RDWR, openAt } from "../sys/files.js";
import { check } from "../sys/libc.js";
import { MS_NODEV, MS_NOSUID, MS_RDONLY, mountAt } from "../sys/mount.js";

/** The type by which our mounts are known in /proc/self/mountinfo. */
export const MOUNT_TYPE = "fuse.imgfs";
const DEVICE = "/dev/fuse";

export interface Channel {
  /** One read(2) gives one request, one write(2) takes one reply. */
  readonly fd: number;
  /** Ends this side's hold. With it the connection dies if the mount is still there. */
  close(): void;
}

export interface DirectMount {
  /** Shown as the mounted device. */
  readonly source: string;
  /** Absolute path of a directory, in bytes. */
  readonly mountpoint: Uint8Array;
  readonly readOnly: boolean;
  /** Device nodes work. In a user namespace the kernel never lets them. */
  readonly devices: boolean;
  /** setuid and setgid bits do nothing. */
  readonly nosuid: boolean;
  /** Other users than the one who mounts may use it. */
  readonly allowOther: boolean;
}

/**
 * Opens /dev/fuse and mounts it: root, or root of a user namespace. The kernel checks permissions
 * (`default_permissions`). Throws FsError naming what failed; then nothing is mounted.
 */
export function openDirect(options: DirectMount): Channel {
  const fd = openAt(AT_FDCWD, Buffer.from(DEVICE), O_RDWR);
  if (fd === -Errno.ENOENT) throw new FsError(-fd, `${DEVICE} (is the fuse module loaded?)`);
  if (fd === -Errno.ENODEV) throw new FsError(-fd, `${DEVICE} (the kernel has no FUSE)`);
  check(fd, DEVICE);
  const data = [
    `fd=${fd}`,
    "rootmode=40000",
    `user_id=${process.geteuid?.() ?? 0}`,
    `group_id=${process.getegid?.() ?? 0}`,
    "default_permissions",
    ...(options.allowOther ? ["allow_other"] : []),
  ].join(",");
  const flags =
    (options.readOnly ? MS_RDONLY : 0) | (options.devices ? 0 : MS_NODEV) | (options.nosuid ? MS_NOSUID : 0);
  const mounted = mountAt(options.source, options.mountpoint, MOUNT_TYPE, flags, data);
  if (mounted < 0) {
    closeFd(fd);
    throw new FsError(-mounted, `mount(2) ${Buffer.from(options.mountpoint).toString()}`);
  }
  return { fd, close: () => void closeFd(fd) };
}
