// Sets of blocks as flat lists of ranges: [start, end, start, end, ...], ascending, neither touching nor empty.
// Invariant: a list is never changed; each function gives a new one, or the same where nothing changes.

export type Ranges = readonly number[];

export const noRanges: Ranges = [];

/** The set with blocks [start, end) in it. */
export function withRange(ranges: Ranges, start: number, end: number): Ranges {
  if (start >= end) return ranges;
  const result: number[] = [];
  let [from, to] = [start, end];
  let placed = false;
  for (let i = 0; i < ranges.length; i += 2) {
    const [a, b] = [ranges[i] as number, ranges[i + 1] as number];
    if (b < from) result.push(a, b);
    else if (a > to) {
      if (!placed) result.push(from, to);
      placed = true;
      result.push(a, b);
    } else {
      from = Math.min(from, a);
      to = Math.max(to, b);
    }
  }
  if (!placed) result.push(from, to);
  return result;
}

/** The set without blocks [start, end). */
export function withoutRange(ranges: Ranges, start: number, end: number): Ranges {
  if (start >= end || ranges.length === 0) return ranges;
  const result: number[] = [];
  for (let i = 0; i < ranges.length; i += 2) {
    const [a, b] = [ranges[i] as number, ranges[i + 1] as number];
    if (a < Math.min(b, start)) result.push(a, Math.min(b, start));
    if (Math.max(a, end) < b) result.push(Math.max(a, end), b);
  }
  return result;
}

/** The block after the last; 0 of none. */
export function endOf(ranges: Ranges): number {
  return ranges.at(-1) ?? 0;
}

/** The part of the set in blocks [start, end). */
export function within(ranges: Ranges, start: number, end: number): Ranges {
  return withoutRange(withoutRange(ranges, 0, start), end, Infinity);
}

/**
 * The set with the two ranges that lie nearest to each other made one, until it has `most` at the most.
 */
export function joined(ranges: Ranges, most: number): Ranges {
  let result = ranges;
  while (result.length > most * 2) {
    let at = 2;
    for (let i = 4; i < result.length; i += 2) {
      const gap = (result[i] as number) - (result[i - 1] as number);
      if (gap < (result[at] as number) - (result[at - 1] as number)) at = i;
    }
    result = [...result.slice(0, at - 1), ...result.slice(at + 1)];
  }
  return result;
}
