// Memory that never moves: page-aligned regions for the kernel to read from and write to, and NUL-terminated
// scratch for path arguments. A region can be seen from several threads by its address.
import { Errno, FsError } from "../base/errno.js";
import { bindPlain, lastErrno, viewAt } from "./libc.js";

const mmap = bindPlain<[number, number, number, number, number, number]>("mmap64", "uintptr_t", [
  "uintptr_t",
  "size_t",
  "int",
  "int",
  "int",
  "int64_t",
]);

const PROT_READ_WRITE = 3;
const MAP_PRIVATE_ANONYMOUS = 0x22;
const MAP_FAILED = 2 ** 64;

export const PAGE_SIZE = 4096;

/** Native memory: `address` for system calls, `bytes` and `view` over the same bytes for JavaScript. */
export interface Region {
  readonly address: number;
  readonly length: number;
  readonly bytes: Uint8Array<ArrayBuffer>;
  readonly view: DataView<ArrayBuffer>;
}

/** The Region of `length` bytes at an address got from another thread. */
export function regionAt(address: number, length: number): Region {
  const buffer = viewAt(address, length);
  return { address, length, bytes: new Uint8Array(buffer), view: new DataView(buffer) };
}

/** Page-aligned zeroed memory of at least `length` bytes, kept until the process ends. Throws FsError ENOMEM. */
export function allocatePages(length: number): Region {
  const size = Math.ceil(length / PAGE_SIZE) * PAGE_SIZE;
  const address = mmap(0, size, PROT_READ_WRITE, MAP_PRIVATE_ANONYMOUS, -1, 0);
  if (address >= MAP_FAILED - PAGE_SIZE) throw new FsError(lastErrno(), `mmap of ${size} bytes`);
  return regionAt(address, size);
}

const PATH_MAX = 4096;
const SLOTS = 4;
const scratch = allocatePages(PATH_MAX * SLOTS);

/**
 * Copies path bytes, NUL-terminated, into scratch slot `slot` and returns their address: valid until the slot is
 * used again. Returns a negative errno for a path too long for the kernel (ENAMETOOLONG) or with a NUL (EINVAL).
 */
export function pathArgument(slot: 0 | 1 | 2 | 3, path: Uint8Array): number {
  if (path.length >= PATH_MAX) return -Errno.ENAMETOOLONG;
  if (path.includes(0)) return -Errno.EINVAL;
  const at = slot * PATH_MAX;
  scratch.bytes.set(path, at);
  scratch.bytes[at + path.length] = 0;
  return scratch.address + at;
}
