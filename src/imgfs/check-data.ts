// Checks where contents lie, and with their bytes at hand, that they are what their digests say.
import { alignUp } from "../base/bytes.js";
import { type HashedRun, hashContent } from "./content-hash.js";
import { type Blob, readRaw } from "./content-reader.js";
import { Corrupt } from "./errors.js";
import type { Findings } from "./findings.js";
import { DigestIndex } from "./growable.js";
import type { Image } from "./image.js";
import * as L from "./layout.js";
import { forEachRange } from "./ranges.js";

interface Extent {
  readonly content: number;
  readonly start: number;
  readonly length: number;
}

/** What is known of an image's contents after {@link checkContents}. */
export interface CheckedContents {
  /** Size by content; -1 for one that no file has. */
  readonly sizes: Float64Array;
  /** Bytes read and compared. */
  readonly bytes: number;
}

/** Checks CONTENT, CONTENT_DIGEST and RUN, and with `data` the bytes that lie in this file. */
export function checkContents(image: Image, data: boolean, findings: Findings): CheckedContents {
  const sizes = sizesOf(image, findings);
  const reader = image.contentReader;
  const extents: Extent[] = [];
  const bad = new Uint8Array(reader.count);
  let uniqueBytes = 0;
  let runs = 0;
  const digests = new DigestIndex(reader.count);
  for (let content = 0; content < reader.count; content++) {
    const size = sizes[content] as number;
    const sound = findings.attempt("CONTENT", content, () => {
      const known = digests.size;
      digests.add(image.metadata.u32, reader.digestWord(content));
      if (digests.size === known) findings.add("CONTENT_DIGEST", content, "the digest is there twice");
      if (size < 0) {
        findings.add("CONTENT", content, "no file has it");
        return;
      }
      const count = reader.runCount(content);
      const firstRun = reader.firstRun(content);
      const expected = count > 1 ? runs : 0;
      // Runs are each content's own: no run is gone through twice, which bounds the work.
      if (firstRun !== expected)
        throw contentDamage(image, content, `first run ${firstRun} instead of ${expected}`);
      if (count > 1) runs += count;
      forEachRange(image, content, size, (range) => {
        if (range.rawOffset === undefined) return;
        uniqueBytes += range.length;
        if (range.blob > image.blobs.length) {
          throw contentDamage(image, content, `blob ${range.blob} of ${image.blobs.length}`);
        }
        if (range.blob !== 0) return;
        reader.stored(content, range);
        extents.push({ content, start: range.rawOffset, length: range.length });
      });
    });
    if (!sound) bad[content] = 1;
  }
  if (runs !== reader.runTotal) findings.add("RUN", "", `${reader.runTotal} runs, ${runs} used`);
  if (uniqueBytes !== image.uniqueBytes) {
    findings.add("header", "unique_bytes", `${image.uniqueBytes}, but contents have ${uniqueBytes}`);
  }
  extents.sort((a, b) => a.start - b.start);
  checkExtents(image, extents, bad, findings);
  if (!data) return { sizes, bytes: 0 };
  findings.attempt("data", "", () => checkPadding(reader.blob(0), extents, findings));
  return { sizes, bytes: checkBytes(image, extents, sizes, bad, findings) };
}

function contentDamage(image: Image, content: number, problem: string): Corrupt {
  return new Corrupt(image.metadata.file, "CONTENT", `record ${content}`, problem);
}

/** Size by content, from the inodes; two sizes of one content are damage. */
function sizesOf(image: Image, findings: Findings): Float64Array {
  const sizes = new Float64Array(image.contentCount).fill(-1);
  let next = 0;
  for (let row = image.directoryCount; row < image.inodeCount; row++) {
    findings.attempt("INODE", row, () => {
      if (image.mode(row) >>> 12 !== L.EntryType.file) return;
      const content = image.content(row);
      if (content < 0) return;
      const size = image.size(row);
      if (content > next) findings.add("INODE", row, `content ${content} before those below it`);
      next = Math.max(next, content + 1);
      if (sizes[content] === -1) sizes[content] = size;
      else if (sizes[content] !== size) {
        findings.add("INODE", row, `size ${size} of content ${content}, which has ${sizes[content]} bytes`);
      }
    });
  }
  return sizes;
}

