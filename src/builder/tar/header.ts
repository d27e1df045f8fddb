// The 512-byte tar header: v7, ustar (POSIX 1003.1-1988), GNU and star (GNU tar manual, "Basic Tar Format").
// Fields are bytes and numbers as they stand; nothing here knows of extension headers or of what types mean.
import { raw, struct } from "../../base/bytes.js";

export const blockSize = 512;

/** Offsets of the fields; `prefix` is ustar's, star's is 131 bytes of it. */
export const HeaderLayout = struct({
  name: raw(100),
  mode: raw(8),
  uid: raw(8),
  gid: raw(8),
  size: raw(12),
  mtime: raw(12),
  checksum: raw(8),
  type: raw(1),
  linkname: raw(100),
  magic: raw(6),
  version: raw(2),
  uname: raw(32),
  gname: raw(32),
  devmajor: raw(8),
  devminor: raw(8),
  prefix: raw(155),
  padding: raw(12),
});

/** A header as it stands. Numbers may be negative where base-256 says so. */
export interface RawHeader {
  /** The type flag as one character; NUL for old files. */
  readonly type: string;
  /** Prefix and name joined; up to 256 bytes. */
  readonly name: Buffer;
  readonly linkname: Buffer;
  readonly mode: number;
  readonly uid: number;
  readonly gid: number;
  readonly size: number;
  readonly mtime: number;
}

const { name, mode, uid, gid, size, mtime, checksum, type, linkname, magic, version, prefix } = HeaderLayout;
const typesWithDevice = "34";

/** True for a block of zeros, the mark at the end of an archive. */
export function isZeroBlock(block: Uint8Array): boolean {
  if (block[0] !== 0) return false;
  for (let i = 1; i < blockSize; i++) if (block[i] !== 0) return false;
  return true;
}

/** Checks the checksum and takes the fields. Throws an Error that says which field is wrong. */
export function parseHeader(block: Uint8Array): RawHeader {
  checkChecksum(block);
  const flag = String.fromCharCode(block[type] as number);
  const plainName = fieldText(block, name, 100);
  const before = prefixLength(block);
  const prefixText = before === 0 ? undefined : fieldText(block, prefix, before);
  return {
    type: flag,
    name:
      prefixText === undefined || prefixText.length === 0
        ? plainName
        : Buffer.concat([prefixText, Buffer.from("/"), plainName]),
    linkname: fieldText(block, linkname, 100),
    mode: readNumber(block, mode, 8, "mode"),
    uid: readNumber(block, uid, 8, "uid"),
    gid: readNumber(block, gid, 8, "gid"),
    size: readNumber(block, size, 12, "size"),
    mtime: readNumber(block, mtime, 12, "mtime"),
  };
}

/**
 * Device numbers, [major, minor]. Apart from the rest because only devices have them: other types may hold anything
 * in those fields.
 */
export function parseDevice(block: Uint8Array, flag: string): readonly [number, number] {
  if (!typesWithDevice.includes(flag)) return [0, 0];
  return [
    readNumber(block, HeaderLayout.devmajor, 8, "device major"),
    readNumber(block, HeaderLayout.devminor, 8, "device minor"),
  ];
}

/**
 * A numeric field: octal digits between spaces and NULs, or base-256 when the top bit of its first byte is set: two's
 * complement, big-endian, bit 6 of the first byte is the sign. An empty field is 0.
 */
export function readNumber(block: Uint8Array, start: number, width: number, field: string): number {
  const end = start + width;
  const first = block[start] as number;
  if ((first & 0x80) !== 0) {
    let value = (first & 0x40) !== 0 ? (first & 0x7f) - 0x80 : first & 0x7f;
    for (let i = start + 1; i < end; i++) value = value * 256 + (block[i] as number);
    if (!Number.isSafeInteger(value)) throw new Error(`${field} is out of range`);
    return value;
  }
  let i = start;
  while (i < end && isBlank(block[i] as number)) i++;
  let value = 0;
  for (; i < end; i++) {
    const c = block[i] as number;
    if (isBlank(c)) break;
    if (c < 0x30 || c > 0x37) throw new Error(`${field} is not an octal number`);
    value = value * 8 + (c - 0x30);
  }
  return value;
}

/** A text field up to its first NUL, as a copy. */
function fieldText(block: Uint8Array, start: number, width: number): Buffer {
  let end = start;
  while (end < start + width && block[end] !== 0) end++;
  return Buffer.from(block.subarray(start, end));
}

function isBlank(c: number): boolean {
  return c === 0x20 || c === 0;
}

/** The sum of all bytes, the checksum field counting as spaces; some old tars summed signed bytes. */
function checkChecksum(block: Uint8Array): void {
  let unsigned = 8 * 0x20;
  let signed = unsigned;
  for (let i = 0; i < blockSize; i++) {
    if (i === checksum) i += 8;
    const c = block[i] as number;
    unsigned += c;
    signed += c < 0x80 ? c : c - 0x100;
  }
  let expected: number;
  try {
    expected = readNumber(block, checksum, 8, "checksum");
  } catch {
    throw new Error("bad header checksum");
  }
  if (expected !== unsigned && expected !== signed) throw new Error("bad header checksum");
}

/** Bytes of the prefix field that belong to the name. GNU and v7 headers hold other things there. */
function prefixLength(block: Uint8Array): number {
  const isUstar = startsWith(block, magic, "ustar\0") && startsWith(block, version, "00");
  if (!isUstar) return 0;
  return startsWith(block, 508, "tar\0") ? 131 : 155;
}

function startsWith(block: Uint8Array, offset: number, text: string): boolean {
  for (let i = 0; i < text.length; i++) if (block[offset + i] !== text.charCodeAt(i)) return false;
  return true;
}
