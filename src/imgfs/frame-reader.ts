// Reads the raw address space of one compressed blob through the cache of decoded frames, and says which frames a read
// will miss so that other threads can decode them first.
// Invariants: a frame found damaged stays so, with one and the same Corrupt; what the cache cannot take is decoded all
// the same, so a read always comes to its end.
import { Corrupt } from "./errors.js";
import type { FrameCache, SlotOwner } from "./frame-cache.js";
import { decodeFrame, type FramePlace, type FrameTable, faultText } from "./frames.js";
import { FRAME } from "./layout.js";
import type { BlobSource } from "./source.js";
import type { TaskResult, Work } from "./work.js";

const NONE = -1;
/** Frames decoded ahead of a reader that goes through the blob in order. */
const AHEAD = 2;

/** Starts work in another thread; false when it cannot be. */
export type StartWork = (work: Work) => boolean;

export class FrameReader implements SlotOwner {
  private readonly table: FrameTable;
  private readonly source: BlobSource;
  private readonly cache: FrameCache;
  /** By frame. */
  private readonly slots: Int32Array;
  private readonly filling: Uint8Array;
  private readonly damaged = new Map<number, Corrupt>();
  private readonly firstKey: number;
  private readonly scratchPlace: FramePlace = { offset: 0, stored: 0, raw: 0 };
  private scratch: Uint8Array | undefined;

  constructor(table: FrameTable, source: BlobSource, cache: FrameCache) {
    this.table = table;
    this.source = source;
    this.cache = cache;
    this.slots = new Int32Array(table.count).fill(NONE);
    this.filling = new Uint8Array(table.count);
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
   * Has the frames of a stretch decoded elsewhere that are not at hand, and those after it when the one before is. The
   * key of work to wait for, or 0 when nothing is to be waited for.
   */
  prepare(rawOffset: number, length: number, start: StartWork): number {
    const first = Math.floor(rawOffset / FRAME);
    const last = Math.floor((rawOffset + length - 1) / FRAME);
    let key = 0;
    for (let frame = first; frame <= last; frame++) key = this.begin(frame, start) || key;
    if (first > 0 && this.slots[first - 1] !== NONE) this.beginAhead(last + 1, start);
    return key;
  }

  private beginAhead(first: number, start: StartWork): void {
    const end = Math.min(first + AHEAD, this.table.count);
    try {
      for (let frame = first; frame < end; frame++) this.begin(frame, start);
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

  private keyOf(frame: number): number {
    return -2 - 2 * (this.firstKey + frame);
  }

  /** The key of the frame's work when it is under way afterwards, 0 otherwise. */
  private begin(frame: number, start: StartWork): number {
    if (this.slots[frame] !== NONE) return this.filling[frame] === 1 ? this.keyOf(frame) : 0;
    if (this.damaged.has(frame) || this.source.fd < 0) return 0;
    const { offset, stored, raw } = this.place(frame);
    if (stored === 0) return 0;
    const slot = this.cache.reserve(this, frame);
    if (slot < 0) return 0;
    const key = this.keyOf(frame);
    const begun = start({
      key,
      task: {
        kind: "frame",
        fd: this.source.fd,
        place: { offset, stored, raw },
        digest: Buffer.from(this.table.digest(frame)).toString("latin1"),
        address: this.cache.address(slot),
      },
      long: false,
      done: (result) => this.finished(frame, slot, result),
    });
    if (!begun) {
      this.cache.giveBack(slot);
      return 0;
    }
    this.slots[frame] = slot;
    this.filling[frame] = 1;
    return key;
  }

  private finished(frame: number, slot: number, { status }: TaskResult): void {
    this.filling[frame] = 0;
    if (status === 0) {
      this.cache.publish(slot);
      return;
    }
    this.slots[frame] = NONE;
    this.cache.giveBack(slot);
    // Other failures may pass: whoever wants the frame tries again, and meets the error itself.
    if (faultText(status) !== undefined) this.damaged.set(frame, this.damage(frame, status));
  }

  /** The frame's bytes; undefined for one of zeros. */
  private frame(frame: number): Uint8Array | undefined {
    const slot = this.slots[frame] as number;
    if (slot !== NONE && this.filling[frame] === 0) {
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
    if (status === 0) return;
    const damage = this.damage(frame, status);
    this.damaged.set(frame, damage);
    throw damage;
  }

  private damage(frame: number, status: number): Corrupt {
    return new Corrupt(this.table.file, "data", `frame ${frame}`, faultText(status) as string);
  }
}
