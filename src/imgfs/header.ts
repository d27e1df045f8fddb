// The header page: what it says, how it is written, and every check that opening needs. Work here is proportional to
// the number of sections, never to the tree.
// Invariant: a Header that parseHeader returned describes sections that tile [HEADER_SIZE, metaEnd) in order.
import { createHash, hash } from "node:crypto";
import { crc32 } from "node:zlib";
import { alignUp, readU64, writeU64 } from "../base/bytes.js";
import { type Digest, digestOf } from "../base/digest.js";
import { Corrupt, Unsupported } from "./errors.js";
import * as L from "./layout.js";
import { pack, unpack } from "./pack.js";

export interface SectionExtent {
  readonly id: number;
  readonly flags: number;
  readonly recordSize: number;
  readonly offset: number;
  readonly length: number;
}

/** Facts of the header. Sizes and offsets are bytes in the file. */
export interface HeaderFacts {
  readonly kind: L.Kind;
  readonly codec: number;
  /** The codec's level; 0 with codec none. */
  readonly codecLevel: number;
  /** Incompatible features in force, as bits. */
  readonly features: number;
  readonly fileSize: number;
  readonly metaEnd: number;
  readonly dataOffset: number;
  readonly dataSize: number;
  /** Length of the address space that CONTENT and RUN point into; with codec none it is dataSize. */
  readonly rawSize: number;
  readonly treeEnd: number;
  /** Sum of file sizes, each inode once. */
  readonly logicalBytes: number;
  /** Bytes of file data stored, without padding. */
  readonly uniqueBytes: number;
  readonly source: Buffer;
  readonly sections: readonly SectionExtent[];
}

/** A parsed header with its digests. */
export interface ImageHeader extends HeaderFacts {
  readonly pageRoot: Buffer;
  readonly treeRoot: Digest;
  readonly rootDigest: Digest;
}

/** Metadata pages of the tree sections, and of all sections up to `pagesOffset`. */
export function pageCounts(treeEnd: number, pagesOffset: number): { tree: number; all: number } {
  const tree = Math.ceil((treeEnd - L.HEADER_SIZE) / L.PAGE);
  return { tree, all: tree + Math.ceil((pagesOffset - treeEnd) / L.PAGE) };
}

/** Start and end in the file of metadata page `page`. */
export function pageExtent(
  page: number,
  treeEnd: number,
  pagesOffset: number,
): { start: number; end: number } {
  const { tree } = pageCounts(treeEnd, pagesOffset);
  const start = page < tree ? L.HEADER_SIZE + page * L.PAGE : treeEnd + (page - tree) * L.PAGE;
  return { start, end: Math.min(start + L.PAGE, page < tree ? treeEnd : pagesOffset) };
}

/** Extents of sections of the given lengths, in file order: the only placing there is. */
export function placeSections(
  order: readonly L.SectionName[],
  lengths: Readonly<Record<L.SectionName, number>>,
): {
  sections: SectionExtent[];
  treeEnd: number;
} {
  let at = L.HEADER_SIZE;
  let treeEnd = at;
  const sections = order.map((name): SectionExtent => {
    const { id, recordSize } = L.Section[name];
    const flags = L.isOptional(name) ? L.SECTION_OPTIONAL : 0;
    const extent = { id, flags, recordSize, offset: at, length: lengths[name] };
    at = alignUp(at + extent.length, L.SECTION_ALIGN);
    if (id < L.FIRST_PLACE_SECTION) treeEnd = at;
    return extent;
  });
  return { sections, treeEnd };
}

function encodeSections(page: Buffer, sections: readonly SectionExtent[]): void {
  const view = new DataView(page.buffer, page.byteOffset, page.length);
  sections.forEach((section, i) => {
    const at = L.Header.sections + i * L.SectionEntry.byteLength;
    view.setUint16(at + L.SectionEntry.id, section.id, true);
    view.setUint16(at + L.SectionEntry.flags, section.flags, true);
    view.setUint32(at + L.SectionEntry.recordSize, section.recordSize, true);
    writeU64(view, at + L.SectionEntry.offset, section.offset);
    writeU64(view, at + L.SectionEntry.length, section.length);
  });
}

/** tree_root: the tree's section entries as the header holds them, then the digests of the tree's pages. */
export function treeRootOf(page: Uint8Array, treeSections: number, treePageDigests: Uint8Array): Buffer {
  const start = L.Header.sections;
  return createHash("sha256")
    .update("imgfs tree 1\n")
    .update(page.subarray(start, start + treeSections * L.SectionEntry.byteLength))
    .update(treePageDigests)
    .digest();
}

