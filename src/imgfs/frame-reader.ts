// Reads the raw address space of one compressed blob through the cache of decoded frames, and says which frames a read
// will miss so that other threads can decode them first.
// Invariants: a frame found damaged stays so, with one and the same Corrupt; a frame that could not be decoded elsewhere
// is decoded by the next reader, who meets what is wrong; what the cache cannot take is decoded all the same. So a read
// always comes to its end.
import { Corrupt } from "./errors.js";
import type { FrameCache, SlotOwner } from "./frame-cache.js";
import { decodeFrame, type FramePlace, type FrameTable, faultText } from "./frames.js";
import { FRAME } from "./layout.js";
import type { BlobSource } from "./source.js";
import type { Elsewhere, FramesTask, FrameToDecode, TaskResult } from "./work.js";

const NONE = -1;
/** Frames decoded ahead of a reader that goes through the blob in order, when the second of them is not at hand. */
const AHEAD = 3;
/** Frames decoded elsewhere at one go: handing work over costs about half as much as decoding a frame. */
const BATCH = 2;

/** As many frames as a read of a frame's size can miss are decoded at once by a thread that has nothing else to do. */
const AT_ONCE = 2;
/** Places in the blob at which readers were last, to tell those that go on in order. */
const READERS = 4;

export class FrameReader implements SlotOwner {
  private readonly table: FrameTable;
  private readonly source: BlobSource;
  private readonly cache: FrameCache;
  /** By frame. */
  private readonly slots: Int32Array;
  /** By frame, the key of the work that fills its slot; 0 for a slot that is filled. */
  private readonly filling: Int32Array;
  private readonly damaged = new Map<number, Corrupt>();
  /** Could not be decoded elsewhere. */
  private readonly failed = new Set<number>();
  private readonly firstKey: number;
  private readonly scratchPlace: FramePlace = { offset: 0, stored: 0, raw: 0 };
  private scratch: Uint8Array | undefined;
  private readonly readers = new Int32Array(READERS).fill(-2);

  constructor(table: FrameTable, source: BlobSource, cache: FrameCache) {
    this.table = table;
    this.source = source;
    this.cache = cache;
    this.slots = new Int32Array(table.count).fill(NONE);
    this.filling = new Int32Array(table.count);
    this.firstKey = cache.keysFor(table.count);
  }

  /** Bytes [rawOffset, rawOffset + length), which lie in the raw address space. Throws Corrupt, or a system error. */
  read(rawOffset: number, into: Uint8Array, start: number, length: number): void {
    for (let done = 0; done < length; ) {
      const at = rawOffset + done;
      const frame = Math.floor(at / FRAME);
      const skip = at - frame * FRAME;
      const count = Math.min(length - done, FRAME - skip);
      const bytes = this.frame(frame);
      if (bytes === undefined) into.fill(0, start + done, start + done + count);
      else into.set(bytes.subarray(skip, skip + count), start + done);
      done += count;
    }
  }

  /**
   * Has the frames of a stretch decoded elsewhere that are not at hand, unless that is done sooner here, and a few
   * after it for a reader that goes on in order. The key of work to wait for, or 0 when nothing is to be waited for.
   */
  prepare(rawOffset: number, length: number, elsewhere: Elsewhere): number {
    const first = Math.floor(rawOffset / FRAME);
    const last = Math.floor((rawOffset + length - 1) / FRAME);
    let key = 0;
    let missing = 0;
    for (let frame = first; frame <= last; frame++) {
      if (this.slots[frame] === NONE) missing++;
      else key = this.filling[frame] || key;
    }
    if (missing > AT_ONCE || (missing > 0 && !elsewhere.idle())) {
      key = this.begin(first, last + 1, elsewhere) || key;
    }
    if (this.goesOn(first, last)) this.beginAhead(last + 1, elsewhere);
    return key;
  }

  /** Whether one of the last reads ended where this one begins, or in the frame before; notes where this one ends. */
  private goesOn(first: number, last: number): boolean {
    const { readers } = this;
    let found = -1;
    for (let i = 0; i < READERS && found < 0; i++) {
      const frame = readers[i] as number;
      if (frame === first || frame + 1 === first) found = i;
    }
    const goesOn = found >= 0 && readers[found] !== last;
    // The one that was longest ago gives way.
    for (let i = found < 0 ? READERS - 1 : found; i > 0; i--) readers[i] = readers[i - 1] as number;
    readers[0] = last;
    return goesOn;
  }

