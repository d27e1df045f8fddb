// The metadata of one open file in memory, filled a page at a time: a page is read and its digest checked when the
// first record in it is touched. The memory is ours, so a file that shrinks under a mount is an error, never a signal.
// Invariant: bytes of a page are looked at only after `loaded` says 1 for it.
import { hash } from "node:crypto";
import { endianness } from "node:os";
import { Corrupt } from "./errors.js";
import { type ImageHeader, pageCounts, pageExtent, parseHeader, treeRootOf } from "./header.js";
import * as L from "./layout.js";
import type { BlobSource } from "./source.js";

export class Metadata {
  readonly file: string;
  readonly header: ImageHeader;
  /** The file's bytes [0, metaEnd), where loaded. */
  readonly bytes: Uint8Array;
  readonly u16: Uint16Array;
  readonly u32: Uint32Array;
  /** One byte for each page: 1 when its bytes are here and verified. */
  readonly loaded: Uint8Array;
  private readonly source: BlobSource | undefined;
  private readonly pagesOffset: number;
  private readonly treePages: number;
  private damage: Map<number, Corrupt> | undefined;

  private constructor(
    file: string,
    header: ImageHeader,
    bytes: Uint8Array<ArrayBuffer>,
    source: BlobSource | undefined,
  ) {
    if (endianness() !== "LE") throw new Error("imgfs runs on little-endian machines only");
    this.file = file;
    this.header = header;
    this.bytes = bytes;
    this.u16 = new Uint16Array(bytes.buffer, 0, bytes.byteLength >> 1);
    this.u32 = new Uint32Array(bytes.buffer, 0, bytes.byteLength >> 2);
    this.source = source;
    this.pagesOffset = (header.sections.at(-1) as { offset: number }).offset;
    const pages = pageCounts(header.treeEnd, this.pagesOffset);
    this.treePages = pages.tree;
    this.loaded = new Uint8Array(pages.all).fill(source === undefined ? 1 : 0);
  }

  /**
   * Reads header and page digests, nothing of the tree. Throws Corrupt or Unsupported. With `tolerate`, damage that
   * leaves the rest readable is told to it instead.
   */
  static open(source: BlobSource, tolerate?: (damage: Corrupt) => void): Metadata {
    const page = new Uint8Array(Math.min(L.HEADER_SIZE, source.size));
    const got = source.readBytes(0, page);
    const header = parseHeader(page.subarray(0, Math.max(0, got)), source.size, source.name, tolerate);
    if (header.metaEnd > source.size) {
      throw new Corrupt(source.name, "header", "meta_end", `${header.metaEnd}, beyond the end of the file`);
    }
    // Zeroed memory of this size comes untouched from the kernel: pages that are never loaded cost nothing.
    const bytes = new Uint8Array((header.metaEnd + 3) & ~3);
    bytes.set(page);
    const metadata = new Metadata(source.name, header, bytes, source);
    metadata.openPages(page, tolerate);
    return metadata;
  }

  /** Metadata that was built in this process and is all there: `bytes` must begin at a multiple of 8 in its buffer. */
  static whole(name: string, bytes: Uint8Array<ArrayBuffer>): Metadata {
    const padded =
      bytes.byteOffset === 0 && bytes.length % 4 === 0 ? bytes : new Uint8Array((bytes.length + 3) & ~3);
    if (padded !== bytes) padded.set(bytes);
    return new Metadata(
      name,
      parseHeader(bytes.subarray(0, L.HEADER_SIZE), bytes.length, name),
      padded,
      undefined,
    );
  }

  private openPages(page: Uint8Array, tolerate: ((damage: Corrupt) => void) | undefined): void {
    const { header, source, file } = this;
    const refuse = (section: string, record: string, problem: string): void => {
      const damage = new Corrupt(file, section, record, problem);
      if (tolerate === undefined) throw damage;
      tolerate(damage);
    };
    const digests = this.bytes.subarray(this.pagesOffset, header.metaEnd);
    if (source?.readBytes(this.pagesOffset, digests) !== digests.length) {
      refuse("PAGES", "", "the file ends within it");
    } else if (!header.pageRoot.equals(hash("sha256", digests, "buffer"))) {
      refuse("PAGES", "", "digest differs from page_root in the header");
    }
    const treeSections = header.sections.filter(({ id }) => id < L.FIRST_PLACE_SECTION).length;
    const treeRoot = treeRootOf(page, treeSections, digests.subarray(0, this.treePages * L.DIGEST_SIZE));
    if (`sha256:${treeRoot.toString("hex")}` !== header.treeRoot) {
      refuse("header", "tree_root", "differs from the pages of the tree");
    }
  }

