// One member of a tar as all its headers together describe it: the 512-byte header, GNU's long names, and the PAX
// records, which win over both global records and header fields. A long name of GNU's wins over a PAX path, as in Go.
import { displayName } from "../../base/bytes.js";
import type { Xattr } from "../../imgfs/tree.js";
import { S_IFBLK, S_IFCHR, S_IFDIR, S_IFIFO, S_IFLNK, S_IFMT, S_IFREG } from "../../sys/stat.js";
import { blockSize, parseDevice, type RawHeader, readNumber } from "./header.js";
import { literalKey, type PaxRecords, paxInteger, paxTime, paxXattrs } from "./pax.js";
import { OldSparse, parseSparseList, readOldSparse, type SparseMap } from "./sparse.js";

/** Type flags of members. Any other one, apart from extension headers, is an error. */
const memberTypes = {
  "\0": "file",
  "0": "file",
  "1": "link",
  "2": "symlink",
  "3": "char",
  "4": "block",
  "5": "directory",
  "6": "fifo",
  "7": "file",
  S: "file",
} as const;
export type MemberType = (typeof memberTypes)[keyof typeof memberTypes];

const typesByMode: Readonly<Record<number, MemberType>> = {
  [S_IFREG]: "file",
  [S_IFDIR]: "directory",
  [S_IFLNK]: "symlink",
  [S_IFCHR]: "char",
  [S_IFBLK]: "block",
  [S_IFIFO]: "fifo",
};

/** The type by which a tar holds an object of this st_mode, which is no socket. */
export function memberTypeOf(mode: number): MemberType {
  return typesByMode[mode & S_IFMT] as MemberType;
}

/** One member of the archive, all headers applied. */
export interface TarMember {
  readonly type: MemberType;
  /** As it stands in the archive: may be absolute, hold `..`, end with a slash. Never holds a NUL. */
  readonly path: Buffer;
  /** Target of a hard link or symlink; empty otherwise. */
  readonly target: Buffer;
  /** As it stands: bits above 0o7777 may be set. */
  readonly mode: number;
  readonly uid: number;
  readonly gid: number;
  /** Bytes of a file, holes included; 0 for other types. */
  readonly size: number;
  readonly mtimeSec: number;
  /** In [0, 1e9). */
  readonly mtimeNsec: number;
  readonly devMajor: number;
  readonly devMinor: number;
  readonly xattrs: readonly Xattr[];
  /** The name is no marker, whatever it looks like. */
  readonly literal: boolean;
}

/** What extension headers said about the member that follows them. */
export interface Extensions {
  longName?: Buffer;
  longLink?: Buffer;
  local?: PaxRecords;
}

/** How the map of a sparse file is completed: it is there, or it comes in blocks before the data. */
export type SparsePlan =
  | { readonly form: "ready"; readonly map: SparseMap }
  | { readonly form: "blocks"; readonly pairs: number[]; readonly realSize: number }
  | { readonly form: "text"; readonly realSize: number };

export interface MemberPlan {
  readonly member: TarMember;
  /** Bytes that the archive holds for it, a 1.0 sparse map included. */
  readonly storedSize: number;
  readonly sparse: SparsePlan | undefined;
}

type Values = ReadonlyMap<string, Buffer>;

const noBytes = Buffer.alloc(0);
const noValues: Values = new Map();
const noXattrs: readonly Xattr[] = [];

/** The name to use in a message about the member, as far as it can be told. */
export function memberName(header: RawHeader, extensions: Extensions): string {
  const pax = extensions.local?.values;
  return displayName(extensions.longName ?? pax?.get("GNU.sparse.name") ?? pax?.get("path") ?? header.name);
}

