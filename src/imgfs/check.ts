// The checker: every damage it can find in an image or a layer, instead of the first. It never throws for what is in
// a file. Damage of an index is looked for in its blobs, too.
import { createHash } from "node:crypto";
import { dirname, join } from "node:path";
import { digestBytes } from "../base/digest.js";
import { checkContents } from "./check-data.js";
import { checkTree } from "./check-tree.js";
import { codecText } from "./codec.js";
import { type Finding, Findings } from "./findings.js";
import { blobFile } from "./folder.js";
import { FrameTable } from "./frames.js";
import { Image } from "./image.js";
import * as L from "./layout.js";
import { forEachRange, sizesByContent } from "./ranges.js";
import { type BlobSource, fileSource } from "./source.js";

export type { Finding } from "./findings.js";

export interface CheckOptions {
  /** Also reads and hashes the data. */
  readonly data: boolean;
  /** Where the blobs of an index are; beside it unless given. */
  readonly blobDirectory?: string;
}

export interface CheckReport {
  /** Empty for a sound image. Of one kind in one file at most 5, the first. */
  readonly findings: readonly Finding[];
  /** How many more there were of those kinds. */
  readonly leftOut: number;
  /** Files looked at, the image first. */
  readonly files: readonly string[];
  readonly inodes: number;
  readonly entries: number;
  readonly contents: number;
  /** Bytes of data hashed. */
  readonly dataBytes: number;
}

/** Checks a layer blob, or an index with its blobs. Never throws; a file that cannot be read is a finding. */
export function checkImage(path: string, options: CheckOptions): CheckReport {
  return checkFile(path, options, true);
}

/** `follow`: the blobs of an index, too. Of a blob they are not: an index in place of one might name itself. */
function checkFile(path: string, options: CheckOptions, follow: boolean): CheckReport {
  const findings = new Findings(path);
  const report = {
    findings: findings.list,
    leftOut: 0,
    files: [path],
    inodes: 0,
    entries: 0,
    contents: 0,
    dataBytes: 0,
  };
  let source: BlobSource | undefined;
  findings.attempt("file", "", () => {
    source = fileSource(path);
    const image = Image.inspect(source, (damage) => findings.tell(damage));
    report.inodes = image.inodeCount;
    report.entries = image.entryTotal;
    report.contents = image.contentCount;
    checkPages(image, source, findings);
    if (image.metadata.has("config") && !image.isFlat)
      findings.add("CONFIG", "", "in a file that is no flattened image");
    checkTree(image, findings);
    checkFrames(image, findings);
    const { sizes, bytes } = checkContents(image, options.data, findings);
    report.dataBytes = bytes;
    if (follow) checkBlobs(image, sizes, path, options, findings, report);
  });
  source?.close();
  report.leftOut += findings.leftOut;
  return report;
}

/** Each metadata page against its digest, and that what is between sections is zero. */
function checkPages(image: Image, source: BlobSource, findings: Findings): void {
  const { metadata } = image;
  const { header, bytes } = metadata;
  const { start, end } = {
    start: header.metaEnd,
    end: header.dataSize === 0 ? header.metaEnd : header.dataOffset,
  };
  const zero = (where: string, part: Uint8Array): void => {
    if (part.some((byte) => byte !== 0)) findings.add(where, "", "padding is not zero");
  };
  for (let page = 0; page < metadata.pageCount; page++) {
    findings.attempt("PAGES", page, () => metadata.load(page));
  }
  header.sections.forEach((section, i) => {
    const next = header.sections[i + 1]?.offset ?? header.metaEnd;
    zero("between sections", bytes.subarray(section.offset + section.length, next));
  });
  const used = L.Header.sections + header.sections.length * L.SectionEntry.byteLength;
  zero("header", bytes.subarray(used, L.Header.propertiesLength));
  const properties =
    L.Header.properties +
    ((bytes[L.Header.propertiesLength] as number) | ((bytes[L.Header.propertiesLength + 1] as number) << 8));
  zero("header", bytes.subarray(properties, L.Header.crc));
  const padding = new Uint8Array(Math.max(0, end - start));
  source.readBytes(start, padding);
  zero("before the data", padding);
}

const emptyDigest = createHash("sha256").digest();

