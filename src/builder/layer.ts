// One layer from source to blob, in one pass over its bytes: read, hash, inflate, hash, take apart, store. Runs in a
// worker thread or in process; memory does not depend on the layer's size, only on its number of entries.
// Invariant: the blob is finished only after size, digest and diffID have been found right.
import { createHash, type Hash } from "node:crypto";
import { availableParallelism } from "node:os";
import { displayName, type Name } from "../base/bytes.js";
import { type Digest, digestOf, type SourceDigest } from "../base/digest.js";
import type { Codec } from "../imgfs/codec.js";
import { layerKey } from "../imgfs/layer-key.js";
import type { FileInode } from "../imgfs/tree.js";
import { type LayerSummary, LayerWriter } from "../imgfs/writer.js";
import type { LayerSource } from "../oci/source.js";
import { compressionOf } from "./compression.js";
import { Input, type InputWatch } from "./input.js";
import { LayerTree } from "./layer-tree.js";
import { Stopped } from "./shared.js";
import type { TarMember } from "./tar/member.js";
import { type TarHandler, TarReader } from "./tar/reader.js";

/** What a worker is asked to do; plain data. */
export interface LayerTask {
  readonly source: LayerSource;
  /** Path of the blob to create; must not exist. Removed again when the conversion fails. */
  readonly target: string;
  /** Of the blob; none unless given. */
  readonly codec?: Codec;
  /** Where the bytes of a remote layer come from, see feed.ts. */
  readonly feed?: SharedArrayBuffer;
}

/** What came of it; plain data. */
export interface ConvertedLayer {
  readonly summary: LayerSummary;
  /** Digest of the uncompressed tar, all bytes of it. */
  readonly diffId: Digest;
  /** Digest of the bytes as they lie in the source, by the algorithm that the source uses. */
  readonly digest: SourceDigest;
  /** `none`, `gzip` or `zstd`, as the bytes show. */
  readonly compression: string;
  /** Bytes of the uncompressed tar. */
  readonly tarSize: number;
  readonly milliseconds: number;
}

/** How a conversion is watched. */
export interface Watch extends InputWatch {
  /** Asked before each piece; true lets a second thread inflate. */
  readonly isCoreIdle: () => boolean;
}

const unwatched: Watch = {
  onProgress: () => {},
  onWarning: () => {},
  isStopped: () => false,
  isCoreIdle: () => availableParallelism() > 1,
};

/** Converts a layer. Throws one-line Errors that name the entry, not the layer. */
export async function convertLayer(task: LayerTask, watch: Watch = unwatched): Promise<ConvertedLayer> {
  const { source, target } = task;
  const start = performance.now();
  const input = new Input(source, watch, task.feed);
  try {
    const writer = LayerWriter.create(target, task.codec);
    try {
      const sink = new LayerSink(writer, source);
      const reader = new TarReader(sink);
      const head = input.next();
      const { name: compression, open } = compressionOf(head ?? new Uint8Array(0));
      let tarSize = 0;
      let diffId: Digest;
      if (open === undefined && input.algorithm === "sha256") {
        for (let chunk = head; chunk !== undefined; chunk = input.next()) {
          tarSize += chunk.length;
          reader.write(chunk);
        }
        diffId = input.finish() as Digest;
      } else {
        const hash = createHash("sha256");
        let first = head;
        const next = (): Uint8Array | undefined => {
          const chunk = first ?? input.next();
          first = undefined;
          return chunk;
        };
        for await (const chunk of open?.(next, watch.isCoreIdle) ?? pieces(next)) {
          // A short input may have no end of output.
          if (watch.isStopped()) throw new Stopped();
          hash.update(chunk);
          tarSize += chunk.length;
          reader.write(chunk);
        }
        diffId = digestOf(hash.copy().digest());
        if (compression === "zstd" && source.diffId !== undefined && diffId !== source.diffId) {
          diffId = withLostZeros(hash, source.diffId) ?? diffId;
        }
      }
      const digest = input.finish();
      reader.finish();
      if (source.digest !== undefined && digest !== source.digest) {
        throw new Error(`digest mismatch: the bytes are ${digest}, expected ${source.digest}`);
      }
      if (source.diffId !== undefined && diffId !== source.diffId) {
        throw new Error(`diffID mismatch: the uncompressed bytes are ${diffId}, expected ${source.diffId}`);
      }
      const summary = writer.finish(sink.tree.finish(), layerKey(diffId, source.baseDirectory));
      return { summary, diffId, digest, compression, tarSize, milliseconds: performance.now() - start };
    } catch (cause) {
      writer.abort();
      throw cause;
    }
  } finally {
    input.close();
  }
}

/** GNU tar's records, to which it fills an archive up with zeros. */
const tarRecord = 10240;
const tarBlock = 512;

/**
 * `wanted` when the tar has that digest once it is filled up with zeros: writers of zstd:chunked before containers/storage
 * 1.52 drop what follows the end of the archive (containers/storage issue 1771). Zeros there say nothing, so the blob is
 * that of the whole tar. `hash` has taken the tar and is of no use afterwards.
 */
function withLostZeros(hash: Hash, wanted: Digest): Digest | undefined {
  const zeros = Buffer.alloc(tarBlock);
  for (let added = tarBlock; added <= tarRecord; added += tarBlock) {
    hash.update(zeros);
    if (digestOf(hash.copy().digest()) === wanted) return wanted;
  }
  return undefined;
}

function* pieces(next: () => Uint8Array | undefined): Generator<Uint8Array> {
  for (let piece = next(); piece !== undefined; piece = next()) yield piece;
}

/** Puts tar members into the tree and their bodies into the blob. */
class LayerSink implements TarHandler {
  readonly tree: LayerTree;
  private readonly writer: LayerWriter;
  private file: FileInode | undefined;

  constructor(writer: LayerWriter, source: LayerSource) {
    this.writer = writer;
    const { baseDirectory, claim, diffId } = source;
    this.tree = new LayerTree({
      // A layer of an image must be the same to every program that reads it; a bare tar or tree is ours alone.
      literal: diffId === undefined && claim === undefined,
      base: (baseDirectory?.split("/") ?? []) as Name[],
    });
  }

  member(member: TarMember): void {
    try {
      const file = this.tree.add(member);
      this.file = member.size === 0 ? undefined : file;
    } catch (cause) {
      throw new Error(`entry ${displayName(member.path)}: ${(cause as Error).message}`);
    }
    if (this.file !== undefined) this.writer.beginContent();
  }

  body(bytes: Uint8Array): void {
    if (this.file !== undefined) this.writer.append(bytes);
  }

  hole(length: number): void {
    if (this.file !== undefined) this.writer.appendHole(length);
  }

  end(): void {
    if (this.file === undefined) return;
    this.file.content = this.writer.endContent();
    this.file = undefined;
  }
}
