// Bytes as data: record layouts (offset and width by field name), names that are bytes, alignment.
// A file name, symlink target or xattr value is never decoded as UTF-8 on its way through the program.

/**
 * A file name as a JavaScript string with one char per byte (latin1), so that it can be a Map key and still keeps
 * every byte. Never print it: see {@link displayName}.
 */
export type Name = string & { readonly __brand: "Name" };

/** The Name of the bytes [start, end). */
export function nameOf(bytes: Uint8Array, start = 0, end = bytes.length): Name {
  return Buffer.from(bytes.buffer, bytes.byteOffset + start, end - start).toString("latin1") as Name;
}

/** The bytes of a Name. */
export function bytesOf(name: Name): Buffer {
  return Buffer.from(name, "latin1");
}

/** A Name from ordinary text, encoded as UTF-8. */
export function nameFromText(text: string): Name {
  return nameOf(Buffer.from(text, "utf8"));
}

const utf8 = new TextDecoder("utf-8", { fatal: true });

/** A name for people: UTF-8 where it is, `\xNN` for control characters and for bytes that are not UTF-8. */
export function displayName(name: Name | Uint8Array): string {
  const bytes = typeof name === "string" ? bytesOf(name) : name;
  let text: string;
  try {
    text = utf8.decode(bytes);
  } catch {
    text = Array.from(bytes, (b) => (b < 0x80 ? String.fromCharCode(b) : `\\x${b.toString(16)}`)).join("");
  }
  // biome-ignore lint/suspicious/noControlCharactersInRegex: control characters are what is replaced
  return text.replace(/[\x00-\x1f\x7f]/g, (c) => `\\x${c.charCodeAt(0).toString(16).padStart(2, "0")}`);
}

/** `value` rounded up to a multiple of `unit`, a power of two or not; both below 2**53. */
export function alignUp(value: number, unit: number): number {
  return Math.ceil(value / unit) * unit;
}

export const u8 = 1;
export const u16 = 2;
export const u32 = 4;
export const u64 = 8;
/** A field of `length` raw bytes. */
export const raw = (length: number): number => length;

/** Field name to byte offset, beside the record's whole length. */
export type Layout<K extends string> = Readonly<Record<K, number>> & { readonly byteLength: number };

/**
 * A packed record layout: offsets are computed from the widths in the order given, without padding of their own
 * (write padding as a field). Sizes are pinned by a test beside each table.
 */
export function struct<K extends string>(fields: Readonly<Record<K, number>>): Layout<K> {
  const offsets: Record<string, number> = {};
  let at = 0;
  for (const [name, width] of Object.entries<number>(fields)) {
    offsets[name] = at;
    at += width;
  }
  return Object.freeze({ ...offsets, byteLength: at }) as Layout<K>;
}

/** A little-endian unsigned 64-bit field as a number. Throws RangeError from 2**53 on. */
export function readU64(view: DataView, offset: number): number {
  const value = view.getUint32(offset, true) + view.getUint32(offset + 4, true) * 0x1_0000_0000;
  if (value > Number.MAX_SAFE_INTEGER) throw new RangeError(`64-bit value at ${offset} is out of range`);
  return value;
}

/** Writes an integer in [0, 2**53) as a little-endian unsigned 64-bit field. */
export function writeU64(view: DataView, offset: number, value: number): void {
  view.setUint32(offset, value >>> 0, true);
  view.setUint32(offset + 4, Math.floor(value / 0x1_0000_0000), true);
}