  /** From now on a page that was found damaged is not read again: for the checker, which touches it often. */
  rememberDamage(): void {
    this.damage = new Map();
  }

  /** Reads and verifies one page. Throws Corrupt. */
  load(page: number): void {
    if (this.loaded[page] === 1) return;
    const known = this.damage?.get(page);
    if (known !== undefined) throw known;
    const { start, end } = pageExtent(page, this.header.treeEnd, this.pagesOffset);
    const into = this.bytes.subarray(start, end);
    if (this.source?.readBytes(start, into) !== into.length)
      throw this.damaged(page, "the file ends within it");
    const at = this.pagesOffset + page * L.DIGEST_SIZE;
    const digest = this.bytes.subarray(at, at + L.DIGEST_SIZE);
    if (Buffer.compare(hash("sha256", into, "buffer"), digest) !== 0)
      throw this.damaged(page, "digest differs");
    this.loaded[page] = 1;
  }

  get pageCount(): number {
    return this.loaded.length;
  }

  /** The part of the file metadata page `page` holds. */
  pageExtent(page: number): { start: number; end: number } {
    return pageExtent(page, this.header.treeEnd, this.pagesOffset);
  }

  private damaged(page: number, problem: string): Corrupt {
    const { start, end } = this.pageExtent(page);
    const names = this.header.sections
      .filter(({ offset, length }) => offset < end && offset + Math.max(length, 1) > start)
      .map(({ id }) => sectionName(id));
    const found = new Corrupt(
      this.file,
      names.join(", "),
      `page ${page} (bytes ${start} to ${end})`,
      problem,
    );
    this.damage?.set(page, found);
    return found;
  }

  /** Whether the file has the section; all but optional ones are there. */
  has(name: L.SectionName): boolean {
    return this.header.sections.some(({ id }) => id === L.Section[name].id);
  }

  table(name: L.SectionName): Table {
    return new Table(this, name, this.treePages);
  }
}

function sectionName(id: number): string {
  return Object.values(L.Section).find((type) => type.id === id)?.name ?? `section ${id}`;
}

/** The one way to records and heaps: positions are checked against the section, and their pages loaded. */
export class Table {
  readonly name: string;
  readonly count: number;
  private readonly metadata: Metadata;
  private readonly loaded: Uint8Array;
  private readonly start: number;
  private readonly recordSize: number;
  /** Position of page `firstPage`. */
  private readonly origin: number;
  private readonly firstPage: number;

  constructor(metadata: Metadata, name: L.SectionName, treePages: number) {
    const { id, recordSize, name: title } = L.Section[name];
    const extent = metadata.header.sections.find((section) => section.id === id);
    if (extent === undefined) throw new Corrupt(metadata.file, "header", `section ${title}`, "missing");
    this.metadata = metadata;
    this.loaded = metadata.loaded;
    this.name = title;
    this.recordSize = recordSize;
    this.start = extent.offset;
    this.count = extent.length / recordSize;
    const inTree = id < L.FIRST_PLACE_SECTION;
    this.origin = inTree ? L.HEADER_SIZE : metadata.header.treeEnd;
    this.firstPage = inTree ? 0 : treePages;
  }

  /** Position in `bytes` of record `index`. Throws Corrupt when there is none. */
  at(index: number): number {
    if (!(index >= 0 && index < this.count))
      throw this.corrupt(index, `out of range, there are ${this.count}`);
    const position = this.start + index * this.recordSize;
    const page = this.firstPage + ((position - this.origin) >> L.PAGE_LOG2);
    if (this.loaded[page] === 0) this.metadata.load(page);
    return position;
  }

  /** Position of `length` bytes at `offset` of a heap. Throws Corrupt when they are not all inside. */
  range(offset: number, length: number): number {
    if (!(offset >= 0 && length >= 0 && offset + length <= this.count)) {
      throw this.corrupt(offset, `${length} bytes reach out of range, there are ${this.count}`);
    }
    const position = this.start + offset;
    if (length === 0) return position;
    const last = this.firstPage + ((position + length - 1 - this.origin) >> L.PAGE_LOG2);
    for (let page = this.firstPage + ((position - this.origin) >> L.PAGE_LOG2); page <= last; page++) {
      if (this.loaded[page] === 0) this.metadata.load(page);
    }
    return position;
  }

  corrupt(index: number, problem: string): Corrupt {
    return new Corrupt(
      this.metadata.file,
      this.name,
      `${this.recordSize === 1 ? "byte" : "record"} ${index}`,
      problem,
    );
  }
}
