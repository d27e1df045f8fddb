// PAX extended headers (POSIX pax, "pax Extended Header"; libarchive and star for the vendor keys): records
// `length key=value\n` whose values are bytes, never text. A value's meaning is taken only by the functions below.
// Invariant: a record that does not fit its header exactly is an error, so no byte is ever read as something else.
import { type Name, nameOf } from "../../base/bytes.js";
import type { Xattr } from "../../imgfs/tree.js";

/** Values by key. The keys of sparse format 0.0 repeat: their pairs are in `sparsePairs`. */
export interface PaxRecords {
  readonly values: Map<string, Buffer>;
  /** Offset, length, offset, length, ... as format 0.0 lists them. */
  readonly sparsePairs: number[];
}

/** Seconds and nanoseconds of a time. */
export interface PaxTime {
  readonly sec: number;
  readonly nsec: number;
}

/** What Linux accepts (linux/limits.h): more could not be shown by any mount. */
const maxXattrName = 255;
const maxXattrValue = 65536;

/**
 * Says that no part of the member's name is a marker, also where it begins with `.wh.`: a tree of files may hold any
 * name. For other programs it means nothing, so a layer of an image may not have it; see LayerTree.
 */
export const literalKey = "IMGFS.literal";

const schily = "SCHILY.xattr.";
const libarchive = "LIBARCHIVE.xattr.";

/** Parses the body of an extended header. `bytes` stays in use: the values are views of it. */
export function parsePax(bytes: Buffer): PaxRecords {
  const values = new Map<string, Buffer>();
  const sparsePairs: number[] = [];
  for (let at = 0; at < bytes.length; ) {
    const end = recordEnd(bytes, at);
    const space = bytes.indexOf(0x20, at);
    const equals = bytes.indexOf(0x3d, space + 1);
    if (equals < 0 || equals >= end || equals === space + 1) throw new Error("pax record without a key");
    const key = bytes.toString("latin1", space + 1, equals);
    const value = bytes.subarray(equals + 1, end - 1);
    if (key === "GNU.sparse.offset" || key === "GNU.sparse.numbytes") {
      const isOffset = key === "GNU.sparse.offset";
      if ((sparsePairs.length % 2 === 0) !== isOffset)
        throw new Error("pax sparse offsets and lengths do not pair");
      sparsePairs.push(paxInteger(key, value));
    } else {
      values.set(key, value);
    }
    at = end;
  }
  if (sparsePairs.length % 2 !== 0) throw new Error("pax sparse offsets and lengths do not pair");
  return { values, sparsePairs };
}

/** The offset after the record at `at`, whose newline has been checked. */
function recordEnd(bytes: Buffer, at: number): number {
  let length = 0;
  let i = at;
  for (; i < bytes.length && i < at + 10; i++) {
    const c = bytes[i] as number;
    if (c < 0x30 || c > 0x39) break;
    length = length * 10 + (c - 0x30);
  }
  const end = at + length;
  if (i === at || bytes[i] !== 0x20 || end > bytes.length || end <= i + 1 || bytes[end - 1] !== 0x0a) {
    throw new Error("malformed pax record");
  }
  return end;
}

/** A decimal integer, signed; exact or an Error. */
export function paxInteger(key: string, value: Buffer): number {
  const text = value.toString("latin1");
  const number = Number(text);
  if (!/^-?\d{1,19}$/.test(text) || !Number.isSafeInteger(number))
    throw new Error(`pax ${key} is not a number`);
  return number;
}

/** A time: decimal seconds with an optional fraction, of which nine digits count; -1.5 is half a second before -1. */
export function paxTime(key: string, value: Buffer): PaxTime {
  const match = /^(-?)(\d{1,16})(?:\.(\d*))?$/.exec(value.toString("latin1"));
  const whole = Number(match?.[2]);
  if (!match || !Number.isSafeInteger(whole)) throw new Error(`pax ${key} is not a time`);
  const nsec = Number((match[3] ?? "").slice(0, 9).padEnd(9, "0"));
  if (match[1] === "") return { sec: whole, nsec };
  if (whole === Number.MAX_SAFE_INTEGER && nsec > 0) throw new Error(`pax ${key} is not a time`);
  return nsec === 0 ? { sec: whole === 0 ? 0 : -whole, nsec } : { sec: -whole - 1, nsec: 1e9 - nsec };
}

/**
 * The extended attributes: SCHILY's raw form, and libarchive's (name URL-encoded, value in base64) for names that have
 * no SCHILY form. Values are copies; an empty one is kept.
 */
export function paxXattrs(values: ReadonlyMap<string, Buffer>): readonly Xattr[] {
  let found: Map<Name, Buffer> | undefined;
  let decoded: Map<Name, Buffer> | undefined;
  for (const [key, value] of values) {
    if (key.startsWith(schily)) {
      found ??= new Map();
      found.set(key.slice(schily.length) as Name, Buffer.from(value));
    } else if (key.startsWith(libarchive)) {
      decoded ??= new Map();
      decoded.set(urlDecode(key.slice(libarchive.length)), Buffer.from(value.toString("latin1"), "base64"));
    }
  }
  if (found === undefined && decoded === undefined) return none;
  const all = [...new Map([...(decoded ?? []), ...(found ?? [])])].map(([name, value]) => ({ name, value }));
  for (const { name, value } of all) {
    if (name.length === 0 || name.length > maxXattrName || name.includes("\0")) {
      throw new Error("extended attribute name is empty or longer than 255 bytes");
    }
    if (value.length > maxXattrValue) {
      throw new Error(`extended attribute of ${value.length} bytes, at most ${maxXattrValue} are accepted`);
    }
  }
  return all;
}

const none: readonly Xattr[] = [];

function urlDecode(text: string): Name {
  const decoded = text.replace(/%([0-9a-fA-F]{2})/g, (_, hex: string) =>
    String.fromCharCode(parseInt(hex, 16)),
  );
  return nameOf(Buffer.from(decoded, "latin1"));
}
