// One download that may outlive who began it, as its writer sees it: bytes are added to what has arrived, and the ingest ends
// when size and digest are right. Which ingests there are is in ingests.ts.
// Invariants: `data` is what has arrived, from the first byte on, without gaps; after an error the writer is closed, and what
// has arrived is there for the next one; nothing is published of bytes that are not those that were asked for.
import { closeSync, fstatSync, ftruncateSync, read, rmSync, statSync, write } from "node:fs";
import { join } from "node:path";
import { promisify } from "node:util";
import type { SourceDigest } from "../base/digest.js";
import { errnoText } from "../base/errno.js";

export type IngestFailure =
  /** Another writer is at it. */
  | "unavailable"
  /** There is none of that ref, or it was aborted under its writer. */
  | "absent"
  /** Size or digest are not those that were asked for; the ingest stays as it is. */
  | "mismatch"
  /** The disk, or wrong use. */
  | "failed";

export class IngestError extends Error {
  readonly kind: IngestFailure;

  constructor(kind: IngestFailure, ref: string, message: string) {
    super(`ingest ${JSON.stringify(ref)}: ${message}`);
    this.name = "IngestError";
    this.kind = kind;
  }
}

/** What is known of a blob before it has come. */
export interface IngestWish {
  /** Bytes. */
  readonly total?: number | undefined;
  readonly expected?: SourceDigest | undefined;
}

/** Steps that change the disk; each is announced right before it is made. */
export type IngestStep = "make" | "write" | "commit" | "remove";

/** An ingest that is locked for its writer. */
export interface IngestPlace extends IngestWish {
  readonly ref: string;
  /** Its folder. */
  readonly path: string;
  /** Its data, locked. */
  readonly fd: number;
  /** Runs a step while nobody else gives or takes names. */
  readonly locked: (step: () => void) => void;
  readonly announce: (step: IngestStep) => void;
}

export const dataName = "data";

/** Bytes that are written at a time, and read. */
const chunk = 1 << 20;
const nothing: Uint8Array = new Uint8Array(0);

/** Of descriptors and not of FileHandles: a lock belongs to a descriptor, and is taken where nothing may wait. */
const file = { read: promisify(read), write: promisify(write) };

/** The one writer of an ingest. */
export class Ingest {
  private readonly place: IngestPlace;
  /** Bytes on disk. */
  private stored: number;
  /** Has what was taken and is not written yet, its first `filled` bytes. */
  private taking = nothing;
  private filled = 0;
  /** Takes next, while the other one is written. */
  private spare = nothing;
  private writing: Promise<void> = Promise.resolve();
  private isClosed = false;
  /** What a write behind has failed with. */
  private failed: IngestError | undefined;

  /** Goes on with what has arrived; more than there can be is dropped. */
  constructor(place: IngestPlace) {
    this.place = place;
    this.stored = fstatSync(place.fd).size;
    if (place.total === undefined || this.stored <= place.total) return;
    ftruncateSync(place.fd, 0);
    this.stored = 0;
  }

  get ref(): string {
    return this.place.ref;
  }

  get total(): number | undefined {
    return this.place.total;
  }

  /** Bytes that are on disk: where a download goes on. */
  get offset(): number {
    return this.stored;
  }

  /** What has arrived before, in pieces that stay what they are until the next one. */
  async *arrived(): AsyncGenerator<Uint8Array> {
    const buffer = Buffer.allocUnsafe(chunk);
    for (let at = 0; at < this.stored; ) {
      const length = Math.min(chunk, this.stored - at);
      const { bytesRead } = await file.read(this.place.fd, buffer, 0, length, at);
      if (bytesRead === 0) throw this.failure("failed", `${at} bytes are left of ${this.stored}`);
      yield buffer.subarray(0, bytesRead);
      at += bytesRead;
    }
  }

