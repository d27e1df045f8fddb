// One response as undici's dispatch gives it: its head, and a body that is read by hand. No stream lies between the
// connection and the reader, and what the connection reads into is used again: with a stream's pieces a download spends
// as much on collecting them as on receiving.
// Invariants: while the reader holds `ahead` pieces nothing more is read; a buffer is given back only when its last piece
// has been dealt with; a reader that ends early ends the connection.
import type { Socket } from "node:net";
import type { Dispatcher } from "./undici.js";

/** Bytes of a read. */
const readSize = 256 << 10;
/** Pieces that may wait for the reader. */
const ahead = 4;
/** Buffers that are kept for the next reads. */
const spare = 8;

/** Buffers that sockets read into, until whoever has read a piece gives its buffer back. What never comes back is garbage. */
export class ReadBuffers {
  private readonly known = new WeakSet<ArrayBufferLike>();
  private readonly free: Uint8Array[] = [];

  /** The `onread` of net.connect and tls.connect: the socket is a stream as ever, over these buffers. */
  readonly onread = {
    buffer: (): Uint8Array => this.take(),
    callback(this: Socket, length: number, buffer: Uint8Array): boolean {
      return this.push(buffer.subarray(0, length));
    },
  };

  private take(): Uint8Array {
    const free = this.free.pop();
    if (free !== undefined) return free;
    const made = Buffer.allocUnsafeSlow(readSize);
    this.known.add(made.buffer);
    return made;
  }

  /** Nobody looks at the buffer of `piece` any more. */
  give({ buffer }: Uint8Array): void {
    if (this.known.has(buffer) && this.free.length < spare) this.free.push(Buffer.from(buffer));
  }
}

/** A body: pieces as they came, each of which stays what it is until the next one is asked for. */
export class Body implements AsyncIterable<Uint8Array> {
  private readonly controller: Dispatcher.DispatchController;
  private readonly buffers: ReadBuffers;
  private readonly waiting: Uint8Array[] = [];
  /** How it ended. */
  private end: { readonly failure?: Error } | undefined;
  private wake = (): void => {};

  constructor(controller: Dispatcher.DispatchController, buffers: ReadBuffers) {
    this.controller = controller;
    this.buffers = buffers;
  }

  async *[Symbol.asyncIterator](): AsyncGenerator<Uint8Array, void> {
    try {
      for (let last: Uint8Array | undefined; ; ) {
        if (this.waiting.length === 0 && this.end === undefined) this.controller.resume();
        if (this.waiting.length === 0 && this.end === undefined) {
          await new Promise<void>((resolve) => {
            this.wake = resolve;
          });
        }
        const piece = this.waiting.shift();
        if (last !== undefined && last.buffer !== piece?.buffer) this.buffers.give(last);
        last = piece;
        if (piece !== undefined) yield piece;
        else if (this.end?.failure !== undefined) throw this.end.failure;
        else if (this.end !== undefined) return;
      }
    } finally {
      this.destroy();
    }
  }

  /** Ends the connection, unless everything has come. */
  destroy(): void {
    if (this.end === undefined) this.controller.abort(new Error("the body is not read any more"));
  }

  /** Reads on in the background and forgets what comes, so that the connection may be used again; ends it after `limit` bytes. */
  async dump(limit: number): Promise<void> {
    let size = 0;
    for await (const piece of this) {
      size += piece.length;
      if (size > limit) return;
    }
  }

  push(piece: Uint8Array): void {
    this.waiting.push(piece);
    if (this.waiting.length >= ahead) this.controller.pause();
    this.wake();
  }

  finish(failure?: Error): void {
    this.end ??= failure === undefined ? {} : { failure };
    this.wake();
  }
}

export interface Answer {
  readonly status: number;
  readonly headers: Readonly<Record<string, string | string[] | undefined>>;
  readonly body: Body;
}

/** Sends a request. The signal ends it, and the body if that is still under way. */
export function exchange(
  dispatcher: Dispatcher,
  request: Dispatcher.DispatchOptions,
  buffers: ReadBuffers,
  signal: AbortSignal | undefined,
): Promise<Answer> {
  return new Promise((resolve, reject) => {
    let body: Body | undefined;
    let onAbort = (): void => reject(signal?.reason);
    const abort = (): void => onAbort();
    const settle = (): void => signal?.removeEventListener("abort", abort);
    signal?.addEventListener("abort", abort);
    dispatcher.dispatch(request, {
      onRequestStart(controller) {
        onAbort = () => controller.abort(signal?.reason);
        if (signal?.aborted) abort();
      },
      onResponseStart(controller, status, headers) {
        if (status < 200) return;
        body = new Body(controller, buffers);
        resolve({ status, headers, body });
      },
      onResponseData(_, piece) {
        body?.push(piece);
      },
      onResponseEnd() {
        settle();
        body?.finish();
      },
      onResponseError(_, cause) {
        settle();
        if (body === undefined) reject(cause);
        else body.finish(cause);
      },
    });
  });
}
