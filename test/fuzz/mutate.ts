// Changes to bytes that know nothing of what the bytes mean.
import { getNumber, interesting, putNumber, type Random } from "./random.js";

/** A number to put where `old` was: one of the interesting ones, one near by, one of `related`, or any. */
export function otherNumber(random: Random, old: number, related: readonly number[] = []): number {
  switch (random.below(related.length > 0 ? 5 : 3)) {
    case 0:
      return random.pick(interesting);
    case 1:
      return old + random.pick([-1, 1, -2, 2, 8, -8, 64, 0x10000, -0x10000]);
    case 2:
      return random.next() >>> random.below(32);
    default:
      return random.pick(related) + random.pick([0, 0, -1, 1]);
  }
}

/** A changed copy of `bytes`; `other` is what may be spliced in. */
export function mutateBytes(random: Random, bytes: Buffer, other: Buffer = bytes): Buffer {
  const { length } = bytes;
  const at = random.below(length);
  const span = 1 + random.below(random.pick([4, 32, 512, length]));
  switch (random.below(10)) {
    case 0:
    case 1: {
      const changed = Buffer.from(bytes);
      if (length > 0) changed[at] = (changed[at] as number) ^ (1 << random.below(8));
      return changed;
    }
    case 2: {
      const changed = Buffer.from(bytes);
      random.bytes(Math.min(4, length - at)).copy(changed, at);
      return changed;
    }
    case 3:
    case 4: {
      const changed = Buffer.from(bytes);
      const width = random.pick([1, 2, 4, 8]);
      const aligned = at - (at % width);
      putNumber(changed, aligned, width, otherNumber(random, getNumber(changed, aligned, width), [length]));
      return changed;
    }
    case 5: {
      const changed = Buffer.from(bytes);
      const to = random.below(length);
      const taken = Buffer.from(bytes.subarray(to, to + span));
      bytes.copy(changed, to, at, at + span);
      if (random.once(2)) taken.copy(changed, at);
      return changed;
    }
    case 6:
      return Buffer.concat([bytes.subarray(0, at), bytes.subarray(at + span)]);
    case 7: {
      const from = random.below(other.length);
      return Buffer.concat([bytes.subarray(0, at), other.subarray(from, from + span), bytes.subarray(at)]);
    }
    case 8: {
      const changed = Buffer.from(bytes);
      const from = random.below(other.length);
      other.copy(changed, at, from, from + span);
      return changed;
    }
    default:
      return random.once(2)
        ? bytes.subarray(0, at)
        : Buffer.concat([bytes, random.once(2) ? Buffer.alloc(span) : random.bytes(Math.min(span, 64))]);
  }
}
