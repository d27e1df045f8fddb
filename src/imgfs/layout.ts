// The format as data: magic, header fields, sections and record layouts. FORMAT.md says what each field means.
// Invariants: all integers are little-endian; every section starts at a multiple of 64, so that no record crosses a
// metadata page; a section's place follows from the lengths of those before it.
import { raw, struct, u8, u16, u32, u64 } from "../base/bytes.js";

export const MAGIC: Uint8Array = Uint8Array.of(0x89, 0x49, 0x4d, 0x47, 0x46, 0x53, 0x0d, 0x0a);
export const MAJOR = 1;
export const MINOR = 0;
export const HEADER_SIZE = 4096;
/** Contents of at least this many bytes start at a multiple of it; the data area does, too. */
export const ALIGN_LOG2 = 12;
export const ALIGN = 1 << ALIGN_LOG2;
/** Contents below {@link ALIGN} bytes start at a multiple of this. */
export const SMALL_ALIGN = 16;
/** Unit of compression of the raw address space. */
export const FRAME_LOG2 = 17;
export const FRAME = 1 << FRAME_LOG2;
/** Unit in which metadata is read and verified. */
export const PAGE_LOG2 = 16;
export const PAGE = 1 << PAGE_LOG2;
export const SECTION_ALIGN = 64;
export const DIGEST_SIZE = 32;
export const DIGEST_SHA256 = 1;
export const NAME_HASH_FNV1A_FMIX = 1;
export const NAME_MAX = 255;
/** Longest symlink target and path of a link: the kernel's PATH_MAX without its NUL. */
export const PATH_MAX = 4095;
/** Metadata beyond this many bytes is refused, so that every position in it is a small integer. */
export const METADATA_MAX = 0x7fff_0000;
export const MAX_SECTIONS = 64;
/** Most layers an index can refer to. */
export const MAX_BLOBS = 0xfffe;
/** "None" in 32-bit reference fields. */
export const NONE = 0xffff_ffff;

export const Kind = { layer: 1, index: 2 } as const;
export type Kind = (typeof Kind)[keyof typeof Kind];

/** Codecs by their number in the header. */
export const codecNames = ["none", "zstd"] as const;
export type CodecName = (typeof codecNames)[number];
export const CODEC_NONE = 0;
export const CODEC_ZSTD = 1;
export const MAX_LEVEL = 19;

/** An index refers to blobs that have a codec, and so other file names. */
export const FEATURE_BLOB_CODECS = 0;
/** Incompatible features this version knows, by bit. */
export const knownFeatures: ReadonlyMap<number, string> = new Map([[FEATURE_BLOB_CODECS, "blob codecs"]]);

export const Header = struct({
  magic: raw(8),
  major: u16,
  minor: u16,
  headerSize: u32,
  compatible: u64,
  incompatible: u64,
  fileSize: u64,
  metaEnd: u64,
  dataOffset: u64,
  dataSize: u64,
  rawSize: u64,
  bootSize: u64,
  alignLog2: u8,
  frameLog2: u8,
  pageLog2: u8,
  digest: u8,
  codec: u8,
  nameHash: u8,
  kind: u16,
  sectionCount: u32,
  reserved0: u32,
  treeEnd: u64,
  logicalBytes: u64,
  uniqueBytes: u64,
  codecLevel: u8,
  reserved1: raw(39),
  pageRoot: raw(32),
  source: raw(32),
  treeRoot: raw(32),
  sections: raw(MAX_SECTIONS * 32),
  propertiesLength: u16,
  properties: raw(1786),
  crc: u32,
});

export const SectionEntry = struct({
  id: u16,
  flags: u16,
  recordSize: u32,
  offset: u64,
  length: u64,
  reserved: u64,
});
/** Section flag: a reader that does not know the section may ignore it. */
export const SECTION_OPTIONAL = 1;

export const DirectoryRecord = struct({ firstEntry: u32, parent: u32, selfEntry: u32, flags: u32 });
export const DIRECTORY_OPAQUE = 1;
export const DIRECTORY_IMPLIED = 2;

export const EntryRecord = struct({
  hash: u32,
  row: u32,
  nameOffset: u32,
  nameLength: u8,
  type: u8,
  flags: u16,
});