/** Extents tile the raw address space but for alignment. */
function checkExtents(image: Image, extents: readonly Extent[], bad: Uint8Array, findings: Findings): void {
  let end = 0;
  for (const { content, start, length } of extents) {
    const expected = alignUp(end, length < L.ALIGN ? L.SMALL_ALIGN : L.ALIGN);
    if (start < end) {
      findings.add("CONTENT", content, `lies at ${start}, in what ends at ${end}`);
      // Its bytes are not hashed: no byte is read twice, which bounds the work.
      bad[content] = 1;
    } else if (start !== expected)
      findings.add("CONTENT", content, `lies at ${start} instead of ${expected}`);
    end = Math.max(end, start + length);
  }
  const { rawSize } = image.metadata.header;
  if (end !== rawSize) findings.add("header", "raw_size", `${rawSize}, but contents end at ${end}`);
}

/** What a byte of the raw address space is called in messages. */
function byteName(blob: Blob, rawOffset: number): string {
  return blob.frames === undefined ? `byte ${blob.dataOffset + rawOffset}` : `raw byte ${rawOffset}`;
}

function checkPadding(blob: Blob, extents: readonly Extent[], findings: Findings): void {
  let end = 0;
  const bytes = new Uint8Array(L.ALIGN);
  // A gap that is larger than any padding is a finding already, and not worth reading.
  const check = (start: number): void => {
    const padding = bytes.subarray(0, Math.min(L.ALIGN, start - end));
    if (padding.length === 0) return;
    readRaw(blob, end, padding);
    const wrong = padding.findIndex((byte) => byte !== 0);
    if (wrong >= 0) findings.add("data", byteName(blob, end + wrong), "padding is not zero");
  };
  for (const { start, length } of extents) {
    if (start > end) findings.attempt("data", byteName(blob, end), () => check(start));
    end = Math.max(end, start + length);
  }
  if (blob.rawSize > end) check(blob.rawSize);
}

/** Hashes each content that lies in this file, in the order of the data. */
function checkBytes(
  image: Image,
  extents: readonly Extent[],
  sizes: Float64Array,
  bad: Uint8Array,
  findings: Findings,
): number {
  const reader = image.contentReader;
  const blob = reader.blob(0);
  const done = bad;
  let bytes = 0;
  const hashContentOf = (content: number): void => {
    const size = sizes[content] as number;
    const runs: HashedRun[] = [];
    forEachRange(image, content, size, ({ fileOffset, rawOffset, length }) => {
      runs.push({ fileOffset, rawOffset, length });
    });
    const found = hashContent(size, runs, (_, rawOffset, into) => {
      readRaw(blob, rawOffset, into);
      bytes += into.length;
    });
    if (Buffer.compare(found, reader.digest(content)) !== 0) {
      const [first] = runs;
      const where = first?.rawOffset === undefined ? "" : `, from ${byteName(blob, first.rawOffset)}`;
      findings.add("data", `content ${content}${where}`, `${size} bytes differ from their digest`);
    }
  };
  const once = (content: number): void => {
    if (done[content] === 1) return;
    done[content] = 1;
    findings.attempt("data", `content ${content}`, () => hashContentOf(content));
  };
  for (const { content } of extents) once(content);
  // What is left are holes, and contents that lie in other blobs.
  for (let content = 0; content < reader.count; content++) {
    if ((sizes[content] as number) < 0 || done[content] === 1) continue;
    findings.attempt("CONTENT", content, () => {
      let elsewhere = false;
      forEachRange(image, content, sizes[content] as number, ({ blob, rawOffset }) => {
        if (rawOffset !== undefined && blob !== 0) elsewhere = true;
      });
      if (!elsewhere) once(content);
    });
  }
  return bytes;
}
