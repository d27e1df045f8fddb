// Changes to blobs: as they lie in the file, so that digests catch them, or in records, with digests that fit again.
import { framesOf, type Part, type Parts, putTogether, sealed, setFrames, takeApart } from "./image-parts.js";
import { mutateBytes, otherNumber } from "./mutate.js";
import { getNumber, putNumber, type Random } from "./random.js";

/** A changed copy whose digests no longer fit. */
export function mutateRaw(random: Random, file: Buffer, other: Buffer): Buffer {
  let changed = file;
  for (let i = random.pick([1, 1, 1, 2, 4]); i > 0; i--) {
    if (random.once(3) && changed.length > 4096) {
      // Most of a file may be data; this keeps to the header.
      const header = mutateBytes(random, changed.subarray(0, 4096), other.subarray(0, 4096));
      changed = Buffer.concat([header, changed.subarray(4096)]);
    } else changed = mutateBytes(random, changed, other);
  }
  return changed;
}

/** A changed copy whose digests fit. */
export function mutateSealed(random: Random, file: Buffer, other: Buffer): Buffer {
  const parts = takeApart(file);
  const donor = takeApart(other);
  for (let i = random.pick([1, 1, 1, 2, 3, 6]); i > 0; i--) mutateParts(random, parts, donor);
  const changed = putTogether(parts);
  if (!random.once(6)) return changed;
  mutateHeader(random, changed);
  if (!random.once(4)) return sealed(changed);
  return sealed(mutateBytes(random, changed, other));
}

function mutateParts(random: Random, parts: Parts, donor: Parts): void {
  const counts = parts.sections.map(({ bytes, recordSize }) => bytes.length / recordSize);
  const part = random.pick(parts.sections.filter(({ bytes }) => bytes.length > 0));
  const choice = random.below(20);
  if (choice < 10) mutateField(random, part, counts);
  else if (choice < 14) mutateRecords(random, part);
  else if (choice < 15) {
    const same = donor.sections.find(({ id }) => id === part.id);
    if (same !== undefined) part.bytes = Buffer.from(same.bytes);
  } else if (choice < 18) mutateData(random, parts, donor);
  else if (choice < 19) part.bytes = part.bytes.subarray(0, random.below(part.bytes.length));
  else {
    const heap = random.pick(parts.sections.filter(({ recordSize }) => recordSize === 1));
    heap.bytes = mutateBytes(random, heap.bytes, donor.data);
  }
}

/** One field of one record; of a heap a few bytes. */
function mutateField(random: Random, part: Part, counts: readonly number[]): void {
  const { recordSize, bytes } = part;
  if (recordSize === 1) {
    part.bytes = mutateBytes(random, bytes);
    return;
  }
  const record = random.below(bytes.length / recordSize) * recordSize;
  const width = random.pick([1, 2, 2, 4, 4, 4, 4, 8]);
  const at = record + random.below(Math.max(1, recordSize / width)) * width;
  const twin = random.below(bytes.length / recordSize) * recordSize + (at - record);
  const related = [...counts, getNumber(bytes, twin, width)];
  putNumber(bytes, at, width, otherNumber(random, getNumber(bytes, at, width), related));
}

function mutateRecords(random: Random, part: Part): void {
  const { recordSize, bytes } = part;
  const count = bytes.length / recordSize;
  const one = random.below(count) * recordSize;
  const two = random.below(count) * recordSize;
  const record = (at: number): Buffer => Buffer.from(bytes.subarray(at, at + recordSize));
  switch (random.below(5)) {
    case 0: {
      const first = record(one);
      record(two).copy(bytes, one);
      first.copy(bytes, two);
      return;
    }
    case 1:
      record(two).copy(bytes, one);
      return;
    case 2:
      part.bytes = Buffer.concat([bytes.subarray(0, one), bytes.subarray(one + recordSize)]);
      return;
    case 3:
      part.bytes = Buffer.concat([bytes.subarray(0, one), record(two), bytes.subarray(one)]);
      return;
    default: {
      const span = recordSize * (1 + random.below(count));
      part.bytes = Buffer.concat([bytes, bytes.subarray(one, one + span)]);
    }
  }
}

function mutateData(random: Random, parts: Parts, donor: Parts): void {
  const frames = framesOf(parts);
  if (frames.length === 0) {
    parts.data = mutateBytes(random, parts.data, donor.data);
    return;
  }
  const at = random.below(frames.length);
  const frame = frames[at] as Buffer;
  switch (random.below(6)) {
    case 0:
      frames[at] = Buffer.from(random.pick(frames));
      break;
    case 1:
      frames[at] = Buffer.alloc(random.pick([0, 0, 1, frame.length, 1 << 17, (1 << 17) + 1]));
      break;
    case 2:
      frames.splice(at, random.below(2), Buffer.from(random.pick(frames)));
      break;
    default:
      frames[at] = mutateBytes(random, frame, parts.data);
  }
  setFrames(parts, frames);
}

const headerFields: readonly (readonly [at: number, width: number])[] = [
  [0x08, 2],
  [0x0a, 2],
  [0x0c, 4],
  [0x10, 8],
  [0x18, 8],
  ...[0x20, 0x28, 0x30, 0x38, 0x40, 0x48].map((at) => [at, 8] as const),
  ...[0x50, 0x51, 0x52, 0x53, 0x54, 0x55].map((at) => [at, 1] as const),
  [0x56, 2],
  [0x58, 4],
  [0x5c, 4],
  [0x60, 8],
  [0x68, 8],
  [0x70, 8],
  [0x78, 1],
  [0x900, 2],
];

function mutateHeader(random: Random, file: Buffer): void {
  for (let i = random.pick([1, 1, 2, 3]); i > 0; i--) {
    if (random.once(3)) {
      const entry = 0x100 + random.below(random.pick([18, 64])) * 32;
      const [offset, width] = random.pick([
        [0, 2],
        [2, 2],
        [4, 4],
        [8, 8],
        [16, 8],
        [24, 8],
      ] as const);
      const at = entry + offset;
      putNumber(file, at, width, otherNumber(random, getNumber(file, at, width), [file.length]));
    } else if (random.once(5)) {
      mutateBytes(random, file.subarray(0x902, 0x902 + 64)).copy(file, 0x902, 0, 64);
      putNumber(file, 0x900, 2, random.below(70));
    } else {
      const [at, width] = random.pick(headerFields);
      putNumber(file, at, width, otherNumber(random, getNumber(file, at, width), [file.length]));
    }
  }
}
