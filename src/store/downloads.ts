// What of an image comes over a network: each layer is an ingest of the store (oci/ingests.ts) on its way to the conversion, so
// that what has arrived is there for whoever asks next, also after this process died. It ends when the layer's blob gets
// its name.
// Invariant: an ingest never makes a download fail that would have succeeded without it, but for one that was aborted.
import { join } from "node:path";
import type { SourceDigest } from "../base/digest.js";
import { type Ingest, IngestError } from "../oci/ingest.js";
import { type IngestHost, Ingests } from "../oci/ingests.js";
import type { ImageSource, LayerBytes, LayerSource, RemoteBytes } from "../oci/source.js";
import { flockFd, LOCK_EX, LOCK_NB } from "../sys/files.js";
import { StoreError } from "./errors.js";
import { fault } from "./fault.js";
import type { Measure, Store } from "./store.js";

const host: IngestHost = {
  wait: (fd) => {
    const result = flockFd(fd, LOCK_EX);
    if (result < 0) throw new StoreError("locked", "ingests: their lock cannot be had");
  },
  take: (fd) => flockFd(fd, LOCK_EX | LOCK_NB) === 0,
  announce: (step) => fault(`ingest.${step}`),
};

/** The ingests of a store. */
export function ingestsOf(store: Store): Ingests {
  return new Ingests(join(store.path, "ingests"), host);
}

/** What an ingest of a layer is called. */
export function refOf(digest: SourceDigest): string {
  return `layer-${digest}`;
}

/** What an ingest may be of: bytes with a digest that they will be compared with. */
type NamedBytes = RemoteBytes & { readonly digest: SourceDigest };

function isNamed(bytes: LayerBytes): bytes is NamedBytes {
  return bytes.kind === "remote" && bytes.digest !== undefined;
}

export class Downloads {
  private readonly ingests: Ingests;
  private readonly source: NonNullable<ImageSource["fetch"]>;
  private readonly measure: Measure | undefined;
  /** By what is fetched: a digest may occur twice in an image, under two base directories. */
  private readonly open = new Map<LayerBytes, Ingest>();
  /** Those that began with what an earlier process had received. */
  private readonly resumed = new Set<LayerBytes>();

  /** `source` is how the image's own layers are fetched; `measure` is told how long each took to come. */
  constructor(store: Store, source: NonNullable<ImageSource["fetch"]>, measure?: Measure) {
    this.ingests = ingestsOf(store);
    this.source = source;
    this.measure = measure;
  }

  /** Fetches a layer from its first byte on: what an earlier process has received, then the rest. */
  async *fetch(bytes: RemoteBytes, signal?: AbortSignal): AsyncGenerator<Uint8Array> {
    const start = performance.now();
    let ingest = isNamed(bytes) ? this.begin(bytes) : undefined;
    let isWhole = false;
    try {
      let done = 0;
      for await (const piece of ingest?.arrived() ?? []) {
        signal?.throwIfAborted();
        done += piece.length;
        yield piece;
      }
      for await (const piece of this.source(bytes, signal, done)) {
        ingest = await this.keep(bytes, ingest, () => ingest?.write(piece));
        yield piece;
      }
      await this.keep(bytes, ingest, () => ingest?.flush());
      isWhole = true;
      this.measure?.("DownloadTime", Math.round((performance.now() - start) * 1e6), "nanos");
    } finally {
      if (!isWhole) {
        await ingest?.flush().catch(() => {});
        ingest?.close();
      }
    }
  }

  /** Gives what was made of a layer its name, by `publish`, and ends the ingest. Throws IngestError: it was aborted. */
  commit({ bytes }: LayerSource, digest: SourceDigest, publish: () => void): void {
    const ingest = this.open.get(bytes);
    if (ingest === undefined) publish();
    else ingest.commit(digest, publish);
  }

  /**
   * Drops what has arrived of a layer that is not what it should be. True where an earlier process had received a part of
   * it: that may be to blame, and what comes anew may be right.
   */
  reject({ bytes }: LayerSource): boolean {
    if (!isNamed(bytes)) return false;
    this.drop(bytes);
    return this.resumed.delete(bytes);
  }

  private begin(bytes: NamedBytes): Ingest | undefined {
    const { digest, size } = bytes;
    try {
      const ingest = this.ingests.open(refOf(digest), { total: size, expected: digest });
      this.open.set(bytes, ingest);
      if (ingest.offset > 0) this.resumed.add(bytes);
      return ingest;
    } catch {
      // Somebody else is at it, or the disk is full: it comes without.
      return undefined;
    }
  }

  /** Has an ingest take what came; undefined from where the disk does not. */
  private async keep(
    bytes: RemoteBytes,
    ingest: Ingest | undefined,
    take: () => Promise<void> | undefined,
  ): Promise<Ingest | undefined> {
    try {
      await take();
      return ingest;
    } catch (cause) {
      if (cause instanceof IngestError && cause.kind === "absent") throw cause;
      if (isNamed(bytes)) this.drop(bytes);
      return undefined;
    }
  }

  private drop(bytes: NamedBytes): void {
    this.open.get(bytes)?.close();
    this.open.delete(bytes);
    try {
      this.ingests.abort(refOf(bytes.digest));
    } catch {
      // It is gone, or stays until it expires.
    }
  }
}
