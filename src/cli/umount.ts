// The `umount` command.
import { MountFailure, unmount } from "../daemon/mount.js";
import { Failure } from "./failure.js";

export async function umount(mountpoint: string, options: { readonly lazy?: boolean }): Promise<void> {
  try {
    await unmount(mountpoint, { lazy: options.lazy === true });
  } catch (cause) {
    if (!(cause instanceof MountFailure)) throw cause;
    throw new Failure(cause.exitCode, cause.message, cause.hint === undefined ? {} : { hint: cause.hint });
  }
}
