// Buffers that end where memory ends: a library that reads or writes one byte too many takes the process with it.
import { openLibrary } from "../../src/sys/library.js";
import { allocatePages, PAGE_SIZE } from "../../src/sys/memory.js";
import { must } from "./kind.js";

const PATTERN = 0x5a;
const FRONT = 256;
const untouched = Buffer.alloc(FRONT, PATTERN);

export class Fence {
  private readonly bytes: Uint8Array;

  /** Room for `capacity` bytes at most. */
  constructor(capacity: number) {
    const length = Math.ceil((capacity + FRONT) / PAGE_SIZE) * PAGE_SIZE;
    const { address, bytes } = allocatePages(length + PAGE_SIZE);
    const protect = openLibrary("libc.so.6")?.<(at: number, size: number, how: number) => number>(
      "mprotect",
      "int",
      ["uintptr_t", "size_t", "int"],
    );
    must(protect?.(address + length, PAGE_SIZE, 0) === 0, "memory cannot be protected");
    this.bytes = bytes.subarray(0, length);
  }

  /** `length` bytes in front of the fence. */
  take(length: number): Buffer {
    const start = this.bytes.length - length;
    this.bytes.fill(PATTERN, start - FRONT, start);
    return Buffer.from(this.bytes.buffer, this.bytes.byteOffset + start, length);
  }

  /** A copy of `bytes` in front of the fence. */
  hold(bytes: Uint8Array): Buffer {
    const held = this.take(bytes.length);
    held.set(bytes);
    return held;
  }

  /** That nothing was written before the last `length` bytes taken. */
  check(length: number): void {
    const start = this.bytes.length - length;
    must(
      untouched.compare(this.bytes, start - FRONT, start) === 0,
      "bytes were written in front of a buffer",
    );
  }
}
