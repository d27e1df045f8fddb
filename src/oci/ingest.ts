// One download that may outlive who began it, as its writer sees it: bytes are added to what has arrived, and become a blob
// when size and digest are right. Which ingests there are is in ingests.ts.
// Invariants: `data` is what has arrived, from the first byte on, and its length is the offset; a blob gets its name by one
// rename, after it was synced; after an error the writer is closed, and what has arrived is there for the next one.
import { createHash, type Hash } from "node:crypto";
import {
  close,
  existsSync,
  fstatSync,
  fsync,
  ftruncate,
  read,
  renameSync,
  rmSync,
  statSync,
  write,
} from "node:fs";
import { dirname, join } from "node:path";
import { promisify } from "node:util";
import { digestAlgorithm, type SourceDigest } from "../base/digest.js";
import { syncFolder } from "../base/durable.js";
import { errnoText } from "../base/errno.js";

export type IngestFailure =
  /** Another writer is at it. */
  | "unavailable"
  /** There is none of that ref, or it was aborted under its writer. */
  | "absent"
  /** The blob is there already; the ingest is gone. */
  | "exists"
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

/** An ingest that is locked for its writer. */
export interface IngestPlace extends IngestWish {
  readonly ref: string;
  /** Its folder. */
  readonly path: string;
  /** Its data, locked. */
  readonly fd: number;
  /** Runs a step while nobody else gives or takes names. */
  readonly locked: (step: () => void) => void;
}

export const dataName = "data";

const readChunk = 1 << 20;

/** Of descriptors and not of FileHandles: a lock belongs to a descriptor, and is taken where nothing may wait. */
const file = {
  read: promisify(read),
  write: promisify(write),
  truncate: promisify(ftruncate),
  sync: promisify(fsync),
  close: promisify(close),
};

/** The one writer of an ingest. */
export class Ingest {
  private readonly place: IngestPlace;
  private hash: Hash;
  private position = 0;
  private isClosed = false;

  /** Reads what has arrived before, for the digest. More than there can be is dropped. */
  static async resume(place: IngestPlace): Promise<Ingest> {
    const { fd, total } = place;
    if (total !== undefined && fstatSync(fd).size > total) await file.truncate(fd, 0);
    const ingest = new Ingest(place);
    await ingest.readInto(ingest.hash, (length) => {
      ingest.position += length;
    });
    return ingest;
  }

  private constructor(place: IngestPlace) {
    this.place = place;
    this.hash = createHash(algorithmOf(place.expected));
  }

  get ref(): string {
    return this.place.ref;
  }

  get total(): number | undefined {
    return this.place.total;
  }

  /** Bytes that have arrived: where a download goes on. */
  get offset(): number {
    return this.position;
  }

  /** Adds bytes. Throws an IngestError when they are more than the total, or the disk does not take them. */
  async write(bytes: Uint8Array): Promise<void> {
    this.refuseClosed();
    const { fd, total } = this.place;
    if (total !== undefined && this.position + bytes.length > total) {
      await this.close();
      throw this.failure("mismatch", `more than ${total} bytes`);
    }
    try {
      for (let done = 0; done < bytes.length; ) {
        const { bytesWritten } = await file.write(fd, bytes, done, bytes.length - done, this.position + done);
        done += bytesWritten;
      }
    } catch (cause) {
      await this.close();
      throw this.ofDisk(cause);
    }
    this.hash.update(bytes);
    this.position += bytes.length;
  }

  /** Drops what has arrived: it is not what the source has. */
  async reset(): Promise<void> {
    this.refuseClosed();
    await file.truncate(this.place.fd, 0);
    this.position = 0;
    this.hash = createHash(algorithmOf(this.place.expected));
  }

  /**
   * Makes the file `target`, on the same filesystem, of what has arrived, if size and digest are those that were asked
   * for, here or at the start. Throws an IngestError: `mismatch` leaves the ingest as it is, `exists` ends it.
   */
  async commit(target: string, wish: IngestWish = {}): Promise<SourceDigest> {
    this.refuseClosed();
    const size = wish.total ?? this.place.total;
    const expected = wish.expected ?? this.place.expected;
    try {
      if (size !== undefined && size !== this.position) {
        throw this.failure("mismatch", `${this.position} bytes have arrived, expected ${size}`);
      }
      const digest = await this.digestBy(expected);
      if (expected !== undefined && digest !== expected) {
        throw this.failure("mismatch", `digest mismatch: the bytes are ${digest}, expected ${expected}`);
      }
      await file.sync(this.place.fd);
      this.place.locked(() => this.publish(target));
      return digest;
    } catch (cause) {
      throw cause instanceof IngestError ? cause : this.ofDisk(cause);
    } finally {
      await this.close();
    }
  }

  /** Lets go of it; what has arrived stays. */
  async close(): Promise<void> {
    if (this.isClosed) return;
    this.isClosed = true;
    await file.close(this.place.fd);
  }

  private publish(target: string): void {
    const { path, fd } = this.place;
    const data = join(path, dataName);
    const there = statSync(data, { throwIfNoEntry: false });
    // Aborted, perhaps begun anew by somebody else: what is there is not what was checked.
    if (there === undefined || there.ino !== fstatSync(fd).ino)
      throw this.failure("absent", "it was aborted");
    if (existsSync(target)) {
      rmSync(path, { recursive: true, force: true });
      throw this.failure("exists", `${target} is there already`);
    }
    renameSync(data, target);
    syncFolder(dirname(target));
    rmSync(path, { recursive: true, force: true });
  }

  private async digestBy(expected: SourceDigest | undefined): Promise<SourceDigest> {
    const algorithm = algorithmOf(expected);
    let hash = this.hash.copy();
    if (algorithm !== algorithmOf(this.place.expected)) {
      hash = createHash(algorithm);
      await this.readInto(hash, () => {});
    }
    return `${algorithm}:${hash.digest("hex")}` as SourceDigest;
  }

  private async readInto(hash: Hash, onRead: (length: number) => void): Promise<void> {
    const buffer = Buffer.allocUnsafe(readChunk);
    for (let at = 0; ; ) {
      const { bytesRead } = await file.read(this.place.fd, buffer, 0, buffer.length, at);
      if (bytesRead === 0) return;
      hash.update(buffer.subarray(0, bytesRead));
      at += bytesRead;
      onRead(bytesRead);
    }
  }

  private refuseClosed(): void {
    if (this.isClosed) throw this.failure("failed", "it is closed");
  }

  private ofDisk(cause: unknown): IngestError {
    return this.failure("failed", errnoText((cause as NodeJS.ErrnoException).code ?? "EIO"));
  }

  private failure(kind: IngestFailure, message: string): IngestError {
    return new IngestError(kind, this.place.ref, message);
  }
}

/** Receives what is missing. `open` gives the bytes from a position on; where it throws, what has arrived stays. */
export async function receive(
  ingest: Ingest,
  open: (from: number) => AsyncIterable<Uint8Array>,
): Promise<void> {
  if (ingest.total !== undefined && ingest.offset >= ingest.total) return;
  for await (const piece of open(ingest.offset)) await ingest.write(piece);
}

function algorithmOf(expected: SourceDigest | undefined): ReturnType<typeof digestAlgorithm> {
  return expected === undefined ? "sha256" : digestAlgorithm(expected);
}
