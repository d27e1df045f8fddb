// Arrays that grow: records of 32-bit words and heaps of bytes, for tables that are being built.
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

/** Numbers sha256 digests in the order they are first added. */
export class DigestIndex {
  /** The digests, 8 words each; room for half as many as there are slots. */
  private words: Uint32Array;
  private slots: Int32Array;
  private count = 0;

  constructor(capacity = 64) {
    this.slots = new Int32Array(powerOfTwo(capacity * 2));
    this.words = new Uint32Array(this.slots.length * 4);
  }

  /**
   * The number of the digest at `words[start, start + 8)`. It is new when it equals what {@link size} was before.
   */
  add(words: Uint32Array, start: number): number {
    if ((this.count + 1) * 2 > this.slots.length) this.grow();
    const { slots, words: own } = this;
    const mask = slots.length - 1;
    let slot = (words[start] as number) & mask;
    for (let other = slots[slot] as number; other !== 0; other = slots[slot] as number) {
      const at = (other - 1) * 8;
      let i = 0;
      while (i < 8 && own[at + i] === words[start + i]) i++;
      if (i === 8) return other - 1;
      slot = (slot + 1) & mask;
    }
    slots[slot] = this.count + 1;
    const at = this.count * 8;
    for (let i = 0; i < 8; i++) own[at + i] = words[start + i] as number;
    return this.count++;
  }

  get size(): number {
    return this.count;
  }

  /** The digests, 32 bytes each. */
  get bytes(): Uint8Array {
    return new Uint8Array(this.words.buffer, 0, this.count * 32);
  }

  private grow(): void {
    const words = new Uint32Array(this.words.length * 2);
    words.set(this.words.subarray(0, this.count * 8));
    this.words = words;
    this.slots = new Int32Array(this.slots.length * 2);
    const mask = this.slots.length - 1;
    for (let i = 0; i < this.count; i++) {
      let slot = (words[i * 8] as number) & mask;
      while (this.slots[slot] !== 0) slot = (slot + 1) & mask;
      this.slots[slot] = i + 1;
    }
  }
}

/** The 8 words of a 32-byte digest, as {@link DigestIndex} takes them. */
export function digestWords(digest: Uint8Array): Uint32Array {
  return new Uint32Array(digest.slice().buffer);
}

/** The power of two that is not below `value`. */
export function powerOfTwo(value: number): number {
  let power = 16;
  while (power < value) power *= 2;
  return power;
}
