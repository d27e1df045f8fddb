// The `umount` command.
import { unmount } from "../daemon/mount.js";
import { ExitCode, Failure } from "./failure.js";

export async function umount(mountpoint: string, options: { readonly lazy?: boolean }): Promise<void> {
  try {
    await unmount(mountpoint, { lazy: options.lazy === true });
  } catch (cause) {
    throw new Failure(ExitCode.mount, `umount ${mountpoint}`, { cause });
  }
}
