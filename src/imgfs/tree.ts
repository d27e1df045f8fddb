// The tree of one layer as a builder hands it to the writer: inodes, and directories that name them.
// An inode with several names in the layer is one object under several names.
import type { Name } from "../base/bytes.js";

/** Inode types; the values are the S_IFMT bits of st_mode. */
export const InodeType = {
  fifo: 0o010000,
  char: 0o020000,
  directory: 0o040000,
  block: 0o060000,
  file: 0o100000,
  symlink: 0o120000,
} as const;
export type InodeType = (typeof InodeType)[keyof typeof InodeType];

/** One extended attribute: name and value are bytes; a value may be empty. */
export interface Xattr {
  readonly name: Name;
  readonly value: Buffer;
}

interface InodeBase {
  /** Permission bits and setuid, setgid, sticky: 0 to 0o7777. A symlink is stored as 0777 whatever it says. */
  mode: number;
  uid: number;
  gid: number;
  /** Seconds since 1970, may be negative; exact within +-2**53. */
  mtimeSec: number;
  /** Nanoseconds in [0, 1e9). */
  mtimeNsec: number;
  /** In any order; a name at most once. */
  xattrs: readonly Xattr[];
}

export interface FileInode extends InodeBase {
  readonly type: typeof InodeType.file;
  /** What LayerWriter.endContent returned; undefined for an empty file. */
  content: ContentRef | undefined;
}

export interface SymlinkInode extends InodeBase {
  readonly type: typeof InodeType.symlink;
  readonly target: Buffer;
}

export interface SpecialInode extends InodeBase {
  readonly type: typeof InodeType.char | typeof InodeType.block | typeof InodeType.fifo;
  /** Device number in the kernel's 32-bit encoding; 0 for a FIFO. */
  readonly rdev: number;
}

export interface DirectoryInode extends InodeBase {
  readonly type: typeof InodeType.directory;
  readonly entries: Map<Name, LayerEntry>;
  /** Hides everything that lower layers have in this directory. */
  opaque: boolean;
  /** False for a parent no entry of the layer describes: a lower layer's metadata then stays in force. */
  explicit: boolean;
}

export type LayerInode = FileInode | SymlinkInode | SpecialInode | DirectoryInode;

/** Hides the name in lower layers. */
export interface Whiteout {
  readonly type: "whiteout";
}

/** A hard link to a path of the layers below; resolved when layers are merged. */
export interface LowerLink {
  readonly type: "link";
  /** Path from the root, components joined by `/`, normalised, no leading slash. */
  readonly target: Buffer;
}

export type LayerEntry = LayerInode | Whiteout | LowerLink;

/** A file's content as stored in the layer that is being written. Two files may share one. */
export interface ContentRef {
  /** Index in the writer's list of contents. */
  readonly id: number;
  /** Logical size in bytes, holes included. */
  readonly size: number;
}
