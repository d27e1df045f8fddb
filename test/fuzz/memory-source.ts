// Memory that tells when somebody reads or writes where he must not: a blob in memory, and a buffer between guards.
import type { BlobSource } from "../../src/imgfs/source.js";
import { allocatePages } from "../../src/sys/memory.js";
import { must, Wrong } from "./kind.js";

const GUARD = 4096;
export const ROOM = 128 << 10;
const PATTERN = 0xee;

const region = allocatePages(ROOM + 2 * GUARD);
const untouched = Buffer.alloc(region.length, PATTERN);

/** The target of a read of up to `length` bytes, all of it set to a pattern. */
export function guardedTarget(length: number): { address: number; bytes: Uint8Array; start: number } {
  must(length <= ROOM, "a longer read than there is room for");
  // The end is where too much would be written.
  const start = GUARD + ROOM - length;
  region.bytes.fill(PATTERN, start - GUARD, start + length + GUARD);
  return { address: region.address + start, bytes: region.bytes, start };
}

/** That nothing but the `length` bytes that were asked for has been written. */
export function checkGuards(length: number): void {
  const start = GUARD + ROOM - length;
  for (const from of [start - GUARD, start + length]) {
    if (untouched.compare(region.bytes, from, from + GUARD, 0, GUARD) !== 0) {
      throw new Wrong("bytes were written outside the target of a read");
    }
  }
}

/**
 * A blob in memory without a descriptor. Whatever is asked for that does not lie in it is remembered in `outside`,
 * because who asked may take the failure for damage.
 */
export function memorySource(name: string, blob: Buffer, outside: string[]): BlobSource {
  const part = (offset: number, length: number): Buffer => {
    const fits =
      Number.isSafeInteger(offset) &&
      Number.isSafeInteger(length) &&
      offset >= 0 &&
      length >= 0 &&
      offset + length <= blob.length;
    if (!fits) outside.push(`${length} bytes at ${offset} of ${blob.length}`);
    return fits ? blob.subarray(offset, offset + length) : Buffer.alloc(0);
  };
  return {
    name,
    size: blob.length,
    fd: -1,
    read(offset, address, length) {
      const at = address - region.address;
      if (!(at >= 0 && at + length <= region.length)) outside.push(`memory at ${at} of the target`);
      else region.bytes.set(part(offset, length), at);
      return length;
    },
    readBytes(offset, into) {
      const bytes = part(offset, into.length);
      into.set(bytes);
      return bytes.length;
    },
    close() {},
  };
}
