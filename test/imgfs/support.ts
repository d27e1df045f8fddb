// Layer trees in a few words, layers written to temporary files, and images read back as plain listings.
import { createHash } from "node:crypto";
import { mkdtempSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { afterAll } from "vitest";
import { bytesOf, type Name, nameFromText, nameOf } from "../../src/base/bytes.js";
import { type Digest, sha256 } from "../../src/base/digest.js";
import type { Codec } from "../../src/imgfs/codec.js";
import { type DirectoryEntry, Image } from "../../src/imgfs/image.js";
import type { DirectoryInode, FileInode, LayerEntry, LayerInode, Xattr } from "../../src/imgfs/tree.js";
import { InodeType } from "../../src/imgfs/tree.js";
import { type LayerSummary, LayerWriter } from "../../src/imgfs/writer.js";
import { allocatePages } from "../../src/sys/memory.js";

export const scratch = mkdtempSync(join(tmpdir(), "imgfs-test-"));
afterAll(() => rmSync(scratch, { recursive: true, force: true }));

let counter = 0;
export function temporary(extension = "imgfs"): string {
  return join(scratch, `${++counter}.${extension}`);
}

/** Bytes that no compressor makes smaller, the same on every run. */
export function noise(length: number, seed = 0): Buffer {
  const parts = Array.from({ length: Math.ceil(length / 32) }, (_, i) =>
    createHash("sha256").update(`${seed} ${i}`).digest(),
  );
  return Buffer.concat(parts).subarray(0, length);
}

export interface Meta {
  mode?: number;
  uid?: number;
  gid?: number;
  mtimeSec?: number;
  mtimeNsec?: number;
  xattrs?: Xattr[];
}

const plain = { mode: 0o644, uid: 0, gid: 0, mtimeSec: 1_700_000_000, mtimeNsec: 0, xattrs: [] };

/** A content: bytes, or pieces of bytes and holes (numbers). */
export type ContentPieces = Buffer | string | ReadonlyArray<Buffer | string | number>;

/** A file whose content is written when the layer is. */
export interface FileSpec {
  readonly file: FileInode;
  readonly pieces: ContentPieces;
}

const pending = new WeakMap<FileInode, ContentPieces>();

export function file(pieces: ContentPieces, meta: Meta = {}): FileInode {
  const inode: FileInode = { type: InodeType.file, ...plain, ...meta, content: undefined };
  pending.set(inode, pieces);
  return inode;
}

export function symlink(target: string | Buffer, meta: Meta = {}): LayerInode {
  return { type: InodeType.symlink, ...plain, mode: 0o777, ...meta, target: Buffer.from(target) };
}

export function device(
  type: typeof InodeType.char | typeof InodeType.block | typeof InodeType.fifo,
  rdev: number,
  meta: Meta = {},
): LayerInode {
  return { type, ...plain, ...meta, rdev };
}

export const whiteout: LayerEntry = { type: "whiteout" };

export function link(target: string): LayerEntry {
  return { type: "link", target: Buffer.from(target) };
}

export type Entries = Readonly<Record<string, LayerEntry>> | ReadonlyArray<readonly [Name, LayerEntry]>;

export function directory(
  entries: Entries,
  meta: Meta & { opaque?: boolean; explicit?: boolean } = {},
): DirectoryInode {
  const { opaque = false, explicit = true, ...rest } = meta;
  const pairs = Array.isArray(entries)
    ? (entries as ReadonlyArray<readonly [Name, LayerEntry]>)
    : Object.entries(entries as Readonly<Record<string, LayerEntry>>).map(
        ([name, entry]) => [nameFromText(name), entry] as const,
      );
  return {
    type: InodeType.directory,
    ...plain,
    mode: 0o755,
    ...rest,
    entries: new Map(pairs),
    opaque,
    explicit,
  };
}

/** A directory no entry of the layer describes. */
export function implied(entries: Entries): DirectoryInode {
  return directory(entries, { explicit: false });
}

export interface WrittenLayer {
  readonly path: string;
  readonly summary: LayerSummary;
}

export function writeContents(writer: LayerWriter, root: DirectoryInode): void {
  for (const entry of root.entries.values()) {
    if (entry.type === InodeType.directory) writeContents(writer, entry);
    else if (entry.type === InodeType.file) {
      const pieces = pending.get(entry);
      if (pieces === undefined) continue;
      writer.beginContent();
      for (const piece of typeof pieces === "string" || Buffer.isBuffer(pieces) ? [pieces] : pieces) {
        if (typeof piece === "number") writer.appendHole(piece);
        else writer.append(typeof piece === "string" ? Buffer.from(piece) : piece);
      }
      entry.content = writer.endContent();
      pending.delete(entry);
    }
  }
}

export function writeLayer(
  root: DirectoryInode,
  path = temporary(),
  source?: Digest,
  codec?: Codec,
): WrittenLayer {
  const writer = LayerWriter.create(path, codec);
  writeContents(writer, root);
  return { path, summary: writer.finish(root, source ?? sha256(Buffer.from(path))) };
}

const region = allocatePages(1 << 20);

/** All bytes of a file; of one beyond 4 MiB, which a damaged size may claim, only the first. */
export function readAll(image: Image, row: number): Buffer {
  const parts: Buffer[] = [];
  const size = Math.min(image.size(row), 1 << 22);
  for (let at = 0; at < size; ) {
    region.bytes.fill(0xee);
    const got = image.read(
      row,
      at,
      { address: region.address, bytes: region.bytes, start: 0 },
      region.length,
    );
    if (got <= 0) throw new Error(`read gave ${got}`);
    parts.push(Buffer.from(region.bytes.subarray(0, got)));
    at += got;
  }
  return Buffer.concat(parts);
}

export function find(image: Image, path: string): number {
  let row = 0;
  for (const part of path.split("/").filter((p) => p !== "")) {
    const bytes = Buffer.from(part);
    row = image.lookup(row, bytes, 0, bytes.length);
    if (row < 0) return -1;
  }
  return row;
}

export interface Listed {
  path: string;
  type: number;
  row: number;
  mode?: string;
  owner?: string;
  nlink?: number;
  mtime?: string;
  size?: number;
  rdev?: number;
  target?: string;
  xattrs?: Record<string, string>;
  data?: string;
}

/** Everything an image says, sorted by path; text is latin1. */
export function list(image: Image): Listed[] {
  const out: Listed[] = [];
  const entry: DirectoryEntry = { row: 0, type: 0, bytes: Buffer.alloc(0), start: 0, end: 0 };
  const describe = (path: string, type: number, row: number): void => {
    if (row < 0) {
      out.push({ path, type, row });
      return;
    }
    const item: Listed = {
      path,
      type,
      row,
      mode: image.mode(row).toString(8),
      owner: `${image.uid(row)}:${image.gid(row)}`,
      nlink: image.nlink(row),
      mtime: `${image.mtimeSec(row)}.${image.mtimeNsec(row)}`,
      size: image.size(row),
    };
    const xattrs = image.xattrs(row);
    if (xattrs !== undefined) {
      item.xattrs = Object.fromEntries(xattrs.map(({ name, value }) => [name, value.toString("latin1")]));
    }
    if (type === 8) item.data = readAll(image, row).toString("latin1");
    if (type === 10) item.target = Buffer.from(image.symlinkTarget(row)).toString("latin1");
    if (type === 2 || type === 6) item.rdev = image.rdev(row);
    out.push(item);
  };
  const walk = (directory: number, path: string): void => {
    const count = image.entryCount(directory);
    for (let i = 0; i < count; i++) {
      image.entry(directory, i, entry);
      const { row, type } = entry;
      const child = `${path}${nameOf(entry.bytes, entry.start, entry.end)}`;
      describe(child, type, row);
      if (type === 4) {
        if (image.parent(row) !== directory) throw new Error("parent");
        walk(row, `${child}/`);
      }
    }
  };
  describe("", 4, 0);
  walk(0, "");
  return out.sort((a, b) => (a.path < b.path ? -1 : a.path > b.path ? 1 : 0));
}

export function xattr(name: string, value: Buffer | string): Xattr {
  return { name: nameFromText(name), value: Buffer.from(value) };
}

export { bytesOf, Image, nameOf };