/** The header page for sealed sections; `pageDigests` is the content of PAGES. */
export function encodeHeader(facts: HeaderFacts, pageDigests: Uint8Array): Buffer {
  const page = Buffer.alloc(L.HEADER_SIZE);
  const view = new DataView(page.buffer, page.byteOffset, page.length);
  const H = L.Header;
  page.set(L.MAGIC, H.magic);
  view.setUint16(H.major, L.MAJOR, true);
  view.setUint16(H.minor, L.MINOR, true);
  view.setUint32(H.headerSize, L.HEADER_SIZE, true);
  writeU64(view, H.incompatible, facts.features);
  writeU64(view, H.fileSize, facts.fileSize);
  writeU64(view, H.metaEnd, facts.metaEnd);
  writeU64(view, H.dataOffset, facts.dataOffset);
  writeU64(view, H.dataSize, facts.dataSize);
  writeU64(view, H.rawSize, facts.rawSize);
  writeU64(view, H.bootSize, facts.metaEnd);
  page[H.alignLog2] = L.ALIGN_LOG2;
  page[H.frameLog2] = L.FRAME_LOG2;
  page[H.pageLog2] = L.PAGE_LOG2;
  page[H.digest] = L.DIGEST_SHA256;
  page[H.codec] = facts.codec;
  page[H.codecLevel] = facts.codecLevel;
  page[H.nameHash] = L.NAME_HASH_FNV1A_FMIX;
  view.setUint16(H.kind, facts.kind, true);
  view.setUint32(H.sectionCount, facts.sections.length, true);
  writeU64(view, H.treeEnd, facts.treeEnd);
  writeU64(view, H.logicalBytes, facts.logicalBytes);
  writeU64(view, H.uniqueBytes, facts.uniqueBytes);
  page.set(hash("sha256", pageDigests, "buffer"), H.pageRoot);
  page.set(facts.source, H.source);
  encodeSections(page, facts.sections);
  const treeSections = facts.sections.filter(({ id }) => id < L.FIRST_PLACE_SECTION).length;
  const treePages = pageCounts(facts.treeEnd, facts.treeEnd).tree;
  page.set(treeRootOf(page, treeSections, pageDigests.subarray(0, treePages * L.DIGEST_SIZE)), H.treeRoot);
  const properties = pack(featureNames(facts.features));
  view.setUint16(H.propertiesLength, properties.length, true);
  page.set(properties, H.properties);
  view.setUint32(H.crc, crc32(page.subarray(0, H.crc)), true);
  return page;
}

/** The properties that name a header's features; none where there are none. */
function featureNames(features: number): { features?: Record<string, string> } {
  const named = [...L.knownFeatures].filter(([bit]) => (features & (1 << bit)) !== 0);
  return named.length === 0
    ? {}
    : { features: Object.fromEntries(named.map(([bit, name]) => [String(bit), name])) };
}

/**
 * Parses and checks a header page of a file of `actualSize` bytes. Throws Corrupt for damage, Unsupported for a
 * version, feature, codec or section this version does not know. With `tolerate`, a wrong checksum and a wrong file
 * size are told to it instead.
 */
