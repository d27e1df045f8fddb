// Latencies as histograms in shared memory: four steps to each power of two, so that a quantile is right to about a
// tenth, whatever was measured. Recording allocates nothing.
// Two kinds: of one thread that counts alone, in floating point, and of many that add by Atomics, in integers.

/** Steps of 1/8 microsecond are the finest that are told apart. */
const UNITS = 8_000;
const LARGEST = 0x7fff_ffff;
/** Buckets of one histogram: from 1/8 microsecond to four minutes. */
export const BUCKETS = 120;

/** The bucket of a time in milliseconds. */
export function bucketOf(milliseconds: number): number {
  const units = milliseconds * UNITS;
  const u = units >= LARGEST ? LARGEST : units | 0;
  if (u < 4) return Math.max(u, 0);
  const exponent = 31 - Math.clz32(u);
  return (exponent - 1) * 4 + ((u >>> (exponent - 2)) & 3);
}

/** Where a bucket begins, in milliseconds. */
function startOf(bucket: number): number {
  if (bucket < 4) return bucket / UNITS;
  const exponent = (bucket >> 2) + 1;
  return ((4 + (bucket & 3)) * 2 ** (exponent - 2)) / UNITS;
}

/** Latencies of one opcode, in microseconds. */
export interface Latency {
  readonly mean: number;
  /** Half of the requests took no longer. */
  readonly p50: number;
  /** Of a hundred requests 99 took no longer. */
  readonly p99: number;
  readonly max: number;
}

/**
 * What a histogram says: `countOf` gives the requests in a bucket, `total` and `longest` are in milliseconds. Undefined
 * where nothing has been measured.
 */
export function latencyOf(
  countOf: (bucket: number) => number,
  total: number,
  longest: number,
): Latency | undefined {
  let count = 0;
  for (let bucket = 0; bucket < BUCKETS; bucket++) count += countOf(bucket);
  if (count === 0) return undefined;
  const quantile = (share: number): number => {
    const rank = share * count;
    let below = 0;
    for (let bucket = 0; bucket < BUCKETS; bucket++) {
      const here = countOf(bucket);
      if (here > 0 && below + here >= rank) {
        const start = startOf(bucket);
        const width = (bucket + 1 < BUCKETS ? startOf(bucket + 1) : longest) - start;
        return Math.min(longest, start + (width * (rank - below)) / here);
      }
      below += here;
    }
    return longest;
  };
  return {
    mean: microseconds(total / count),
    p50: microseconds(quantile(0.5)),
    p99: microseconds(quantile(0.99)),
    max: microseconds(longest),
  };
}

/** To a tenth of a microsecond. */
function microseconds(milliseconds: number): number {
  return Math.round(milliseconds * 10_000) / 10;
}
