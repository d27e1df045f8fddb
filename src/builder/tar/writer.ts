// Writes what stands before a member's data: its header, and in front of that a PAX header for what ustar cannot say.
// `tar-stream` is not used for this: it joins PAX records as text, so that a binary value (a file capability) comes out
// as other bytes, and knows neither nanoseconds nor sparse files.
// Invariant: reader.ts gives back the same member, to the byte; the same member gives the same bytes (no clock, no pid).
import type { Xattr } from "../../imgfs/tree.js";
import { blockSize, HeaderLayout } from "./header.js";
import { type MemberType, paddedSize, type TarMember } from "./member.js";
import { literalKey } from "./pax.js";

/** Two blocks of zeros: the end of an archive. */
export const endOfArchive: Buffer = Buffer.alloc(2 * blockSize);

const flags: Readonly<Record<MemberType, string>> = {
  file: "0",
  link: "1",
  symlink: "2",
  char: "3",
  block: "4",
  directory: "5",
  fifo: "6",
};

const maxSize = 0o77777777777;
const maxId = 0o7777777;
const nameWidth = 100;
const noBytes = Buffer.alloc(0);

interface Block {
  readonly name: Buffer;
  readonly linkname: Buffer;
  readonly flag: string;
  readonly mode: number;
  readonly uid: number;
  readonly gid: number;
  readonly size: number;
  readonly mtime: number;
  readonly device: readonly [number, number];
}

/**
 * The headers of `member`, and for a sparse file its map: the bytes of its data follow, filled up with zeros to whole
 * blocks. `pieces` is offset, length, offset, length, ... of what a sparse file stores (PAX sparse format 1.0; GNU tar
 * manual, "Storing Sparse Files"); a file that ends with a hole ends with a piece of length 0 there.
 */
export function encodeMember(member: TarMember, pieces?: readonly number[]): Buffer {
  const { path, target, uid, gid, mtimeSec, mtimeNsec } = member;
  const records: Buffer[] = [];
  const put = (key: string, value: Uint8Array | string): void => {
    records.push(record(key, typeof value === "string" ? Buffer.from(value, "latin1") : value));
  };
  const map = pieces === undefined ? noBytes : sparseMap(pieces);
  const stored = member.type === "file" ? storedSize(member, pieces) + map.length : 0;
  let name = path;
  if (pieces === undefined) {
    if (path.length > nameWidth) put("path", path);
  } else {
    // The name in the header is for readers that do not know the format: they must not take the map for the file.
    const slash = path.lastIndexOf(0x2f);
    name = Buffer.concat([Buffer.from("GNUSparseFile.0/"), path.subarray(slash + 1)]);
    put("GNU.sparse.major", "1");
    put("GNU.sparse.minor", "0");
    put("GNU.sparse.name", path);
    put("GNU.sparse.realsize", String(member.size));
  }
  if (member.literal) put(literalKey, "1");
  if (target.length > nameWidth) put("linkpath", target);
  if (stored > maxSize) put("size", String(stored));
  if (uid > maxId) put("uid", String(uid));
  if (gid > maxId) put("gid", String(gid));
  if (mtimeNsec !== 0 || mtimeSec < 0 || mtimeSec > maxSize) put("mtime", timeText(mtimeSec, mtimeNsec));
  for (const xattr of member.xattrs) put(...xattrRecord(xattr));
  const header = encodeBlock({
    name,
    linkname: target,
    flag: flags[member.type],
    mode: member.mode & 0o7777,
    uid: Math.min(uid, maxId),
    gid: Math.min(gid, maxId),
    size: Math.min(stored, maxSize),
    mtime: Math.min(Math.max(mtimeSec, 0), maxSize),
    device: [member.devMajor, member.devMinor],
  });
  return Buffer.concat([...extendedHeader(records, path), header, map]);
}

/** Zeros after `stored` bytes of data. */
export function dataPadding(stored: number): Buffer {
  return endOfArchive.subarray(0, paddedSize(stored) - stored);
}

function storedSize(member: TarMember, pieces: readonly number[] | undefined): number {
  return pieces === undefined
    ? member.size
    : pieces.reduce((sum, value, i) => (i % 2 === 1 ? sum + value : sum), 0);
}

function extendedHeader(records: readonly Buffer[], path: Buffer): Buffer[] {
  if (records.length === 0) return [];
  const body = Buffer.concat(records);
  const header = encodeBlock({
    name: Buffer.concat([Buffer.from("PaxHeaders/"), path]),
    linkname: noBytes,
    flag: "x",
    mode: 0o644,
    uid: 0,
    gid: 0,
    size: body.length,
    mtime: 0,
    device: [0, 0],
  });
  return [header, body, dataPadding(body.length)];
}

/** `length key=value\n`, the length counting its own digits. */
function record(key: string, value: Uint8Array): Buffer {
  const rest = Buffer.concat([Buffer.from(` ${key}=`, "latin1"), value, newline]);
  let length = rest.length + 1;
  while (length !== rest.length + String(length).length) length = rest.length + String(length).length;
  return Buffer.concat([Buffer.from(String(length)), rest]);
}

const newline = Buffer.from("\n");

/**
 * SCHILY's raw form. A name with `=` would end its key there, and GNU tar decodes `%` in keys: those few are written in
 * libarchive's form, URL-encoded with the value in base64.
 */
function xattrRecord({ name, value }: Xattr): [string, Uint8Array | string] {
  if (!/[=%]/.test(name)) return [`SCHILY.xattr.${name}`, value];
  const key = name.replace(/[^A-Za-z0-9._-]/g, (c) => `%${c.charCodeAt(0).toString(16).padStart(2, "0")}`);
  return [`LIBARCHIVE.xattr.${key}`, value.toString("base64")];
}

/** Decimal seconds; before 1970 the fraction goes away from zero, as GNU tar and Go write and read it. */
function timeText(sec: number, nsec: number): string {
  if (nsec === 0) return String(sec);
  const [whole, fraction, sign] = sec < 0 ? [-(sec + 1), 1e9 - nsec, "-"] : [sec, nsec, ""];
  return `${sign}${whole}.${String(fraction).padStart(9, "0").replace(/0+$/, "")}`;
}

function sparseMap(pieces: readonly number[]): Buffer {
  const text = Buffer.from(`${pieces.length / 2}\n${pieces.map((value) => `${value}\n`).join("")}`);
  return Buffer.concat([text, dataPadding(text.length)]);
}

function encodeBlock(block: Block): Buffer {
  const out = Buffer.alloc(blockSize);
  const octal = (at: number, width: number, value: number): void => {
    out.write(value.toString(8).padStart(width - 1, "0"), at, "latin1");
  };
  const L = HeaderLayout;
  out.set(block.name.subarray(0, nameWidth), L.name);
  octal(L.mode, 8, block.mode);
  octal(L.uid, 8, block.uid);
  octal(L.gid, 8, block.gid);
  octal(L.size, 12, block.size);
  octal(L.mtime, 12, block.mtime);
  out.write(block.flag, L.type, "latin1");
  out.set(block.linkname.subarray(0, nameWidth), L.linkname);
  out.write("ustar\x0000", L.magic, "latin1");
  octal(L.devmajor, 8, block.device[0]);
  octal(L.devminor, 8, block.device[1]);
  out.write("        ", L.checksum, "latin1");
  octal(
    L.checksum,
    7,
    out.reduce((sum, byte) => sum + byte, 0),
  );
  out[L.checksum + 6] = 0;
  return out;
}
