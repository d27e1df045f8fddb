// From finished tables to the bytes in front of the data: sections placed, pages and header digested.
import { hash } from "node:crypto";
import { alignUp } from "../base/bytes.js";
import { encodeHeader, type HeaderFacts, pageCounts, pageExtent, placeSections } from "./header.js";
import * as L from "./layout.js";
import type { TreeTables } from "./tables.js";

export interface SealOptions {
  readonly kind: L.Kind;
  /** 32 bytes: diffID of a layer, key of an index. */
  readonly source: Buffer;
  readonly dataSize: number;
  readonly logicalBytes: number;
  readonly uniqueBytes: number;
  /** Content of BLOBS. */
  readonly blobs: Uint8Array;
  /** Content of CONFIG, where there is one. */
  readonly config?: Uint8Array | undefined;
  /** Incompatible features, as bits. */
  readonly features?: number;
  /** Where the data is compressed: then dataSize is what is stored of it. */
  readonly frames?: SealedFrames | undefined;
}

/** The frames of compressed data. */
export interface SealedFrames {
  readonly codec: number;
  readonly level: number;
  readonly rawSize: number;
  /** Contents of FRAME and FRAME_DIGEST. */
  readonly places: Uint8Array;
  readonly digests: Uint8Array;
}

const none = new Uint8Array(0);

/**
 * The file's bytes [0, metaEnd). Completes `tables`; it is not to be used again. Throws an Error when there is more
 * metadata than the format can hold.
 */
export function sealMetadata(tables: TreeTables, options: SealOptions): Uint8Array<ArrayBuffer> {
  return sealSections(tables.finish(), options);
}

/** The bytes of the sections that a tree and its contents make, as pieces. */
export type TreeSections = ReturnType<TreeTables["finish"]>;

/** As {@link sealMetadata}, of sections that are complete. */
export function sealSections(sections: TreeSections, options: SealOptions): Uint8Array<ArrayBuffer> {
  const pieces: Record<L.SectionName, readonly Uint8Array[]> = {
    ...sections,
    config: [options.config ?? none],
    blobs: [options.blobs],
    frame: [options.frames?.places ?? none],
    frameDigest: [options.frames?.digests ?? none],
    pages: [],
  };
  const codec = options.frames?.codec ?? L.CODEC_NONE;
  const order = L.sectionOrder(codec).filter(
    (name) => !L.isOptional(name) || (pieces[name][0]?.length ?? 0) > 0,
  );
  const lengths = Object.fromEntries(
    order.map((name) => [name, pieces[name].reduce((sum, piece) => sum + piece.length, 0)]),
  ) as Record<L.SectionName, number>;
  const sketch = placeSections(order, lengths);
  const pagesOffset = (sketch.sections.at(-1) as { offset: number }).offset;
  lengths.pages = pageCounts(sketch.treeEnd, pagesOffset).all * L.DIGEST_SIZE;
  const { sections: extents, treeEnd } = placeSections(order, lengths);
  const metaEnd = pagesOffset + lengths.pages;
  if (metaEnd > L.METADATA_MAX) throw new Error(`${metaEnd} bytes of metadata, at most ${L.METADATA_MAX}`);

  const file = new Uint8Array(metaEnd);
  order.forEach((name, i) => {
    let at = extents[i]?.offset as number;
    for (const piece of pieces[name]) {
      file.set(piece, at);
      at += piece.length;
    }
  });
  sealPages(file, treeEnd, pagesOffset);
  const dataOffset = options.dataSize === 0 ? 0 : alignUp(metaEnd, L.ALIGN);
  const facts: HeaderFacts = {
    kind: options.kind,
    codec,
    codecLevel: options.frames?.level ?? 0,
    features: options.features ?? 0,
    fileSize: options.dataSize === 0 ? metaEnd : dataOffset + options.dataSize,
    metaEnd,
    dataOffset,
    dataSize: options.dataSize,
    rawSize: options.frames?.rawSize ?? options.dataSize,
    treeEnd,
    logicalBytes: options.logicalBytes,
    uniqueBytes: options.uniqueBytes,
    source: options.source,
    sections: extents,
  };
  file.set(encodeHeader(facts, file.subarray(pagesOffset)));
  return file;
}

/** Fills PAGES from the bytes before it. */
function sealPages(file: Uint8Array, treeEnd: number, pagesOffset: number): void {
  const { all } = pageCounts(treeEnd, pagesOffset);
  for (let page = 0; page < all; page++) {
    const { start, end } = pageExtent(page, treeEnd, pagesOffset);
    file.set(hash("sha256", file.subarray(start, end), "buffer"), pagesOffset + page * L.DIGEST_SIZE);
  }
}
