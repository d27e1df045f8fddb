// Decoded frames in memory, the least recently used ones given up first. Native memory, so that any thread can fill a
// slot by its address; which frame is in which slot is known to the image's own thread alone.
// Invariant: a slot that is being filled is in no list: it is neither read nor given to another frame.
import { allocatePages, type Region } from "../sys/memory.js";
import { FRAME } from "./layout.js";

/** 8 MiB; untouched slots cost nothing. */
const SLOTS = 64;
const NONE = -1;

/** Memory of caches that are no longer used; what the kernel gave is never given back. */
const spare: Region[] = [];

/** Told that a slot has been taken from its frame. */
export interface SlotOwner {
  evicted(frame: number): void;
}

export class FrameCache {
  private region: Region | undefined;
  private readonly views: (Uint8Array | undefined)[] = [];
  private readonly owners: (SlotOwner | undefined)[] = [];
  private readonly frames = new Int32Array(SLOTS);
  /** The slots that are not being filled, last used first. */
  private readonly next = new Int32Array(SLOTS);
  private readonly previous = new Int32Array(SLOTS);
  private first = NONE;
  private last = NONE;
  private untouched = 0;
  private filling = 0;
  private keys = 0;
  /** Frames in the cache now; reads of a frame that was there; frames decoded, also ahead of a reader. */
  held = 0;
  hits = 0;
  decoded = 0;
  readonly limit = SLOTS;

  /** The first of `count` numbers that no other call gets: frames of different blobs have different keys. */
  keysFor(count: number): number {
    const first = this.keys;
    this.keys += count;
    return first;
  }

  /** A slot to be filled for a frame, then published or given back; -1 when too many are being filled already. */
  reserve(owner: SlotOwner, frame: number): number {
    if (this.filling >= SLOTS / 2) return NONE;
    let slot = this.untouched;
    if (slot < SLOTS) this.untouched++;
    else {
      slot = this.last;
      this.unlink(slot);
      const former = this.owners[slot];
      if (former !== undefined) this.held--;
      former?.evicted(this.frames[slot] as number);
    }
    this.filling++;
    this.owners[slot] = owner;
    this.frames[slot] = frame;
    return slot;
  }

  publish(slot: number): void {
    this.filling--;
    this.held++;
    this.decoded++;
    this.linkFirst(slot);
  }

  /** Nothing came of it: the slot is free again. */
  giveBack(slot: number): void {
    this.filling--;
    this.owners[slot] = undefined;
    this.linkLast(slot);
  }

  touch(slot: number): void {
    if (slot === this.first) return;
    this.unlink(slot);
    this.linkFirst(slot);
  }

  /**
   * Forgets every frame, so that another cache may have the memory; this one can still be used. While a frame is being
   * filled by another thread the memory stays as it is.
   */
  release(): void {
    if (this.filling > 0 || this.region === undefined) return;
    for (let slot = 0; slot < this.untouched; slot++) {
      this.owners[slot]?.evicted(this.frames[slot] as number);
      this.owners[slot] = undefined;
    }
    this.first = NONE;
    this.last = NONE;
    this.held = 0;
    this.untouched = 0;
    this.views.length = 0;
    spare.push(this.region);
    this.region = undefined;
  }

  bytes(slot: number): Uint8Array {
    const { bytes } = this.memory();
    this.views[slot] ??= bytes.subarray(slot * FRAME, (slot + 1) * FRAME);
    return this.views[slot];
  }

  address(slot: number): number {
    return this.memory().address + slot * FRAME;
  }

  private memory(): Region {
    this.region ??= spare.pop() ?? allocatePages(SLOTS * FRAME);
    return this.region;
  }

  private unlink(slot: number): void {
    const before = this.previous[slot] as number;
    const after = this.next[slot] as number;
    if (before === NONE) this.first = after;
    else this.next[before] = after;
    if (after === NONE) this.last = before;
    else this.previous[after] = before;
  }

  private linkFirst(slot: number): void {
    this.previous[slot] = NONE;
    this.next[slot] = this.first;
    if (this.first === NONE) this.last = slot;
    else this.previous[this.first] = slot;
    this.first = slot;
  }

  private linkLast(slot: number): void {
    this.next[slot] = NONE;
    this.previous[slot] = this.last;
    if (this.last === NONE) this.first = slot;
    else this.next[this.last] = slot;
    this.last = slot;
  }
}
