// Arrays that grow: records of 32-bit words and heaps of bytes, for tables that are being built.
import { compareBytes } from "./names.js";

/** Records of `width` 32-bit words each. The words are little-endian in memory: they are the file's bytes. */
export class Records {
  words: Uint32Array;
  count = 0;
  readonly width: number;

  constructor(width: number, capacity = 64) {
    this.width = width;
    this.words = new Uint32Array(width * Math.max(1, capacity));
  }

  /** Index in `words` of a new record, all zeros. */
  push(): number {
    const at = this.count * this.width;
    if (at === this.words.length) {
      const grown = new Uint32Array(this.words.length * 2);
      grown.set(this.words);
      this.words = grown;
    }
    this.count++;
    return at;
  }

  get bytes(): Uint8Array {
    return new Uint8Array(this.words.buffer, 0, this.count * this.width * 4);
  }
}

/** Bytes appended one piece after the other. */
export class Heap {
  data: Uint8Array;
  length = 0;

  constructor(capacity = 1024) {
    this.data = new Uint8Array(Math.max(16, capacity));
  }

  /** Appends bytes [start, end) and returns where they begin. */
  append(bytes: Uint8Array, start = 0, end = bytes.length): number {
    const at = this.length;
    const length = end - start;
    this.reserve(length);
    // A loop beats set() with a subarray for what names are made of.
    if (length <= 64) for (let i = 0; i < length; i++) this.data[at + i] = bytes[start + i] as number;
    else this.data.set(bytes.subarray(start, end), at);
    this.length = at + length;
    return at;
  }

  get bytes(): Uint8Array {
    return this.data.subarray(0, this.length);
  }

  private reserve(length: number): void {
    if (this.length + length <= this.data.length) return;
    const grown = new Uint8Array(Math.max(this.length + length, this.data.length * 2));
    grown.set(this.bytes);
    this.data = grown;
  }
}

/** Finds keys of the same width in a heap: digest to its index. Keys must be evenly distributed in their first bytes. */
export class DigestIndex {
  readonly heap: Heap;
  private slots: Int32Array;
  private count = 0;

  constructor(capacity = 64) {
    this.heap = new Heap(capacity * 32);
    this.slots = new Int32Array(powerOfTwo(capacity * 2));
  }

  /** The index of an equal digest, or the next index after adding this one; tell them apart by `size` before. */
  add(bytes: Uint8Array, start: number): number {
    if (this.count * 2 >= this.slots.length) this.grow();
    const found = this.find(bytes, start);
    if (found >= 0) return (this.slots[found] as number) - 1;
    this.slots[~found] = ++this.count;
    this.heap.append(bytes, start, start + 32);
    return this.count - 1;
  }

  get size(): number {
    return this.count;
  }

  private find(bytes: Uint8Array, start: number): number {
    const mask = this.slots.length - 1;
    const { data } = this.heap;
    for (let slot = first(bytes, start) & mask; ; slot = (slot + 1) & mask) {
      const at = ((this.slots[slot] as number) - 1) * 32;
      if (at < 0) return ~slot;
      if (compareBytes(bytes, start, start + 32, data, at, at + 32) === 0) return slot;
    }
  }

  private grow(): void {
    this.slots = new Int32Array(this.slots.length * 2);
    const mask = this.slots.length - 1;
    for (let i = 0; i < this.count; i++) {
      let slot = first(this.heap.data, i * 32) & mask;
      while (this.slots[slot] !== 0) slot = (slot + 1) & mask;
      this.slots[slot] = i + 1;
    }
  }
}

function first(bytes: Uint8Array, at: number): number {
  return (
    (bytes[at] as number) |
    ((bytes[at + 1] as number) << 8) |
    ((bytes[at + 2] as number) << 16) |
    ((bytes[at + 3] as number) << 24)
  );
}

/** The power of two that is not below `value`. */
export function powerOfTwo(value: number): number {
  let power = 16;
  while (power < value) power *= 2;
  return power;
}