export function parseHeader(
  page: Uint8Array,
  actualSize: number,
  file: string,
  tolerate?: (damage: Corrupt) => void,
): ImageHeader {
  const bad = (record: string, problem: string): Corrupt => new Corrupt(file, "header", record, problem);
  const H = L.Header;
  if (page.length < L.MAGIC.length || !L.MAGIC.every((byte, i) => page[i] === byte)) {
    throw bad("magic", "not an imgfs file");
  }
  if (page.length < L.HEADER_SIZE) throw bad("header_size", `the file ends after ${page.length} bytes`);
  const view = new DataView(page.buffer, page.byteOffset, page.length);
  const u64 = (
    field:
      | "fileSize"
      | "metaEnd"
      | "dataOffset"
      | "dataSize"
      | "rawSize"
      | "bootSize"
      | "treeEnd"
      | "logicalBytes"
      | "uniqueBytes",
  ): number => {
    const value = unsigned(view, H[field]);
    if (value === undefined) throw bad(snake(field), "beyond 2^53");
    return value;
  };
  const expectValue = (field: keyof typeof H, actual: number, wanted: number): void => {
    if (actual !== wanted) throw bad(snake(field), `${actual} instead of ${wanted}`);
  };
  if (view.getUint32(H.crc, true) !== crc32(page.subarray(0, H.crc))) {
    const damage = bad("crc", "checksum differs");
    if (tolerate === undefined) throw damage;
    tolerate(damage);
  }
  const major = view.getUint16(H.major, true);
  if (major !== L.MAJOR) throw new Unsupported(file, `format version ${major}`);
  expectValue("headerSize", view.getUint32(H.headerSize, true), L.HEADER_SIZE);
  refuseUnknownFeatures(page, view, file);
  expectValue("alignLog2", page[H.alignLog2] as number, L.ALIGN_LOG2);
  expectValue("frameLog2", page[H.frameLog2] as number, L.FRAME_LOG2);
  expectValue("pageLog2", page[H.pageLog2] as number, L.PAGE_LOG2);
  expectValue("digest", page[H.digest] as number, L.DIGEST_SHA256);
  expectValue("nameHash", page[H.nameHash] as number, L.NAME_HASH_FNV1A_FMIX);
  const codec = page[H.codec] as number;
  if (L.codecNames[codec] === undefined) throw new Unsupported(file, `codec ${codec}`);
  const codecLevel = page[H.codecLevel] as number;
  if (codec === L.CODEC_NONE ? codecLevel !== 0 : codecLevel < 1 || codecLevel > L.MAX_LEVEL) {
    throw bad("codec_level", `${codecLevel} with codec ${L.codecNames[codec]}`);
  }
  const kind = view.getUint16(H.kind, true);
  if (kind !== L.Kind.layer && kind !== L.Kind.index) throw bad("kind", `unknown kind ${kind}`);
  if (
    view.getUint32(H.reserved0, true) !== 0 ||
    page.subarray(H.reserved1, H.pageRoot).some((b) => b !== 0)
  ) {
    throw bad("reserved", "not zero");
  }

  const facts = {
    kind,
    codec,
    codecLevel,
    features: view.getUint32(H.incompatible, true),
    fileSize: u64("fileSize"),
    metaEnd: u64("metaEnd"),
    dataOffset: u64("dataOffset"),
    dataSize: u64("dataSize"),
    rawSize: u64("rawSize"),
    treeEnd: u64("treeEnd"),
    logicalBytes: u64("logicalBytes"),
    uniqueBytes: u64("uniqueBytes"),
  };
  if (facts.fileSize !== actualSize) {
    const damage = bad("file_size", `${facts.fileSize}, but the file has ${actualSize} bytes`);
    if (tolerate === undefined) throw damage;
    tolerate(damage);
  }
  if (facts.metaEnd > Math.min(facts.fileSize, L.METADATA_MAX))
    throw bad("meta_end", `${facts.metaEnd} is out of range`);
  expectValue("dataOffset", facts.dataOffset, facts.dataSize === 0 ? 0 : alignUp(facts.metaEnd, L.ALIGN));
  expectValue(
    "fileSize",
    facts.fileSize,
    facts.dataSize === 0 ? facts.metaEnd : facts.dataOffset + facts.dataSize,
  );
  // A frame is never stored in more bytes than it has.
  if (codec === L.CODEC_NONE ? facts.rawSize !== facts.dataSize : facts.rawSize < facts.dataSize) {
    throw bad("raw_size", `${facts.rawSize}, but data_size is ${facts.dataSize}`);
  }
  expectValue("bootSize", u64("bootSize"), facts.metaEnd);
  const sections = parseSections(view, facts, file);
  return {
    ...facts,
    source: Buffer.from(page.subarray(H.source, H.source + 32)),
    sections,
    pageRoot: Buffer.from(page.subarray(H.pageRoot, H.pageRoot + 32)),
    treeRoot: digestOf(page.subarray(H.treeRoot, H.treeRoot + 32)),
    rootDigest: digestOf(hash("sha256", page, "buffer")),
  };
}

