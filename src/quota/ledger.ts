// What a mount has used and what it may use, in memory that every thread of its process reads.
// Invariants: only the thread that serves the mount charges and credits; limits may be set by another thread at any time,
// and hold from the next charge on. Nothing is charged past a limit, and a credit is never refused. Each number is one
// aligned 64-bit cell, which no reader sees half written.
import { type InodeLimit, inodeLimitFor, limitOf, type QuotaMode, type QuotaSettings } from "./settings.js";

const Cell = {
  mode: 0,
  bytes: 1,
  inodes: 2,
  byteLimit: 3,
  inodeLimit: 4,
  derivesInodes: 5,
  imageBytes: 6,
  length: 7,
} as const;

const modes: readonly (QuotaMode | undefined)[] = [undefined, "exclusive", "inclusive"];

/** What an upper directory costs. */
export interface Usage {
  /** Whole blocks, in bytes. */
  readonly bytes: number;
  readonly inodes: number;
}

/** A ledger at one moment, as people set it: with an inclusive limit the image counts on both sides. */
export interface QuotaReport {
  readonly mode: QuotaMode;
  /** Bytes used: by the upper, and in inclusive mode by the image too. */
  readonly bytes: number;
  /** Bytes; Infinity without a limit. */
  readonly byteLimit: number;
  /** Bytes that may still be charged; 0 where use is above the limit. */
  readonly bytesLeft: number;
  /** Bytes of the image's layers. */
  readonly imageBytes: number;
  readonly inodes: number;
  readonly inodeLimit: number;
  readonly inodesLeft: number;
}

/** Shared memory for a {@link Ledger} of a mount without quota. */
export function createLedgerMemory(): SharedArrayBuffer {
  return new SharedArrayBuffer(Cell.length * Float64Array.BYTES_PER_ELEMENT);
}

/** `disk limit is smaller than volume size`, in GrootFS's words, which callers know. */
export class LimitBelowImage extends Error {
  constructor(limit: number, imageBytes: number) {
    super(`disk limit is smaller than volume size (${limit} bytes, the image has ${imageBytes})`);
    this.name = "LimitBelowImage";
  }
}

export class Ledger {
  private readonly cells: Float64Array;

  constructor(memory: SharedArrayBuffer) {
    this.cells = new Float64Array(memory);
  }

  private cell(index: number): number {
    return this.cells[index] as number;
  }

  /** Begins counting. Throws {@link LimitBelowImage}, or an Error for limits that are none. */
  open({ mode, bytes, inodes }: QuotaSettings, imageBytes: number, used: Usage): void {
    this.cells[Cell.imageBytes] = imageBytes;
    this.cells[Cell.bytes] = used.bytes;
    this.cells[Cell.inodes] = used.inodes;
    this.setLimits(mode, limitOf(bytes, "bytes"), inodes === "derived" ? inodes : limitOf(inodes, "inodes"));
    this.cells[Cell.mode] = modes.indexOf(mode);
  }

  /** How limits are meant; undefined for a mount without a quota. */
  get mode(): QuotaMode | undefined {
    return modes[this.cell(Cell.mode)];
  }

  /** Bytes the upper costs, the image not counted. */
  get bytes(): number {
    return this.cell(Cell.bytes);
  }

  get inodes(): number {
    return this.cell(Cell.inodes);
  }

  /** Bytes that may still be charged. */
  get bytesLeft(): number {
    return Math.max(0, this.cell(Cell.byteLimit) - this.cell(Cell.bytes));
  }

  get inodesLeft(): number {
    return Math.max(0, this.cell(Cell.inodeLimit) - this.cell(Cell.inodes));
  }

  /** Sets other limits than those in force; undefined leaves one as it is. Throws {@link LimitBelowImage}. */
  limit(bytes: number | undefined, inodes: InodeLimit | undefined): void {
    const mode = this.mode;
    if (mode === undefined) throw new Error("the mount has no quota");
    const kept: InodeLimit = this.cell(Cell.derivesInodes) === 1 ? "derived" : this.cell(Cell.inodeLimit);
    this.setLimits(mode, bytes ?? this.shownLimit(mode), inodes ?? kept);
  }

  private shownLimit(mode: QuotaMode): number {
    return this.cell(Cell.byteLimit) + (mode === "inclusive" ? this.cell(Cell.imageBytes) : 0);
  }

  private setLimits(mode: QuotaMode, bytes: number, inodes: InodeLimit): void {
    const imageBytes = this.cell(Cell.imageBytes);
    const enforced = mode === "inclusive" ? bytes - imageBytes : bytes;
    if (enforced < 0) throw new LimitBelowImage(bytes, imageBytes);
    this.cells[Cell.derivesInodes] = inodes === "derived" ? 1 : 0;
    this.cells[Cell.inodeLimit] = inodes === "derived" ? inodeLimitFor(bytes) : inodes;
    this.cells[Cell.byteLimit] = enforced;
  }

  /** Charges both, or neither: false when one of them is past its limit. */
  charge(bytes: number, inodes: number): boolean {
    const { cells } = this;
    const newBytes = this.cell(Cell.bytes) + bytes;
    const newInodes = this.cell(Cell.inodes) + inodes;
    if (bytes > 0 && newBytes > this.cell(Cell.byteLimit)) return false;
    if (inodes > 0 && newInodes > this.cell(Cell.inodeLimit)) return false;
    cells[Cell.bytes] = newBytes;
    cells[Cell.inodes] = newInodes;
    return true;
  }

  /** Takes back what was charged; negative where a recount has found more than was known. */
  credit(bytes: number, inodes: number): void {
    this.cells[Cell.bytes] = this.cell(Cell.bytes) - bytes;
    this.cells[Cell.inodes] = this.cell(Cell.inodes) - inodes;
  }

  /** What people are told; undefined for a mount without a quota. */
  report(): QuotaReport | undefined {
    const mode = this.mode;
    if (mode === undefined) return undefined;
    const imageBytes = this.cell(Cell.imageBytes);
    return {
      mode,
      bytes: this.bytes + (mode === "inclusive" ? imageBytes : 0),
      byteLimit: this.shownLimit(mode),
      bytesLeft: this.bytesLeft,
      imageBytes,
      inodes: this.inodes,
      inodeLimit: this.cell(Cell.inodeLimit),
      inodesLeft: this.inodesLeft,
    };
  }
}
