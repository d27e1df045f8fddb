// Unmounting by whoever may: umount2(2), or where it is refused to this user, fusermount.
import { Errno } from "../base/errno.js";
import { MNT_DETACH, UMOUNT_NOFOLLOW, unmountAt } from "../sys/mount.js";
import { unmountByFusermount } from "./fusermount.js";

export interface TakenAway {
  /** 0 or a negative errno. */
  readonly status: number;
  /** What the helper said, if it was asked and refused. */
  readonly said: string;
}

/** Unmounts what is on top at an absolute path; `lazy` also while it is in use. */
export async function takeAway(mountpoint: string, lazy: boolean): Promise<TakenAway> {
  const status = unmountAt(Buffer.from(mountpoint), UMOUNT_NOFOLLOW | (lazy ? MNT_DETACH : 0));
  if (status !== -Errno.EPERM || process.geteuid?.() === 0) return { status, said: "" };
  return unmountByFusermount(mountpoint, lazy);
}