/** Sections tile [HEADER_SIZE, metaEnd) in order of their ids, each known one there once, PAGES last. */
function parseSections(
  view: DataView,
  { codec, rawSize, treeEnd, metaEnd }: Pick<HeaderFacts, "codec" | "rawSize" | "treeEnd" | "metaEnd">,
  file: string,
): SectionExtent[] {
  const bad = (record: string, problem: string): Corrupt => new Corrupt(file, "header", record, problem);
  const count = view.getUint32(L.Header.sectionCount, true);
  if (count > L.MAX_SECTIONS) throw bad("section_count", `${count}, at most ${L.MAX_SECTIONS}`);
  const names = L.sectionOrder(codec);
  const byId = new Map<number, L.SectionType>(names.map((name) => [L.Section[name].id, L.Section[name]]));
  const sections: SectionExtent[] = [];
  let at = L.HEADER_SIZE;
  let expectedTreeEnd = at;
  let lastId = 0;
  for (let i = 0; i < count; i++) {
    const base = L.Header.sections + i * L.SectionEntry.byteLength;
    const id = view.getUint16(base + L.SectionEntry.id, true);
    const flags = view.getUint16(base + L.SectionEntry.flags, true);
    const recordSize = view.getUint32(base + L.SectionEntry.recordSize, true);
    const offset = unsigned(view, base + L.SectionEntry.offset);
    const length = unsigned(view, base + L.SectionEntry.length);
    const known = byId.get(id);
    const record = known === undefined ? `section ${id}` : `section ${known.name}`;
    if (id <= lastId) throw bad(record, `follows section ${lastId}`);
    if (known === undefined && (flags & L.SECTION_OPTIONAL) === 0) throw new Unsupported(file, record);
    // tree_root covers flags: equal trees must not differ in what nobody reads.
    const name = names.find((one) => L.Section[one].id === id);
    const wanted = name === undefined || L.isOptional(name) ? L.SECTION_OPTIONAL : 0;
    if (flags !== wanted) throw bad(record, `flags ${flags} instead of ${wanted}`);
    if (known !== undefined && recordSize !== known.recordSize) {
      throw bad(record, `record size ${recordSize} instead of ${known.recordSize}`);
    }
    if (offset !== at) throw bad(record, `offset ${offset ?? "beyond 2^53"} instead of ${at}`);
    if (length === undefined || length > metaEnd - at) {
      throw bad(record, `length ${length ?? "beyond 2^53"} is out of range`);
    }
    if (known !== undefined && length % recordSize !== 0)
      throw bad(record, `length ${length} is no multiple of ${recordSize}`);
    if (unsigned(view, base + L.SectionEntry.reserved) !== 0) throw bad(record, "reserved field is not zero");
    sections.push({ id, flags, recordSize, offset, length });
    lastId = id;
    at = alignUp(at + length, L.SECTION_ALIGN);
    if (id < L.FIRST_PLACE_SECTION) expectedTreeEnd = at;
  }
  for (const name of names) {
    const { id, name: title } = L.Section[name];
    if (L.isOptional(name) || sections.some((section) => section.id === id)) continue;
    throw bad(`section ${title}`, "missing");
  }
  const last = sections.at(-1);
  if (last?.id !== L.Section.pages.id) throw bad(`section ${lastId}`, "follows PAGES");
  if (last.offset + last.length !== metaEnd)
    throw bad("meta_end", `${metaEnd} instead of ${last.offset + last.length}`);
  if (treeEnd !== expectedTreeEnd) throw bad("tree_end", `${treeEnd} instead of ${expectedTreeEnd}`);
  if (codec !== L.CODEC_NONE) checkFrameCounts(sections, rawSize, file);
  const pages = pageCounts(treeEnd, last.offset).all;
  if (last.length !== pages * L.DIGEST_SIZE)
    throw bad("section PAGES", `${last.length / L.DIGEST_SIZE} digests for ${pages} pages`);
  return sections;
}

/** One record for each frame of the raw address space, and in FRAME one behind them. */
function checkFrameCounts(sections: readonly SectionExtent[], rawSize: number, file: string): void {
  const frames = Math.ceil(rawSize / L.FRAME);
  for (const [{ id, name }, wanted] of [
    [L.Section.frame, frames + 1],
    [L.Section.frameDigest, frames],
  ] as const) {
    const { length, recordSize } = sections.find((section) => section.id === id) as SectionExtent;
    if (length !== wanted * recordSize) {
      throw new Corrupt(
        file,
        "header",
        `section ${name}`,
        `${length / recordSize} records for ${frames} frames`,
      );
    }
  }
}

function refuseUnknownFeatures(page: Uint8Array, view: DataView, file: string): void {
  const bits = view.getBigUint64(L.Header.incompatible, true);
  const unknown: number[] = [];
  for (let bit = 0; bit < 64; bit++) {
    if (((bits >> BigInt(bit)) & 1n) === 1n && !L.knownFeatures.has(bit)) unknown.push(bit);
  }
  const length = view.getUint16(L.Header.propertiesLength, true);
  const room = L.Header.crc - L.Header.properties;
  const start = L.Header.properties;
  const properties = length > room ? undefined : unpack(page.subarray(start, start + length));
  if (typeof properties !== "object" || properties === null || Array.isArray(properties)) {
    throw new Corrupt(file, "header", "properties", "not a msgpack map");
  }
  if (unknown.length === 0) return;
  const names = (properties as { features?: unknown }).features;
  const nameOf = (bit: number): string => {
    const name: unknown =
      typeof names === "object" && names !== null
        ? (names as Record<string, unknown>)[String(bit)]
        : undefined;
    return typeof name === "string" ? JSON.stringify(name) : `bit ${bit}`;
  };
  throw new Unsupported(file, `feature ${unknown.map(nameOf).join(", ")}`);
}

function unsigned(view: DataView, offset: number): number | undefined {
  try {
    return readU64(view, offset);
  } catch {
    return undefined;
  }
}

function snake(field: string): string {
  return field.replace(/[A-Z]/g, (letter) => `_${letter.toLowerCase()}`);
}
