// What makes a process's surroundings a container's: its root, hostname, loopback, rights. Calls that have no wrapper
// in every C library go by number (the same table as in include/uapi/asm-generic/unistd.h, and x86's).
// Results are 0 or a negative errno. They bind the calling thread, and what it starts afterwards.
import { bind } from "./libc.js";
import { allocatePages, pathArgument } from "./memory.js";

const syscall2 = bind<[number, number, number]>("syscall", "int64_t", ["long", "uintptr_t", "uintptr_t"]);
const syscall5 = bind<[number, number, number, number, number, number]>("syscall", "int64_t", [
  "long",
  "int",
  "uintptr_t",
  "uint32_t",
  "uintptr_t",
  "size_t",
]);
const fchdirCall = bind<[number]>("fchdir", "int", ["int"]);
const hostnameCall = bind<[number, number]>("sethostname", "int", ["uintptr_t", "size_t"]);
const prctlCall = bind<[number, number, number, number, number]>("prctl", "int", [
  "int",
  "ulong",
  "ulong",
  "ulong",
  "ulong",
]);
const socketCall = bind<[number, number, number]>("socket", "int", ["int", "int", "int"]);
const ioctlCall = bind<[number, number, number]>("ioctl", "int", ["int", "ulong", "uintptr_t"]);
const closeCall = bind<[number]>("close", "int", ["int"]);

const SYS_pivot_root = process.arch === "arm64" ? 41 : 155;
const SYS_mount_setattr = 442;

/** pivot_root(".", "."): the working directory becomes the root, the old root lies on top of it there. */
export function pivotHere(): number {
  return syscall2(SYS_pivot_root, pathArgument(0, Buffer.from(".")), pathArgument(1, Buffer.from(".")));
}

/** Makes an open directory the working directory. */
export function changeDirectory(fd: number): number {
  return fchdirCall(fd);
}

const AT_RECURSIVE = 0x8000;
const AT_FDCWD = -100;
const MOUNT_ATTR_RDONLY = 1n;
const attributes = allocatePages(4096);

/** Makes the mount at a path read-only, with `recursive` those below it, too. ENOSYS before Linux 5.12. */
export function makeReadOnly(path: string, recursive: boolean): number {
  const at = pathArgument(0, Buffer.from(path));
  if (at < 0) return at;
  attributes.view.setBigUint64(0, MOUNT_ATTR_RDONLY, true);
  return syscall5(SYS_mount_setattr, AT_FDCWD, at, recursive ? AT_RECURSIVE : 0, attributes.address, 32);
}

export function setHostname(name: string): number {
  const at = pathArgument(0, Buffer.from(name));
  return at < 0 ? at : hostnameCall(at, Buffer.byteLength(name));
}

const SIOCSIFFLAGS = 0x8914;
const IFF_UP = 1;

/** Brings the loopback interface of this network namespace up (netdevice(7)). */
export function raiseLoopback(): number {
  const socket = socketCall(2, 2, 0);
  if (socket < 0) return socket;
  const { address, bytes, view } = allocatePages(4096);
  bytes.set(Buffer.from("lo\0"));
  view.setInt16(16, IFF_UP, true);
  const result = ioctlCall(socket, SIOCSIFFLAGS, address);
  closeCall(socket);
  return result;
}

const PR_SET_PDEATHSIG = 1;
const PR_CAPBSET_DROP = 24;
const SIGKILL = 9;

/** The process is killed when the one that started it ends; to be called anew when its ids have changed. */
export function dieWithParent(): number {
  return prctlCall(PR_SET_PDEATHSIG, SIGKILL, 0, 0, 0);
}

/** Programs started from now on never have a capability that is not in the list (capabilities(7)). */
export function limitCapabilities(kept: readonly number[]): void {
  for (let number = 0; number < 64; number++) {
    if (!kept.includes(number)) prctlCall(PR_CAPBSET_DROP, number, 0, 0, 0);
  }
}
