// Checks where contents lie, and with their bytes at hand, that they are what their digests say.
import { createHash } from "node:crypto";
import { alignUp } from "../base/bytes.js";
import type { ContentRange } from "./content-reader.js";
import { contentDigest, type Run } from "./contents.js";
import { Corrupt } from "./errors.js";
import type { Findings } from "./findings.js";
import { DigestIndex } from "./growable.js";
import type { Image } from "./image.js";
import * as L from "./layout.js";
import type { BlobSource } from "./source.js";

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
  checkExtents(image, extents, findings);
  if (!data) return { sizes, bytes: 0 };
  const { source, dataOffset } = reader.blob(0);
  findings.attempt("data", "", () =>
    checkPadding(source, dataOffset, image.metadata.header.rawSize, extents, findings),
  );
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

/** Calls `visit` for each run of a content, holes too; the range is reused. */
export function forEachRange(
  image: Image,
  content: number,
  size: number,
  visit: (range: ContentRange) => void,
): void {
  const reader = image.contentReader;
  const range: ContentRange = { blob: 0, rawOffset: undefined, fileOffset: 0, length: 0 };
  const count = Math.max(1, reader.runCount(content));
  for (let run = 0; run < count; run++) {
    reader.range(content, run, size, range);
    visit(range);
  }
}

/** Extents tile the raw address space but for alignment. */
function checkExtents(image: Image, extents: readonly Extent[], findings: Findings): void {
  let end = 0;
  for (const { content, start, length } of extents) {
    const expected = alignUp(end, length < L.ALIGN ? L.SMALL_ALIGN : L.ALIGN);
    if (start < end) findings.add("CONTENT", content, `lies at ${start}, in what ends at ${end}`);
    else if (start !== expected) findings.add("CONTENT", content, `lies at ${start} instead of ${expected}`);
    end = Math.max(end, start + length);
  }
  const { rawSize } = image.metadata.header;
  if (end !== rawSize) findings.add("header", "raw_size", `${rawSize}, but contents end at ${end}`);
}

const CHUNK = 1 << 20;

function checkPadding(
  source: BlobSource,
  dataOffset: number,
  rawSize: number,
  extents: readonly Extent[],
  findings: Findings,
): void {
  let end = 0;
  const check = (start: number): void => {
    for (let at = end; at < start; at += CHUNK) {
      const bytes = new Uint8Array(Math.min(CHUNK, start - at));
      source.readBytes(dataOffset + at, bytes);
      const wrong = bytes.findIndex((byte) => byte !== 0);
      if (wrong >= 0) findings.add("data", `byte ${dataOffset + at + wrong}`, "padding is not zero");
    }
  };
  for (const { start, length } of extents) {
    check(start);
    end = Math.max(end, start + length);
  }
  check(rawSize);
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
  const { source, dataOffset } = reader.blob(0);
  const buffer = Buffer.allocUnsafe(CHUNK);
  const done = bad;
  let bytes = 0;
  const hashContent = (content: number): void => {
    const size = sizes[content] as number;
    const hash = createHash("sha256");
    const runs: Run[] = [];
    forEachRange(image, content, size, (range) => {
      runs.push({ fileOffset: range.fileOffset, rawOffset: range.rawOffset });
      if (range.rawOffset === undefined) return;
      for (let at = 0; at < range.length; at += CHUNK) {
        const piece = buffer.subarray(0, Math.min(CHUNK, range.length - at));
        const position = dataOffset + range.rawOffset + at;
        const got = source.readBytes(position, piece);
        if (got < piece.length)
          throw new Corrupt(
            source.name,
            "data",
            `content ${content}`,
            `the file ends at byte ${position + got}`,
          );
        hash.update(piece);
      }
      bytes += range.length;
    });
    const expected = reader.digest(content);
    if (Buffer.compare(contentDigest(size, runs, hash.digest()), expected) !== 0) {
      const [first] = runs;
      const where = first?.rawOffset === undefined ? "" : `, from byte ${dataOffset + first.rawOffset}`;
      findings.add("data", `content ${content}${where}`, `${size} bytes differ from their digest`);
    }
  };
  const once = (content: number): void => {
    if (done[content] === 1) return;
    done[content] = 1;
    findings.attempt("data", `content ${content}`, () => hashContent(content));
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
