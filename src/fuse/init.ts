// The INIT handshake: what this side wants, what the kernel offers, and the part of both that is then in force.
// Never asked for: POSIX_LOCKS and FLOCK_LOCKS (the kernel does both exactly; SETLKW would block the loop),
// AUTO_INVAL_DATA (the mount is the only writer: what the kernel has cached stays right).
import { Errno } from "../base/errno.js";
import * as abi from "./abi.js";
import { InitBit, type InitFlag, InitIn, InitOut } from "./abi.js";
import type { ConnectionInfo, FileSystem } from "./operations.js";
import type { Exchange } from "./wire.js";

/** Largest READ and WRITE: 256 pages, the kernel's default limit (fs.fuse.max_pages_limit). */
export const MAX_TRANSFER = 1 << 20;
const MAX_PAGES = 256;
/** Readahead and writeback requests in flight; beyond the second number the kernel calls the device congested. */
const MAX_BACKGROUND = 64;
const CONGESTION_THRESHOLD = 48;

/** When the kernel asks for attributes while it lists: never, when it expects them to be of use, always. */
export type ReaddirplusMode = "never" | "auto" | "always";

export interface InitOptions {
  readonly readdirplus: ReaddirplusMode;
}

const always: readonly InitFlag[] = [
  "ASYNC_READ",
  "ATOMIC_O_TRUNC",
  "BIG_WRITES",
  "PARALLEL_DIROPS",
  "ABORT_ERROR",
  "MAX_PAGES",
  "CACHE_SYMLINKS",
  "EXPLICIT_INVAL_DATA",
  "HANDLE_KILLPRIV_V2",
  "SETXATTR_EXT",
  "INIT_EXT",
];

function wanted(fs: FileSystem, options: InitOptions): InitFlag[] {
  const flags = [...always];
  if (fs.features?.shortWrites !== true) flags.push("ASYNC_DIO");
  if (fs.readdir !== undefined && options.readdirplus !== "never") flags.push("DO_READDIRPLUS");
  if (fs.readdir !== undefined && options.readdirplus === "auto") flags.push("READDIRPLUS_AUTO");
  if (fs.open === undefined) flags.push("NO_OPEN_SUPPORT");
  if (fs.opendir === undefined) flags.push("NO_OPENDIR_SUPPORT");
  if (fs.features?.posixAcl === true) flags.push("POSIX_ACL", "DONT_MASK");
  if (fs.features?.export === true) flags.push("EXPORT_SUPPORT");
  return flags;
}

/** How an INIT request ended: agreed; to be asked again with our major version; or never to work. */
export type InitOutcome =
  | { readonly kind: "agreed"; readonly info: ConnectionInfo; readonly reply: number }
  | { readonly kind: "again"; readonly reply: number }
  | { readonly kind: "refused"; readonly reason: string; readonly reply: number };

/** Answers the INIT request loaded in the exchange; `reply` is the body length or a negative errno. */
export function negotiate(x: Exchange, fs: FileSystem, options: InitOptions): InitOutcome {
  // Kernels before 7.36 send only the first 16 bytes.
  if (x.bodyLength < InitIn.flags2)
    return { kind: "refused", reason: "malformed INIT", reply: -Errno.EINVAL };
  const major = x.u32(InitIn.major);
  const minor = x.u32(InitIn.minor);
  if (major > abi.PROTOCOL_MAJOR) {
    const again = x.rawBody(InitOut.byteLength);
    again.setUint32(InitOut.major, abi.PROTOCOL_MAJOR, true);
    again.setUint32(InitOut.minor, abi.PROTOCOL_MINOR, true);
    return { kind: "again", reply: InitOut.byteLength };
  }
  if (major < abi.PROTOCOL_MAJOR || minor < abi.PROTOCOL_MINOR_LEAST) {
    const least = `${abi.PROTOCOL_MAJOR}.${abi.PROTOCOL_MINOR_LEAST}`;
    return {
      kind: "refused",
      reason: `the kernel's FUSE protocol is ${major}.${minor}, at least ${least} is needed (Linux 5.4)`,
      reply: -Errno.EOPNOTSUPP,
    };
  }
  const offered = offeredFlags(x);
  const flags = wanted(fs, options).reduce((sum, flag) => sum | (1n << BigInt(InitBit[flag])), 0n) & offered;
  if ((flags & bit("SETXATTR_EXT")) !== 0n) x.setxattrLength = abi.SetxattrIn.byteLength;

  const out = x.rawBody(InitOut.byteLength);
  const protocolMinor = Math.min(minor, abi.PROTOCOL_MINOR);
  out.setUint32(InitOut.major, abi.PROTOCOL_MAJOR, true);
  out.setUint32(InitOut.minor, protocolMinor, true);
  out.setUint32(InitOut.maxReadahead, x.u32(InitIn.maxReadahead), true);
  out.setUint32(InitOut.flags, Number(flags & 0xffff_ffffn), true);
  out.setUint32(InitOut.flags2, Number(flags >> 32n), true);
  out.setUint16(InitOut.maxBackground, MAX_BACKGROUND, true);
  out.setUint16(InitOut.congestionThreshold, CONGESTION_THRESHOLD, true);
  out.setUint32(InitOut.maxWrite, MAX_TRANSFER, true);
  out.setUint32(InitOut.timeGran, 1, true);
  out.setUint16(InitOut.maxPages, MAX_PAGES, true);
  return {
    kind: "agreed",
    info: { protocolMinor, flags, maxWrite: MAX_TRANSFER },
    reply: InitOut.byteLength,
  };
}

function bit(flag: InitFlag): bigint {
  return 1n << BigInt(InitBit[flag]);
}

function offeredFlags(x: Exchange): bigint {
  const low = BigInt(x.u32(InitIn.flags));
  if ((low & bit("INIT_EXT")) === 0n || x.bodyLength < InitIn.byteLength) return low;
  return low | (BigInt(x.u32(InitIn.flags2)) << 32n);
}

/** The names of the flags in force, for log lines. */
export function flagNames(flags: bigint): string[] {
  return (Object.keys(InitBit) as InitFlag[]).filter((flag) => (flags & bit(flag)) !== 0n);
}