/** The places of frames: one behind the other from the start of the data to its end, none larger than what it holds. */
function checkFrames(image: Image, findings: Findings): void {
  if (image.codec.name === "none") return;
  const { metadata } = image;
  const { dataSize } = metadata.header;
  const table = new FrameTable(metadata);
  const place = { offset: 0, stored: 0, raw: 0 };
  for (let frame = 0; frame < table.count; frame++) {
    findings.attempt("FRAME", frame, () => {
      table.place(frame, place);
      // No reader compares the digest of what is not there.
      if (place.stored === 0 && !emptyDigest.equals(table.digest(frame))) {
        findings.add("FRAME_DIGEST", frame, "is not that of no bytes");
      }
    });
  }
  for (const [frame, wanted] of [
    [0, 0],
    [table.count, dataSize],
  ] as const) {
    findings.attempt("FRAME", frame, () => {
      const found = table.word(frame);
      if (found !== wanted) findings.add("FRAME", frame, `lies at ${found} instead of ${wanted}`);
    });
  }
}

/** The blobs of an index: there, sound, and holding what the index says they hold. */
function checkBlobs(
  image: Image,
  sizes: Float64Array,
  path: string,
  options: CheckOptions,
  findings: Findings,
  report: { files: string[]; leftOut: number; dataBytes: number },
): void {
  const announced = (image.metadata.header.features & (1 << L.FEATURE_BLOB_CODECS)) !== 0;
  if (announced && !image.blobs.some(({ codec }) => codec.name !== "none")) {
    findings.add("header", "incompatible", "no blob has a codec");
  }
  if (image.kind !== "index") return;
  const key = createHash("sha256");
  for (const { rootDigest } of image.blobs) key.update(digestBytes(rootDigest));
  if (image.blobs.length > 0 && `sha256:${key.digest("hex")}` !== image.source) {
    findings.add("header", "source", "is not the digest of the blobs' root digests");
  }
  const directory = options.blobDirectory ?? dirname(path);
  image.blobs.forEach((info, i) => {
    const file = join(directory, blobFile(info.source, info.codec));
    if (!report.files.includes(file)) {
      const inner = checkFile(file, options, false);
      report.files.push(file);
      for (const finding of inner.findings) findings.tell(finding);
      report.dataBytes += inner.dataBytes;
      report.leftOut += inner.leftOut;
      if (inner.findings.length > 0) return;
    }
    findings.attempt("BLOBS", `blob ${i + 1}`, () => {
      const blob = Image.open(file);
      try {
        const bad = (problem: string): void => findings.add("BLOBS", `blob ${i + 1}`, problem);
        if (blob.rootDigest !== info.rootDigest)
          bad(`${file} has root digest ${blob.rootDigest}, not ${info.rootDigest}`);
        if (blob.source !== info.source) bad(`${file} is ${blob.source}`);
        if (codecText(blob.codec) !== codecText(info.codec)) {
          bad(`${file} has codec ${codecText(blob.codec)}, not ${codecText(info.codec)}`);
        }
        if (blob.kind !== "layer") bad(`${file} is no layer`);
        if (blob.fileSize !== info.fileSize) bad(`${file} has ${blob.fileSize} bytes, not ${info.fileSize}`);
        if (blob.metadata.header.rawSize !== info.rawSize)
          bad(`${file} has ${blob.metadata.header.rawSize} bytes of data, not ${info.rawSize}`);
        if (blob.uniqueBytes !== info.uniqueBytes)
          bad(`${file} has ${blob.uniqueBytes} bytes of contents, not ${info.uniqueBytes}`);
        comparePlaces(image, i + 1, sizes, blob, findings);
      } finally {
        blob.close();
      }
    });
  });
}

/** Every content that the index places in blob `number` is one of the blob's own, at the same place. */
function comparePlaces(
  image: Image,
  number: number,
  sizes: Float64Array,
  blob: Image,
  findings: Findings,
): void {
  const places = (of: Image, content: number, size: number): string => {
    const parts: string[] = [];
    forEachRange(of, content, size, ({ rawOffset, fileOffset, length }) =>
      parts.push(`${fileOffset}+${length}@${rawOffset}`),
    );
    return parts.join(" ");
  };
  const own = new Map<string, number>();
  const hex = (of: Image, content: number): string =>
    Buffer.from(of.contentReader.digest(content)).toString("hex");
  for (let content = 0; content < blob.contentCount; content++) own.set(hex(blob, content), content);
  const ownSizes = sizesByContent(blob);
  for (let content = 0; content < image.contentCount; content++) {
    const size = sizes[content] as number;
    if (size < 0) continue;
    findings.attempt("CONTENT", content, () => {
      let here = false;
      forEachRange(image, content, size, (range) => {
        here ||= range.rawOffset !== undefined && range.blob === number;
      });
      if (!here) return;
      const other = own.get(hex(image, content));
      if (other === undefined)
        findings.add("CONTENT", content, `${blob.metadata.file} has no content of this digest`);
      else if (ownSizes[other] !== size || places(image, content, size) !== places(blob, other, size)) {
        findings.add("CONTENT", content, `lies elsewhere in ${blob.metadata.file}`);
      }
    });
  }
}
