// Extended attributes by descriptor, or by directory descriptor and name (symlinks and devices included).
// Results are byte counts or 0, or a negative errno.
import { bind, bindAsync } from "./libc.js";
import { allocatePages, PAGE_SIZE, pathArgument } from "./memory.js";

const c = {
  fget: bind<[number, number, number, number]>("fgetxattr", "int64_t", [
    "int",
    "uintptr_t",
    "uintptr_t",
    "size_t",
  ]),
  fset: bind<[number, number, number, number, number]>("fsetxattr", "int", [
    "int",
    "uintptr_t",
    "uintptr_t",
    "size_t",
    "int",
  ]),
  flist: bind<[number, number, number]>("flistxattr", "int64_t", ["int", "uintptr_t", "size_t"]),
  fremove: bind<[number, number]>("fremovexattr", "int", ["int", "uintptr_t"]),
  lget: bind<[number, number, number, number]>("lgetxattr", "int64_t", [
    "uintptr_t",
    "uintptr_t",
    "uintptr_t",
    "size_t",
  ]),
  lset: bind<[number, number, number, number, number]>("lsetxattr", "int", [
    "uintptr_t",
    "uintptr_t",
    "uintptr_t",
    "size_t",
    "int",
  ]),
  llist: bind<[number, number, number]>("llistxattr", "int64_t", ["uintptr_t", "uintptr_t", "size_t"]),
  lremove: bind<[number, number]>("lremovexattr", "int", ["uintptr_t", "uintptr_t"]),
  get: bind<[number, number, number, number]>("getxattr", "int64_t", [
    "uintptr_t",
    "uintptr_t",
    "uintptr_t",
    "size_t",
  ]),
  set: bind<[number, number, number, number, number]>("setxattr", "int", [
    "uintptr_t",
    "uintptr_t",
    "uintptr_t",
    "size_t",
    "int",
  ]),
  list: bind<[number, number, number]>("listxattr", "int64_t", ["uintptr_t", "uintptr_t", "size_t"]),
  remove: bind<[number, number]>("removexattr", "int", ["uintptr_t", "uintptr_t"]),
};

export const XATTR_CREATE = 1;
export const XATTR_REPLACE = 2;
/** Longest value, in bytes (include/uapi/linux/limits.h). */
export const XATTR_SIZE_MAX = 65536;

const scratch = allocatePages(XATTR_SIZE_MAX);

function copied(length: number): Buffer | number {
  return length < 0 ? length : Buffer.from(scratch.bytes.subarray(0, length));
}

/** The value as bytes of its own, or a negative errno. */
export function readXattrFd(fd: number, name: Uint8Array): Buffer | number {
  return copied(getXattrFd(fd, name, scratch.address, scratch.length));
}

/** The value as bytes of its own, or a negative errno. */
export function readXattrAt(dirfd: number, file: Uint8Array, name: Uint8Array): Buffer | number {
  return copied(getXattrAt(dirfd, file, name, scratch.address, scratch.length));
}

export function writeXattrFd(fd: number, name: Uint8Array, value: Uint8Array, flags = 0): number {
  scratch.bytes.set(value);
  return setXattrFd(fd, name, scratch.address, value.length, flags);
}

export function writeXattrAt(
  dirfd: number,
  file: Uint8Array,
  name: Uint8Array,
  value: Uint8Array,
  flags = 0,
): number {
  scratch.bytes.set(value);
  return setXattrAt(dirfd, file, name, scratch.address, value.length, flags);
}

/** The names, each followed by a NUL, or a negative errno. */
export function readXattrNamesFd(fd: number): Buffer | number {
  return copied(listXattrFd(fd, scratch.address, scratch.length));
}

/** The names, each followed by a NUL, or a negative errno. */
export function readXattrNamesAt(dirfd: number, file: Uint8Array): Buffer | number {
  return copied(listXattrAt(dirfd, file, scratch.address, scratch.length));
}

/** `length` 0 asks only for the size. */
export function getXattrFd(fd: number, name: Uint8Array, address: number, length: number): number {
  const key = pathArgument(1, name);
  return key < 0 ? key : c.fget(fd, key, address, length);
}

export function setXattrFd(
  fd: number,
  name: Uint8Array,
  address: number,
  length: number,
  flags: number,
): number {
  const key = pathArgument(1, name);
  return key < 0 ? key : c.fset(fd, key, address, length, flags);
}

export function listXattrFd(fd: number, address: number, length: number): number {
  return c.flist(fd, address, length);
}

export function removeXattrFd(fd: number, name: Uint8Array): number {
  const key = pathArgument(1, name);
  return key < 0 ? key : c.fremove(fd, key);
}

/**
 * A path by which the l-forms reach `name` in `dirfd` without resolving anything above it. The prefix goes through
 * /proc/self/fd, whose link is followed because it is not the last component. An empty name means what `dirfd` itself
 * is, by O_PATH too: then the link is the last component and the forms that follow it are the ones to call.
 */
function pathAt(dirfd: number, name: Uint8Array): number {
  if (name.length === 0) return pathArgument(0, Buffer.from(`/proc/self/fd/${dirfd}`));
  return pathArgument(0, Buffer.concat([Buffer.from(`/proc/self/fd/${dirfd}/`), name]));
}

const askPath = bindAsync<[Uint8Array, Uint8Array, number, number]>("lgetxattr", "int64_t", [
  "const uint8_t *",
  "const uint8_t *",
  "uintptr_t",
  "size_t",
]);

/**
 * The value of an attribute of at most a page, by path (the last component is not followed), or a negative errno. Asked in
 * another thread: a mount whose process hangs may never answer.
 */
export async function askXattrPath(file: Uint8Array, name: Uint8Array): Promise<Uint8Array | number> {
  const { address, bytes } = allocatePages(PAGE_SIZE);
  const end = Buffer.from([0]);
  const result = await askPath(Buffer.concat([file, end]), Buffer.concat([name, end]), address, PAGE_SIZE);
  return result < 0 ? result : bytes.subarray(0, result);
}

export function getXattrAt(
  dirfd: number,
  file: Uint8Array,
  name: Uint8Array,
  address: number,
  length: number,
): number {
  const path = pathAt(dirfd, file);
  if (path < 0) return path;
  const key = pathArgument(1, name);
  return key < 0 ? key : (file.length === 0 ? c.get : c.lget)(path, key, address, length);
}

export function setXattrAt(
  dirfd: number,
  file: Uint8Array,
  name: Uint8Array,
  address: number,
  length: number,
  flags: number,
): number {
  const path = pathAt(dirfd, file);
  if (path < 0) return path;
  const key = pathArgument(1, name);
  return key < 0 ? key : (file.length === 0 ? c.set : c.lset)(path, key, address, length, flags);
}

function listXattrAt(dirfd: number, file: Uint8Array, address: number, length: number): number {
  const path = pathAt(dirfd, file);
  return path < 0 ? path : (file.length === 0 ? c.list : c.llist)(path, address, length);
}

export function removeXattrAt(dirfd: number, file: Uint8Array, name: Uint8Array): number {
  const path = pathAt(dirfd, file);
  if (path < 0) return path;
  const key = pathArgument(1, name);
  return key < 0 ? key : (file.length === 0 ? c.remove : c.lremove)(path, key);
}
