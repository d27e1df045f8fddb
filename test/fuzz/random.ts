// Numbers that look random and follow from a seed: an input is made again from its seed alone.

export class Random {
  private state: number;

  constructor(seed: number) {
    this.state = Math.imul(seed ^ 0x9e3779b9, 0x85ebca6b) >>> 0;
    this.next();
  }

  /** 32 bits (mulberry32). */
  next(): number {
    this.state = (this.state + 0x6d2b79f5) >>> 0;
    let t = this.state;
    t = Math.imul(t ^ (t >>> 15), t | 1);
    t ^= t + Math.imul(t ^ (t >>> 7), t | 61);
    return (t ^ (t >>> 14)) >>> 0;
  }

  /** In [0, count); 0 where count is. */
  below(count: number): number {
    return count <= 1 ? 0 : Math.floor((this.next() / 0x1_0000_0000) * count);
  }

  pick<T>(list: readonly T[]): T {
    return list[this.below(list.length)] as T;
  }

  /** True once in `times`. */
  once(times: number): boolean {
    return this.below(times) === 0;
  }

  bytes(length: number): Buffer {
    return Buffer.from(Array.from({ length }, () => this.next() & 0xff));
  }
}

/** Numbers at which fields of 8 to 64 bits turn over, and those a reader might compare with. */
export const interesting: readonly number[] = [
  0,
  1,
  2,
  3,
  15,
  16,
  127,
  128,
  255,
  256,
  4095,
  4096,
  4097,
  0x7fff,
  0x8000,
  0xfffe,
  0xffff,
  0x1_0000,
  (1 << 17) - 1,
  1 << 17,
  (1 << 17) + 1,
  0x7fff_ffff,
  0x8000_0000,
  0xffff_fffe,
  0xffff_ffff,
  0x1_0000_0000,
  2 ** 34,
  2 ** 48 - 1,
  2 ** 48,
  Number.MAX_SAFE_INTEGER - 1,
  Number.MAX_SAFE_INTEGER,
  2 ** 53,
  2 ** 63,
  2 ** 64 - 2048,
  -1,
  -2,
  -4096,
];

/** Writes the low `width` bytes (1, 2, 4 or 8) of a number, little-endian; what does not fit is cut off. */
export function putNumber(bytes: Buffer, at: number, width: number, value: number): void {
  let rest = BigInt.asUintN(64, BigInt(Math.trunc(value)));
  for (let i = 0; i < width && at + i < bytes.length; i++, rest >>= 8n) bytes[at + i] = Number(rest & 0xffn);
}

export function getNumber(bytes: Buffer, at: number, width: number): number {
  let value = 0;
  for (let i = width - 1; i >= 0; i--) value = value * 256 + (bytes[at + i] ?? 0);
  return value;
}
