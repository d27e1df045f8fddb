// Waiting for several descriptors at once, and eventfds by which one thread wakes another.
import { bind, check } from "./libc.js";
import { allocatePages } from "./memory.js";

const pollCall = bind<[number, number, number]>("poll", "int", ["uintptr_t", "ulong", "int"]);
const eventfdCall = bind<[number, number]>("eventfd", "int", ["uint32_t", "int"]);
const readCall = bind<[number, number, number]>("read", "int", ["int", "uintptr_t", "int"]);
const writeCall = bind<[number, number, number]>("write", "int", ["int", "uintptr_t", "int"]);

const EFD_CLOEXEC_NONBLOCK = 0o2004000;
const POLLIN = 1;
const one = allocatePages(16);
one.view.setUint32(0, 1, true);

/** A non-blocking eventfd. Throws FsError. */
export function createEventFd(): number {
  return check(eventfdCall(0, EFD_CLOEXEC_NONBLOCK), "eventfd");
}

/** Makes an eventfd readable; callable from any thread. 8 or a negative errno. */
export function signalEventFd(fd: number): number {
  return writeCall(fd, one.address, 8);
}

/** Makes it unreadable again. */
export function clearEventFd(fd: number): void {
  readCall(fd, one.address + 8, 8);
}

export interface Poll {
  /** Blocks until a descriptor has something to say: readable, hung up or broken. The count, or a negative errno. */
  wait(timeoutMs: number): number;
  /** Whether the last wait found descriptor number `index` so. */
  ready(index: number): boolean;
}

/** Polls `fds` for input; with `events` 0 for what is always told, an error or the end. */
export function createPoll(fds: readonly number[], events: number = POLLIN): Poll {
  const table = allocatePages(fds.length * 8);
  fds.forEach((fd, index) => {
    table.view.setInt32(index * 8, fd, true);
    table.view.setInt16(index * 8 + 4, events, true);
  });
  return {
    wait: (timeoutMs) => pollCall(table.address, fds.length, timeoutMs),
    ready: (index) => table.view.getInt16(index * 8 + 6, true) !== 0,
  };
}
