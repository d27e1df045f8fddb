// Names inside tables: their hash, their order, and which names no directory may hold.
import { NAME_MAX, PATH_MAX } from "./layout.js";

/** The hash that orders a directory: FNV-1a over the bytes, then the finaliser of MurmurHash3. Unsigned. */
export function nameHash(bytes: Uint8Array, start: number, end: number): number {
  let hash = 0x811c9dc5;
  for (let at = start; at < end; at++) hash = Math.imul(hash ^ (bytes[at] as number), 0x01000193);
  hash = Math.imul(hash ^ (hash >>> 16), 0x85ebca6b);
  hash = Math.imul(hash ^ (hash >>> 13), 0xc2b2ae35);
  return (hash ^ (hash >>> 16)) >>> 0;
}

/** Bytewise order, a prefix before what it begins: negative, 0 or positive. */
export function compareBytes(
  a: Uint8Array,
  aStart: number,
  aEnd: number,
  b: Uint8Array,
  bStart: number,
  bEnd: number,
): number {
  const length = Math.min(aEnd - aStart, bEnd - bStart);
  for (let i = 0; i < length; i++) {
    const difference = (a[aStart + i] as number) - (b[bStart + i] as number);
    if (difference !== 0) return difference;
  }
  return aEnd - aStart - (bEnd - bStart);
}

/** Why the bytes are no name of a directory entry, or undefined when they are one. */
export function nameProblem(bytes: Uint8Array, start: number, end: number): string | undefined {
  const length = end - start;
  if (length === 0) return "empty name";
  if (length > NAME_MAX) return `name of ${length} bytes`;
  if (bytes[start] === 0x2e && (length === 1 || (length === 2 && bytes[start + 1] === 0x2e))) {
    return length === 1 ? 'name "."' : 'name ".."';
  }
  for (let at = start; at < end; at++) {
    const byte = bytes[at];
    if (byte === 0x2f) return "name with a slash";
    if (byte === 0) return "name with a NUL";
  }
  return undefined;
}

/** True for names joined by single slashes, without one in front or behind. */
export function isPath(path: Uint8Array): boolean {
  if (path.length > PATH_MAX) return false;
  for (let start = 0; start <= path.length; ) {
    const slash = path.indexOf(0x2f, start);
    const end = slash < 0 ? path.length : slash;
    if (nameProblem(path, start, end) !== undefined) return false;
    start = end + 1;
  }
  return true;
}
