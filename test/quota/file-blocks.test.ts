// What a file's blocks are, as its filesystem tells it: the short way for one block says what the long way for all says.
import { closeSync, ftruncateSync, mkdtempSync, openSync, rmSync, writeSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { afterEach, beforeEach, describe, expect, it } from "vitest";
import { chargedBlocks, eachFree, isCharged, measureBlocks } from "../../src/overlay/quota/file-blocks.js";
import { BLOCK } from "../../src/quota/blocks.js";

const BLOCKS = 64;

describe("the blocks of a file", () => {
  let folder: string;
  let fd: number;

  beforeEach(() => {
    folder = mkdtempSync(join(tmpdir(), "imgfs-blocks-"));
    fd = openSync(join(folder, "file"), "w+");
  });

  afterEach(() => {
    closeSync(fd);
    rmSync(folder, { recursive: true });
  });

  /** Writes a byte at each of the offsets, and makes the file so large. */
  function write(size: number, ...offsets: readonly number[]): void {
    ftruncateSync(fd, size);
    for (const offset of offsets) writeSync(fd, "x", offset);
  }

  const told = (ranges: readonly number[]): number[] =>
    Array.from({ length: BLOCKS }, (_, block) => isCharged(fd, block, ranges));

  it.each([
    { name: "none", size: 0, offsets: [], ranges: [], charged: [] },
    { name: "a hole", size: BLOCKS * BLOCK, offsets: [], ranges: [], charged: [] },
    {
      name: "the first and the last byte of a block",
      size: BLOCKS * BLOCK,
      offsets: [0, 8 * BLOCK - 1, 40 * BLOCK],
      ranges: [],
      charged: [0, 7, 40],
    },
    { name: "the end of a file in a block", size: 10, offsets: [9], ranges: [], charged: [0] },
    {
      name: "reserved ones beside data, over data and beyond the end",
      size: 20 * BLOCK,
      offsets: [5 * BLOCK, 12 * BLOCK],
      ranges: [4, 6, 13, 14, 60, 62],
      charged: [4, 5, 12, 13, 60, 61],
    },
  ])("are those that have data or are reserved: $name", ({ size, offsets, ranges, charged }) => {
    write(size, ...offsets);
    expect(told(ranges).flatMap((is, block) => (is === 1 ? [block] : []))).toEqual(charged);
    expect(measureBlocks(fd, ranges)).toMatchObject({ count: charged.length });
    const free: number[] = [];
    eachFree(fd, 0, BLOCKS, ranges, (from, to) => {
      for (let block = from; block < to; block++) free.push(block);
    });
    expect(free).toEqual(Array.from({ length: BLOCKS }, (_, i) => i).filter((i) => !charged.includes(i)));
    for (let block = 0; block < BLOCKS; block++) {
      expect(chargedBlocks(fd, block, block + 1, ranges)).toBe(charged.includes(block) ? 1 : 0);
    }
  });

  it("are an error where the descriptor is none", () => {
    expect(isCharged(100_000, 0, [])).toBe(-9);
    expect(isCharged(100_000, 3, [2, 4])).toBe(1);
  });
});