  private beginAhead(first: number, elsewhere: Elsewhere): void {
    const end = Math.min(first + AHEAD, this.table.count);
    if (first + 1 < end && this.slots[first + 1] !== NONE) return;
    try {
      this.begin(first, end, elsewhere);
    } catch {
      // Nobody has asked for this frame: whoever does will meet its damage.
    }
  }

  evicted(frame: number): void {
    this.slots[frame] = NONE;
  }

  /** The frame's place. Throws Corrupt; the record is reused. */
  place(frame: number): FramePlace {
    this.table.place(frame, this.scratchPlace);
    return this.scratchPlace;
  }

  digest(frame: number): Uint8Array {
    return this.table.digest(frame);
  }

  get frameCount(): number {
    return this.table.count;
  }

  /** Begins work on those of frames [first, end) that need it. The key of the last, 0 when there was none. */
  private begin(first: number, end: number, elsewhere: Elsewhere): number {
    let key = 0;
    let batch: number[] = [];
    for (let frame = first; frame < end; frame++) {
      if (this.isForElsewhere(frame)) batch.push(frame);
      if (batch.length < BATCH && (batch.length === 0 || frame + 1 < end)) continue;
      key = this.beginBatch(batch, elsewhere) || key;
      batch = [];
    }
    return key;
  }

  private isForElsewhere(frame: number): boolean {
    if (this.slots[frame] !== NONE || this.damaged.has(frame) || this.failed.has(frame)) return false;
    return this.source.fd >= 0 && this.place(frame).stored > 0;
  }

  private beginBatch(batch: readonly number[], elsewhere: Elsewhere): number {
    const frames: FrameToDecode[] = [];
    const slots: number[] = [];
    for (const frame of batch) {
      const digest = Buffer.from(this.table.digest(frame)).toString("latin1");
      const place = { ...this.place(frame) };
      const slot = this.cache.reserve(this, frame);
      if (slot < 0) break;
      slots.push(slot);
      frames.push({ place, digest, address: this.cache.address(slot) });
    }
    if (slots.length === 0) return 0;
    const key = -2 - 2 * (this.firstKey + (batch[0] as number));
    const task: FramesTask = { kind: "frames", fd: this.source.fd, frames };
    const done = (result: TaskResult): void => this.finished(batch, slots, result);
    if (!elsewhere.begin({ key, task, long: false, done })) {
      for (const slot of slots) this.cache.giveBack(slot);
      return 0;
    }
    slots.forEach((slot, i) => {
      this.slots[batch[i] as number] = slot;
      this.filling[batch[i] as number] = key;
    });
    return key;
  }

  private finished(batch: readonly number[], slots: readonly number[], { status }: TaskResult): void {
    slots.forEach((slot, i) => {
      const frame = batch[i] as number;
      this.filling[frame] = 0;
      if (status === 0) {
        this.cache.publish(slot);
        return;
      }
      this.slots[frame] = NONE;
      this.failed.add(frame);
      this.cache.giveBack(slot);
    });
  }

  /** The frame's bytes; undefined for one of zeros. */
  private frame(frame: number): Uint8Array | undefined {
    const slot = this.slots[frame] as number;
    if (slot !== NONE && this.filling[frame] === 0) {
      this.cache.hits++;
      this.cache.touch(slot);
      return this.cache.bytes(slot);
    }
    const known = this.damaged.get(frame);
    if (known !== undefined) throw known;
    const place = this.place(frame);
    if (place.stored === 0) return undefined;
    const own = slot === NONE ? this.cache.reserve(this, frame) : NONE;
    if (own === NONE) {
      this.scratch ??= new Uint8Array(FRAME);
      this.decode(frame, place, this.scratch);
      this.cache.decoded++;
      return this.scratch;
    }
    const bytes = this.cache.bytes(own);
    try {
      this.decode(frame, place, bytes);
    } catch (cause) {
      this.cache.giveBack(own);
      throw cause;
    }
    this.cache.publish(own);
    this.slots[frame] = own;
    return bytes;
  }

  private decode(frame: number, place: FramePlace, into: Uint8Array): void {
    const { source } = this;
    const status = decodeFrame(
      (offset, bytes) => source.readBytes(offset, bytes),
      place,
      this.table.digest(frame),
      into,
    );
    this.failed.delete(frame);
    if (status === 0) return;
    const damage = new Corrupt(this.table.file, "data", `frame ${frame}`, faultText(status) ?? "");
    this.damaged.set(frame, damage);
    throw damage;
  }
}
