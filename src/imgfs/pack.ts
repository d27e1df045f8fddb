// The small variable parts, as msgpack. Nothing is handed to the decoder before a scan has shown that every length
// and count in it fits the bytes, that there are no extension types and that it is not nested deeply: a hostile file
// must not make the decoder allocate, recurse or compile.
// Only maps with text keys, arrays, text, byte strings and unsigned integers below 2**53 occur.
import { Packr } from "msgpackr/pack";

// The entry without the native addon, which takes longer to load than these few bytes to decode.
const packr = new Packr({ useRecords: false, variableMapSize: true, int64AsType: "number" });
const DEPTH_MAX = 8;

/** Msgpack bytes of a value made of maps, arrays, strings, safe unsigned integers and Buffers: the same each time. */
export function pack(value: unknown): Buffer {
  return Buffer.from(packr.pack(value));
}

/** The value of msgpack bytes, or undefined when they are not exactly one value of the kinds {@link pack} takes. */
export function unpack(bytes: Uint8Array): unknown {
  if (scan(bytes, 0, 0) !== bytes.length) return undefined;
  try {
    // As a Buffer, because byte strings come out as what went in.
    return packr.unpack(Buffer.from(bytes.buffer, bytes.byteOffset, bytes.length));
  } catch {
    return undefined;
  }
}

/** An unsigned integer of at most 53 bits as {@link pack} wants it: beyond 32 bits as BigInt, or it would be a float. */
export function packable(value: number): number | bigint {
  return value > 0xffff_ffff ? BigInt(value) : value;
}

const BAD = -1;

/** The end of the value at `at`, or BAD. */
function scan(bytes: Uint8Array, at: number, depth: number): number {
  const type = bytes[at];
  if (type === undefined || depth > DEPTH_MAX) return BAD;
  const next = at + 1;
  if (type < 0x80) return next;
  if (type < 0x90) return scanMany(bytes, next, (type & 15) * 2, depth);
  if (type < 0xa0) return scanMany(bytes, next, type & 15, depth);
  if (type < 0xc0) return within(bytes, next + (type & 31));
  switch (type) {
    case 0xc4:
    case 0xd9:
      return within(bytes, next + 1 + number(bytes, next, 1));
    case 0xc5:
    case 0xda:
      return within(bytes, next + 2 + number(bytes, next, 2));
    case 0xc6:
    case 0xdb:
      return within(bytes, next + 4 + number(bytes, next, 4));
    case 0xcc:
      return within(bytes, next + 1);
    case 0xcd:
      return within(bytes, next + 2);
    case 0xce:
      return within(bytes, next + 4);
    case 0xcf:
      return number(bytes, next, 8) <= Number.MAX_SAFE_INTEGER ? next + 8 : BAD;
    case 0xdc:
      return scanMany(bytes, next + 2, number(bytes, next, 2), depth);
    case 0xdd:
      return scanMany(bytes, next + 4, number(bytes, next, 4), depth);
    case 0xde:
      return scanMany(bytes, next + 2, number(bytes, next, 2) * 2, depth);
    case 0xdf:
      return scanMany(bytes, next + 4, number(bytes, next, 4) * 2, depth);
    default:
      return BAD;
  }
}

function scanMany(bytes: Uint8Array, at: number, count: number, depth: number): number {
  if (count > bytes.length - at) return BAD;
  for (let i = 0; i < count && at !== BAD; i++) at = scan(bytes, at, depth + 1);
  return at;
}

function within(bytes: Uint8Array, end: number): number {
  return end <= bytes.length ? end : BAD;
}

/** A big-endian number of `width` bytes; Infinity where the bytes end before. */
function number(bytes: Uint8Array, at: number, width: number): number {
  let value = 0;
  for (let i = 0; i < width; i++) value = value * 256 + (bytes[at + i] ?? Number.POSITIVE_INFINITY);
  return value;
}
