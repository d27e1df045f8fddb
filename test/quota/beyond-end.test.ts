// What is given back: all of what it had cost, at once, and nothing that a filesystem may have kept.
import { closeSync, openSync } from "node:fs";
import { join } from "node:path";
import { describe, expect, it } from "vitest";
import { FATTR_SIZE } from "../../src/fuse/operations.js";
import type { QuotaOptions } from "../../src/overlay/quota/start.js";
import { createLedgerMemory, Ledger } from "../../src/quota/ledger.js";
import { fallocateFd } from "../../src/sys/files.js";
import { emptyStat, statFd } from "../../src/sys/stat.js";
import { fresh, type Mounted, mount } from "../overlay/harness.js";
import { plainImage } from "../overlay/trees.js";

const BLOCK = 4096;
const KEEP_SIZE = 1;
const PUNCH = 3;
const image = plainImage();

function counting(upper: string): { fs: Mounted; ledger: Ledger } {
  const memory = createLedgerMemory();
  const quota: QuotaOptions = {
    mode: "exclusive",
    bytes: "unlimited",
    inodes: "unlimited",
    errno: "EDQUOT",
    imageBytes: 0,
    ledger: memory,
  };
  return { fs: mount(image, upper, { quota }), ledger: new Ledger(memory) };
}

function allocate(fs: Mounted, path: string, mode: number, offset: number, length: number): number {
  const nodeid = fs.nodeid(path);
  return fs.fs.fallocate?.(fs.q(nodeid), fs.openId(nodeid, 2), mode, offset, length) ?? -1;
}

/** Bytes that a file takes on disk, its xattrs and maps not counted where they fit beside it. */
function taken(path: string): number {
  const fd = openSync(path, "r");
  const stat = emptyStat();
  expect(statFd(fd, stat)).toBe(0);
  closeSync(fd);
  return stat.blocks * 512;
}

describe("credit", () => {
  it("of a punched hole comes also when nothing of the file was changed before in this mount", () => {
    const upper = fresh();
    const first = counting(upper);
    first.fs.write("file", "x".repeat(10 * BLOCK));
    first.fs.close();
    const { fs, ledger } = counting(upper);
    expect(ledger.bytes).toBe(10 * BLOCK);
    expect(allocate(fs, "file", PUNCH, BLOCK, 4 * BLOCK)).toBe(0);
    expect(ledger.bytes).toBe(6 * BLOCK);
    fs.close();
  });

  it("of what is reserved beyond the end comes by truncation alone: punching need not free it", () => {
    const upper = fresh();
    const { fs, ledger } = counting(upper);
    fs.write("file", "x".repeat(BLOCK));
    for (let round = 0; round < 4; round++) {
      const start = (1 + round * 100) * BLOCK;
      expect(allocate(fs, "file", KEEP_SIZE, start, 100 * BLOCK)).toBe(0);
      expect(allocate(fs, "file", PUNCH, start, 100 * BLOCK)).toBe(0);
      expect(taken(join(upper, "file"))).toBeLessThanOrEqual(ledger.bytes + BLOCK);
    }
    expect(ledger.bytes).toBe(401 * BLOCK);
    fs.setattr("file", { valid: FATTR_SIZE, size: BLOCK });
    expect(ledger.bytes).toBe(BLOCK);
    expect(taken(join(upper, "file"))).toBeLessThanOrEqual(2 * BLOCK);
    fs.close();
  });

  it("of a hole does not come for what was reserved before it", () => {
    const upper = fresh();
    const { fs, ledger } = counting(upper);
    fs.write("file", "x");
    fs.setattr("file", { valid: FATTR_SIZE, size: 50 * BLOCK });
    expect(allocate(fs, "file", KEEP_SIZE, 0, 50 * BLOCK)).toBe(0);
    expect(allocate(fs, "file", PUNCH, 10 * BLOCK + 1, 20 * BLOCK)).toBe(0);
    expect(ledger.bytes).toBe(31 * BLOCK);
    fs.close();
  });
});

// What a filesystem does is what the tests above rest on.
it("a filesystem reserves blocks beyond the end", () => {
  const upper = fresh();
  const { fs } = counting(upper);
  fs.write("file", "x");
  const fd = openSync(join(upper, "file"), "r+");
  expect(fallocateFd(fd, KEEP_SIZE, BLOCK, 10 * BLOCK)).toBe(0);
  closeSync(fd);
  expect(taken(join(upper, "file"))).toBeGreaterThanOrEqual(11 * BLOCK);
  fs.close();
});