export const InodeRecord = struct({
  mode: u16,
  nlink: u16,
  owner: u16,
  xattrs: u16,
  sizeLow: u32,
  sizeHigh: u16,
  flags: u16,
  mtimeLow: u32,
  nsecMtimeHigh: u32,
  data: u32,
  aux: u32,
});
/** Link count, owner, xattr set, size and seconds are in the OVERFLOW record of this row. */
export const INODE_OVERFLOW = 1;

export const OverflowRecord = struct({
  row: u32,
  nlink: u32,
  owner: u32,
  xattrs: u32,
  size: u64,
  mtime: u64,
});
export const OwnerRecord = struct({ uid: u32, gid: u32 });
export const LinkRecord = struct({ offset: u32, length: u32 });
export const ContentRecord = struct({ rawLow: u32, rawHigh: u16, blob: u16, firstRun: u32, runCount: u32 });
export const RunRecord = struct({ rawLow: u32, rawHigh: u16, blob: u16, fileOffset: u64 });
/** `blob` of a run that is a hole; its raw offset is all ones, too. */
export const HOLE_BLOB = 0xffff;

/** Entry types: the kernel's DT_* values, and two of layers only. */
export const EntryType = {
  fifo: 1,
  char: 2,
  directory: 4,
  block: 6,
  file: 8,
  symlink: 10,
  whiteout: 14,
  link: 15,
} as const;
export type EntryType = (typeof EntryType)[keyof typeof EntryType];

export interface SectionType {
  readonly id: number;
  readonly name: string;
  /** Bytes of a record; 1 for heaps of bytes. */
  readonly recordSize: number;
}

/** Sections with lower ids are the tree, which tree_root covers; the others say where data lies. */
export const FIRST_PLACE_SECTION = 32;

export const Section = {
  directory: { id: 1, name: "DIRECTORY", recordSize: DirectoryRecord.byteLength },
  entry: { id: 2, name: "ENTRY", recordSize: EntryRecord.byteLength },
  names: { id: 3, name: "NAMES", recordSize: 1 },
  inode: { id: 4, name: "INODE", recordSize: InodeRecord.byteLength },
  targets: { id: 5, name: "TARGETS", recordSize: 1 },
  link: { id: 6, name: "LINK", recordSize: LinkRecord.byteLength },
  owner: { id: 7, name: "OWNER", recordSize: OwnerRecord.byteLength },
  overflow: { id: 8, name: "OVERFLOW", recordSize: OverflowRecord.byteLength },
  xattrOffset: { id: 9, name: "XATTR_OFFSET", recordSize: 4 },
  xattrs: { id: 10, name: "XATTRS", recordSize: 1 },
  contentDigest: { id: 11, name: "CONTENT_DIGEST", recordSize: DIGEST_SIZE },
  content: { id: 32, name: "CONTENT", recordSize: ContentRecord.byteLength },
  run: { id: 33, name: "RUN", recordSize: RunRecord.byteLength },
  blobs: { id: 34, name: "BLOBS", recordSize: 1 },
  frame: { id: 35, name: "FRAME", recordSize: 8 },
  frameDigest: { id: 36, name: "FRAME_DIGEST", recordSize: DIGEST_SIZE },
  config: { id: 40, name: "CONFIG", recordSize: 1 },
  pages: { id: 63, name: "PAGES", recordSize: DIGEST_SIZE },
} as const satisfies Record<string, SectionType>;
export type SectionName = keyof typeof Section;

const all: readonly SectionName[] = (Object.keys(Section) as SectionName[]).sort(
  (a, b) => Section[a].id - Section[b].id,
);
const plain = all.filter((name) => name !== "frame" && name !== "frameDigest");
const optional: ReadonlySet<SectionName> = new Set(["config"]);

/** Sections that a file may lack: they carry {@link SECTION_OPTIONAL}. */
export function isOptional(name: SectionName): boolean {
  return optional.has(name);
}

/** Every section a file of this version can have, in file order; those of frames only where there is a codec. */
export function sectionOrder(codec: number): readonly SectionName[] {
  return codec === CODEC_NONE ? plain : all;
}
