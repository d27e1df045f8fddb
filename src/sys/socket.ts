// A pair of connected sockets over which another program hands us a descriptor (unix(7), SCM_RIGHTS).
import { bind, check } from "./libc.js";
import { allocatePages, PAGE_SIZE, type Region } from "./memory.js";

const socketpairCall = bind<[number, number, number, number]>("socketpair", "int", [
  "int",
  "int",
  "int",
  "uintptr_t",
]);
const recvmsgCall = bind<[number, number, number]>("recvmsg", "int64_t", ["int", "uintptr_t", "int"]);

const AF_UNIX = 1;
const SOCK_STREAM_CLOEXEC = 0o2000001;
const SOL_SOCKET = 1;
const SCM_RIGHTS = 1;
const MSG_DONTWAIT = 0x40;
const MSG_CMSG_CLOEXEC = 0x4000_0000;

/** Two connected stream sockets, both close-on-exec. Throws FsError. */
export function createSocketPair(): readonly [number, number] {
  const { address, view } = allocatePages(PAGE_SIZE);
  check(socketpairCall(AF_UNIX, SOCK_STREAM_CLOEXEC, 0, address), "socketpair");
  return [view.getInt32(0, true), view.getInt32(4, true)];
}

const IOVEC = 64;
const CONTROL = 128;
const BYTE = 256;
const CONTROL_LENGTH = 24;

/** struct msghdr with one byte of data and room for one descriptor, on 64-bit Linux. */
function messageHeader({ address, view }: Region): void {
  view.setBigUint64(16, BigInt(address + IOVEC), true);
  view.setBigUint64(24, 1n, true);
  view.setBigUint64(32, BigInt(address + CONTROL), true);
  view.setBigUint64(40, BigInt(CONTROL_LENGTH), true);
  view.setBigUint64(IOVEC, BigInt(address + BYTE), true);
  view.setBigUint64(IOVEC + 8, 1n, true);
}

/**
 * The descriptor that lies in `socket`, close-on-exec; undefined when none was sent. Does not wait. Fails with a negative
 * errno.
 */
export function receiveFd(socket: number): number | undefined {
  const region = allocatePages(PAGE_SIZE);
  const { address, view } = region;
  messageHeader(region);
  const received = recvmsgCall(socket, address, MSG_DONTWAIT | MSG_CMSG_CLOEXEC);
  if (received <= 0) return received === 0 ? undefined : received;
  const length = Number(view.getBigUint64(CONTROL, true));
  const level = view.getInt32(CONTROL + 8, true);
  const type = view.getInt32(CONTROL + 12, true);
  if (Number(view.getBigUint64(40, true)) < 20 || length !== 20) return undefined;
  return level === SOL_SOCKET && type === SCM_RIGHTS ? view.getInt32(CONTROL + 16, true) : undefined;
}
