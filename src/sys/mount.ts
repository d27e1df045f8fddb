// mount(2) and umount2(2). Fail with a negative errno; a mountpoint that is a dead FUSE mount answers -ENOTCONN.
import { bind } from "./libc.js";
import { pathArgument } from "./memory.js";

const mountCall = bind<[number, number, number, number, number]>("mount", "int", [
  "uintptr_t",
  "uintptr_t",
  "uintptr_t",
  "ulong",
  "uintptr_t",
]);
const umountCall = bind<[number, number]>("umount2", "int", ["uintptr_t", "int"]);

export const MNT_DETACH = 2;
export const UMOUNT_NOFOLLOW = 8;

/** mount(2); `target` is a path in bytes, the rest text. */
export function mountAt(
  source: string,
  target: Uint8Array,
  type: string,
  flags: number,
  data: string,
): number {
  const from = pathArgument(0, Buffer.from(source));
  if (from < 0) return from;
  const at = pathArgument(1, target);
  if (at < 0) return at;
  const kind = pathArgument(2, Buffer.from(type));
  const options = pathArgument(3, Buffer.from(data));
  return options < 0 ? options : mountCall(from, at, kind, flags, options);
}

/** umount2(2). */
export function unmountAt(target: Uint8Array, flags: number): number {
  const at = pathArgument(0, target);
  return at < 0 ? at : umountCall(at, flags);
}