  /**
   * Adds a copy of bytes, which is written behind, see {@link flush}. Throws an IngestError when they are more than the
   * total, when the disk does not take what came before them, or when it was aborted.
   */
  async write(bytes: Uint8Array): Promise<void> {
    this.refuseClosed();
    for (let done = 0; done < bytes.length; ) {
      if (this.taking.length === 0) this.taking = Buffer.allocUnsafeSlow(chunk);
      const length = Math.min(bytes.length - done, chunk - this.filled);
      this.taking.set(bytes.subarray(done, done + length), this.filled);
      this.filled += length;
      done += length;
      if (this.filled < chunk) return;
      await this.writing;
      this.writing = this.writeWaiting();
      // It is awaited by the next one; no failure of it may count as unhandled until then.
      this.writing.catch(() => {});
    }
  }

  /** Resolves when everything that was taken is on disk. Throws as {@link write}. */
  async flush(): Promise<void> {
    this.refuseClosed();
    await this.writing;
    this.writing = this.writeWaiting();
    await this.writing;
    // Many may be whole, and wait for their layers.
    this.taking = nothing;
    this.spare = nothing;
  }

  private async writeWaiting(): Promise<void> {
    const { fd, total, announce } = this.place;
    const bytes = this.taking;
    const length = this.filled;
    [this.taking, this.spare] = [this.spare, bytes];
    this.filled = 0;
    try {
      if (total !== undefined && this.stored + length > total) {
        throw this.failure("mismatch", `more than ${total} bytes`);
      }
      for (let done = 0; done < length; ) {
        announce("write");
        const { bytesWritten } = await file.write(fd, bytes, done, length - done, this.stored);
        this.stored += bytesWritten;
        done += bytesWritten;
      }
      if (this.isAborted()) throw this.failure("absent", "it was aborted");
    } catch (cause) {
      this.failed = cause instanceof IngestError ? cause : this.ofDisk(cause);
      this.close();
      throw this.failed;
    }
  }

  /**
   * Ends it, where what has arrived has the size and `digest` is the one that was asked for: runs `publish`, which gives its
   * name to what was made of the bytes, and removes them. Throws an IngestError: `mismatch` leaves the ingest as it is,
   * `absent` was aborted; and what `publish` throws. The writer is closed in any case.
   */
  commit(digest: SourceDigest, publish: () => void): void {
    this.refuseClosed();
    const { total, expected, locked, announce } = this.place;
    try {
      if (this.filled > 0) throw this.failure("failed", "not everything is written");
      if (total !== undefined && total !== this.stored) {
        throw this.failure("mismatch", `${this.stored} bytes have arrived, expected ${total}`);
      }
      if (expected !== undefined && digest !== expected) {
        throw this.failure("mismatch", `digest mismatch: the bytes are ${digest}, expected ${expected}`);
      }
      locked(() => {
        if (this.isAborted()) throw this.failure("absent", "it was aborted");
        announce("commit");
        publish();
        this.removeWhole();
      });
    } finally {
      this.close();
    }
  }

  /** What was made of it is there: that it stays is no failure. */
  private removeWhole(): void {
    const { path, announce } = this.place;
    try {
      announce("remove");
      rmSync(path, { recursive: true, force: true });
    } catch {
      // It expires.
    }
  }

  /** Lets go of it; what is on disk stays. */
  close(): void {
    if (this.isClosed) return;
    this.isClosed = true;
    closeSync(this.place.fd);
  }

  /** Aborted, perhaps begun anew by somebody else: what is there is not what was written here. */
  private isAborted(): boolean {
    const there = statSync(join(this.place.path, dataName), { throwIfNoEntry: false, bigint: true });
    return there === undefined || there.ino !== fstatSync(this.place.fd, { bigint: true }).ino;
  }

  private refuseClosed(): void {
    if (this.isClosed) throw this.failed ?? this.failure("failed", "it is closed");
  }

  private ofDisk(cause: unknown): IngestError {
    return this.failure("failed", errnoText((cause as NodeJS.ErrnoException).code ?? "EIO"));
  }

  private failure(kind: IngestFailure, message: string): IngestError {
    return new IngestError(kind, this.place.ref, message);
  }
}
