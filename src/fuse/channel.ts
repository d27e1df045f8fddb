// The way to the kernel: a descriptor that speaks FUSE, and how it comes to be. The session sees only the descriptor.
//   direct      /dev/fuse and mount(2): root, or root of a user namespace that owns its mount namespace
//   fusermount  the setuid helper of libfuse mounts and hands the descriptor over: any other user (fusermount.ts)
//   given       whoever started us has opened and mounted it: /dev/fd/N as mountpoint
import { Errno, FsError } from "../base/errno.js";
import { AT_FDCWD, closeFd, closeOnExec, O_RDWR, openAt } from "../sys/files.js";
import { check } from "../sys/libc.js";
import { mountAt } from "../sys/mount.js";
import { MS_NODEV, MS_NOSUID, MS_RDONLY } from "../sys/mount-flags.js";
import { openByFusermount } from "./fusermount.js";

/** The subtype by which our mounts are known in /proc/self/mountinfo. */
const SUBTYPE = "imgfs";
export const MOUNT_TYPE: string = `fuse.${SUBTYPE}`;
const DEVICE = "/dev/fuse";

export interface Channel {
  /** One read(2) gives one request, one write(2) takes one reply. */
  readonly fd: number;
  /** Ends this side's hold. With it the connection dies if the mount is still there. */
  close(): void;
}

/** What is asked of the mount itself, whatever filesystem is in it. Plain data. */
export interface KernelOptions {
  /** MS_ flags that are set, and that are not, whatever the defaults say. */
  readonly set?: number;
  readonly clear?: number;
  /** Whether other users than the one who mounts may use it; unless given, where that is not a privilege. */
  readonly allowOther?: boolean;
  /** Largest READ, in bytes. */
  readonly maxRead?: number;
  /** Shown as the mounted device in place of the image. */
  readonly fsname?: string;
  /** Shown as the type, after `fuse.`, in place of our own. */
  readonly subtype?: string;
}

export interface ChannelOptions {
  /** Shown as the mounted device. */
  readonly source: string;
  /** Absolute path of a directory. */
  readonly mountpoint: string;
  readonly readOnly: boolean;
  /** Device nodes work. In a user namespace the kernel never lets them. */
  readonly devices: boolean;
  /** Neither device nodes nor setuid work unless the flags say so: see `Features`. */
  readonly untrusted?: boolean | undefined;
  readonly kernel: KernelOptions;
}

/** The parts of a mount as they are told to mount(2) or to a helper. */
export interface MountRequest {
  readonly source: string;
  readonly subtype: string;
  readonly mountpoint: string;
  /** MS_ flags. */
  readonly flags: number;
  readonly allowOther: boolean | undefined;
  readonly maxRead: number | undefined;
}

/** Why there is no channel, with what may help. */
export class ChannelRefused extends Error {
  readonly hint: string | undefined;

  constructor(message: string, hint?: string) {
    super(message);
    this.name = "ChannelRefused";
    this.hint = hint;
  }
}

/** The type that a mount with these options has in /proc/self/mountinfo. */
export function mountTypeOf(kernel: KernelOptions): string {
  return kernel.subtype === undefined ? MOUNT_TYPE : `fuse.${kernel.subtype}`;
}

/**
 * Mounts, with the kernel checking permissions (`default_permissions`): by mount(2), or where that is not permitted to
 * this user, by fusermount. Rejects with FsError or ChannelRefused, which name what failed; then nothing is mounted.
 */
export async function openChannel(options: ChannelOptions): Promise<Channel> {
  const request = requestOf(options);
  try {
    return channelOf(mountDirect(request));
  } catch (cause) {
    const refused = cause instanceof FsError && (cause.errno === Errno.EPERM || cause.errno === Errno.EACCES);
    // As root the helper has no more rights than we have.
    if (!refused || process.geteuid?.() === 0) throw cause;
  }
  const outcome = await openByFusermount(request);
  if (typeof outcome !== "number") throw new ChannelRefused(outcome.reason, outcome.hint);
  return channelOf(outcome);
}

/** The channel of an open descriptor of /dev/fuse that somebody else has mounted. */
export function adoptChannel(fd: number): Channel {
  check(closeOnExec(fd), `/dev/fd/${fd}`);
  return channelOf(fd);
}

function channelOf(fd: number): Channel {
  return { fd, close: () => void closeFd(fd) };
}

/** The mount that the options ask for. */
export function requestOf(options: ChannelOptions): MountRequest {
  const { source, mountpoint, readOnly, devices, untrusted, kernel } = options;
  const usual = (untrusted ? MS_NODEV | MS_NOSUID : 0) | (devices ? 0 : MS_NODEV);
  const asked = (usual | (kernel.set ?? 0)) & ~(kernel.clear ?? 0);
  return {
    source: kernel.fsname ?? source,
    subtype: kernel.subtype ?? SUBTYPE,
    mountpoint,
    // fstab says `rw` of every mount that does not say `ro`: of one without an upper directory it cannot be true.
    flags: readOnly ? asked | MS_RDONLY : asked,
    allowOther: kernel.allowOther,
    maxRead: kernel.maxRead,
  };
}

/** Opens /dev/fuse and mounts it; the descriptor. Throws FsError. */
function mountDirect(request: MountRequest): number {
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
    ...(request.allowOther === false ? [] : ["allow_other"]),
    ...(request.maxRead === undefined ? [] : [`max_read=${request.maxRead}`]),
  ].join(",");
  const { source, mountpoint, subtype, flags } = request;
  const mounted = mountAt(source, Buffer.from(mountpoint), `fuse.${subtype}`, flags, data);
  if (mounted < 0) {
    closeFd(fd);
    throw new FsError(-mounted, `mount(2) ${mountpoint}`);
  }
  return fd;
}
