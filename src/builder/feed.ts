// The bytes of a layer on their way from the main thread, which receives them, to the worker that converts: a ring in
// shared memory. A worker in the middle of a conversion hears no message, and blocks where there is nothing to read; the
// main thread never blocks, and receives no more while the ring is full.
// Invariants: one writer, one reader; positions count bytes modulo 2**32; whoever changes a word wakes who waits for it.

import { Stopped } from "./shared.js";

const capacity = 4 << 20;
/** Bytes that the reader takes at a time at most. */
const maxPiece = 512 << 10;
/** Bytes for which it is woken: to wake it for each that arrives costs more than to wait for some. */
const minPiece = 256 << 10;

/** Bytes left in a full ring for which the writer is woken. */
const minRoom = capacity / 2;

/** Words in front of the bytes: written and read position, how it ended, and a count of what the writer has done. */
const Word = { written: 0, read: 1, state: 2, events: 3, length: 4 } as const;
const State = { open: 0, ended: 1, failed: 2 } as const;

const headerBytes = 4 * Word.length;

/** Atomics.waitAsync, which the library of ES2023 does not declare. */
const { waitAsync } = Atomics as unknown as {
  readonly waitAsync: (
    words: Int32Array,
    index: number,
    value: number,
  ) => { readonly async: boolean; readonly value: unknown };
};

/** The main thread's side. */
export class FeedWriter {
  readonly shared: SharedArrayBuffer = new SharedArrayBuffer(headerBytes + capacity);
  private readonly words = new Int32Array(this.shared, 0, Word.length);
  private readonly bytes = new Uint8Array(this.shared, headerBytes);

  /** Puts a piece into the ring as the reader makes room for it. Throws when the feed has been given up meanwhile. */
  async write(piece: Uint8Array): Promise<void> {
    const { words, bytes } = this;
    for (let done = 0; done < piece.length; ) {
      if (Atomics.load(words, Word.state) !== State.open) throw new Error("the feed was given up");
      const written = Atomics.load(words, Word.written);
      const read = Atomics.load(words, Word.read);
      const room = capacity - ((written - read) | 0);
      if (room === 0) {
        await waitAsync(words, Word.read, read).value;
        continue;
      }
      const at = (written >>> 0) % capacity;
      const length = Math.min(room, piece.length - done, capacity - at);
      bytes.set(piece.subarray(done, done + length), at);
      Atomics.store(words, Word.written, (written + length) | 0);
      if (capacity - room + length >= minPiece) this.wake();
      done += length;
    }
  }

  /** Says that everything is written. */
  end(): void {
    Atomics.compareExchange(this.words, Word.state, State.open, State.ended);
    this.wake();
  }

  /** Gives the feed up: the reader throws, and so does a write that waits. After the end it does nothing. */
  fail(): void {
    Atomics.compareExchange(this.words, Word.state, State.open, State.failed);
    this.wake();
    Atomics.notify(this.words, Word.read);
  }

  private wake(): void {
    Atomics.add(this.words, Word.events, 1);
    Atomics.notify(this.words, Word.events);
  }
}

/** The worker's side: pieces that stay what they are until the next one. Blocks the thread. Throws when it was given up. */
export function* feedPieces(shared: SharedArrayBuffer): Generator<Uint8Array, void> {
  const words = new Int32Array(shared, 0, Word.length);
  const bytes = new Uint8Array(shared, headerBytes);
  for (;;) {
    const events = Atomics.load(words, Word.events);
    const state = Atomics.load(words, Word.state);
    const read = Atomics.load(words, Word.read);
    const available = (Atomics.load(words, Word.written) - read) | 0;
    if (state === State.failed) throw new Stopped("the bytes did not come");
    if (state === State.open && available < minPiece) {
      Atomics.wait(words, Word.events, events);
      continue;
    }
    if (available === 0) return;
    const at = (read >>> 0) % capacity;
    const length = Math.min(available, maxPiece, capacity - at);
    yield bytes.subarray(at, at + length);
    Atomics.store(words, Word.read, (read + length) | 0);
    if (((Atomics.load(words, Word.written) - read - length) | 0) <= minRoom)
      Atomics.notify(words, Word.read);
  }
}
