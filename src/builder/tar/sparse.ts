// Sparse files in tar: GNU's old form (type S, map in headers), PAX 0.0 and 0.1 (map in the extended header) and PAX
// 1.0 (map as text before the data); GNU tar manual, "Storing Sparse Files". All give one map of the stored pieces.
// Invariant: pieces ascend without overlap inside the real size and add up to what is stored, or it is an error.
import { readNumber } from "./header.js";

/** Pieces one file may have; a map is held in memory while its file is read. */
const maxPieces = 1 << 18;

/** Offset and length of each stored piece of a file, and the file's real size. */
export interface SparseMap {
  /** Offset, length, offset, length, ... */
  readonly pairs: readonly number[];
  readonly realSize: number;
}

/** Checks a map against the bytes that are stored. */
export function checkSparse(map: SparseMap, storedSize: number): SparseMap {
  const { pairs, realSize } = map;
  if (!Number.isSafeInteger(realSize) || realSize < 0) throw new Error("sparse file without a valid size");
  let end = 0;
  let stored = 0;
  for (let i = 0; i < pairs.length; i += 2) {
    const offset = pairs[i] as number;
    const length = pairs[i + 1] as number;
    if (offset < end || length < 0 || offset + length > realSize)
      throw new Error("sparse map out of order or range");
    end = offset + length;
    stored += length;
  }
  if (stored !== storedSize) throw new Error(`sparse map of ${stored} bytes for ${storedSize} stored bytes`);
  return map;
}

/** Appends a piece; throws when there are too many. */
function addPiece(pairs: number[], offset: number, length: number): void {
  if (pairs.length >= 2 * maxPieces) throw new Error(`sparse map of more than ${maxPieces} pieces`);
  pairs.push(offset, length);
}

/** Where the old GNU form keeps its map: four pieces in the header, 21 in each block that follows. */
export const OldSparse = {
  header: { at: 386, pieces: 4, more: 482 },
  extension: { at: 0, pieces: 21, more: 504 },
  realSize: 483,
} as const;

/** Takes the pieces of one block of the old form; true when another block follows. */
export function readOldSparse(
  block: Uint8Array,
  place: { readonly at: number; readonly pieces: number; readonly more: number },
  pairs: number[],
): boolean {
  for (let i = 0; i < place.pieces; i++) {
    const at = place.at + 24 * i;
    if (block[at] === 0 && block[at + 12] === 0) break;
    addPiece(
      pairs,
      readNumber(block, at, 12, "sparse offset"),
      readNumber(block, at + 12, 12, "sparse length"),
    );
  }
  return block[place.more] !== 0;
}

/** The map of format 0.1: `offset,length,offset,length,...`. */
export function parseSparseList(value: Buffer): number[] {
  const pairs: number[] = [];
  if (value.length === 0) return pairs;
  const numbers = value.toString("latin1").split(",");
  if (numbers.length % 2 !== 0) throw new Error("sparse map of an odd length");
  for (let i = 0; i < numbers.length; i += 2) addPiece(pairs, decimal(numbers[i]), decimal(numbers[i + 1]));
  return pairs;
}

function decimal(text: string | undefined): number {
  if (text === undefined || !/^\d{1,16}$/.test(text))
    throw new Error("sparse map holds something else than numbers");
  return Number(text);
}

/** The map of format 1.0, which comes block by block: a count, then offsets and lengths, each on a line. */
export class SparseText {
  readonly pairs: number[] = [];
  private number = 0;
  private digits = 0;
  private offset = -1;
  private left = -1;

  /** Takes one block; true when the map is complete. What follows in the block is padding. */
  take(block: Uint8Array): boolean {
    for (const c of block) {
      if (this.left === 0) return true;
      if (c === 0x0a) {
        this.line();
      } else if (c >= 0x30 && c <= 0x39 && this.digits < 16) {
        this.number = this.number * 10 + (c - 0x30);
        this.digits++;
      } else {
        throw new Error("sparse map holds something else than numbers");
      }
    }
    return this.left === 0;
  }

  private line(): void {
    if (this.digits === 0) throw new Error("sparse map with an empty line");
    const value = this.number;
    this.number = 0;
    this.digits = 0;
    if (this.left < 0) {
      if (value > maxPieces) throw new Error(`sparse map of more than ${maxPieces} pieces`);
      this.left = value;
    } else if (this.offset < 0) {
      this.offset = value;
    } else {
      addPiece(this.pairs, this.offset, value);
      this.offset = -1;
      this.left--;
    }
  }
}

/** Takes the pieces and holes of a body in order. */
export interface BodySink {
  /** Bytes of the file, in use until the call returns only. */
  body(bytes: Uint8Array): void;
  /** `length` zeros that the archive does not store. */
  hole(length: number): void;
}

/** Turns the stored bytes of a sparse file into pieces and holes. */
export class SparseBody {
  private position = 0;
  private next = 0;
  private readonly map: SparseMap;
  private readonly sink: BodySink;

  constructor(map: SparseMap, sink: BodySink) {
    this.map = map;
    this.sink = sink;
  }

  write(bytes: Uint8Array): void {
    const { pairs } = this.map;
    for (let at = 0; at < bytes.length; ) {
      const start = pairs[this.next] as number;
      const end = start + (pairs[this.next + 1] as number);
      if (end <= this.position || end === start) {
        this.next += 2;
        continue;
      }
      if (this.position < start) this.skipTo(start);
      const take = Math.min(bytes.length - at, end - this.position);
      this.sink.body(bytes.subarray(at, at + take));
      this.position += take;
      at += take;
    }
  }

  end(): void {
    if (this.position < this.map.realSize) this.skipTo(this.map.realSize);
  }

  private skipTo(offset: number): void {
    this.sink.hole(offset - this.position);
    this.position = offset;
  }
}