/** Puts the headers of a member together. Throws an Error that says what is wrong with them. */
export function planMember(
  header: RawHeader,
  block: Uint8Array,
  extensions: Extensions,
  global: Values | undefined,
): MemberPlan {
  const local = extensions.local?.values ?? noValues;
  const values = global === undefined ? local : new Map([...global, ...local]);
  const type = typeOf(header);
  const linked = type === "link" || type === "symlink";
  const storedSize = type === "file" ? numberOr(values, "size", header.size) : 0;
  if (storedSize < 0) throw new Error("negative size");
  const sparse = type === "file" ? planSparse(header, block, extensions.local) : undefined;
  const sparseName = sparse === undefined ? undefined : nonEmpty(local.get("GNU.sparse.name"));
  const mtime = nonEmpty(values.get("mtime"));
  const time = mtime === undefined ? { sec: header.mtime, nsec: 0 } : paxTime("mtime", mtime);
  const [devMajor, devMinor] = parseDevice(block, header.type);
  const path = extensions.longName ?? sparseName ?? nonEmpty(values.get("path")) ?? header.name;
  const target = linked
    ? (extensions.longLink ?? nonEmpty(values.get("linkpath")) ?? header.linkname)
    : noBytes;
  if (path.includes(0)) throw new Error("the name holds a NUL byte");
  if (target.includes(0)) throw new Error("the link target holds a NUL byte");
  const member: TarMember = {
    type,
    path,
    target,
    mode: header.mode,
    uid: numberOr(values, "uid", header.uid),
    gid: numberOr(values, "gid", header.gid),
    size: sparse === undefined ? storedSize : sparse.form === "ready" ? sparse.map.realSize : sparse.realSize,
    mtimeSec: time.sec,
    mtimeNsec: time.nsec,
    devMajor,
    devMinor,
    xattrs: values.size === 0 ? noXattrs : paxXattrs(values),
    literal: values.has(literalKey),
  };
  return { member, storedSize, sparse };
}

/** Before POSIX a directory was a file whose name ends with a slash. */
function typeOf(header: RawHeader): MemberType {
  const flag = header.type;
  if (!Object.hasOwn(memberTypes, flag)) throw new Error(`unknown type ${JSON.stringify(flag)}`);
  if (flag === "\0" && header.name.at(-1) === 0x2f) return "directory";
  return memberTypes[flag as keyof typeof memberTypes];
}

function planSparse(
  header: RawHeader,
  block: Uint8Array,
  local: PaxRecords | undefined,
): SparsePlan | undefined {
  if (header.type === "S") {
    const pairs: number[] = [];
    const realSize = readNumber(block, OldSparse.realSize, 12, "sparse size");
    const more = readOldSparse(block, OldSparse.header, pairs);
    return more ? { form: "blocks", pairs, realSize } : { form: "ready", map: { pairs, realSize } };
  }
  if (local === undefined) return undefined;
  const { values, sparsePairs } = local;
  const size = values.get("GNU.sparse.realsize") ?? values.get("GNU.sparse.size");
  const list = values.get("GNU.sparse.map");
  const major = values.get("GNU.sparse.major")?.toString("latin1") ?? "0";
  const minor = values.get("GNU.sparse.minor")?.toString("latin1") ?? "0";
  if (size === undefined) {
    if (list === undefined && sparsePairs.length === 0 && major === "0") return undefined;
    throw new Error("sparse file without a size");
  }
  const realSize = paxInteger("GNU.sparse.size", size);
  if (major === "1" && minor === "0") return { form: "text", realSize };
  if (major !== "0") throw new Error(`unknown sparse format ${major}.${minor}`);
  const pairs = list === undefined ? sparsePairs : parseSparseList(list);
  return { form: "ready", map: { pairs, realSize } };
}

function nonEmpty(value: Buffer | undefined): Buffer | undefined {
  return value === undefined || value.length === 0 ? undefined : value;
}

function numberOr(values: Values, key: string, otherwise: number): number {
  const value = nonEmpty(values.get(key));
  return value === undefined ? otherwise : paxInteger(key, value);
}

/** `size` rounded up to whole blocks. */
export function paddedSize(size: number): number {
  return Math.ceil(size / blockSize) * blockSize;
}
