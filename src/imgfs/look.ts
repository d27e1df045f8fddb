// Looking into an image without a mount: directories, the whole tree, and what files hold, as plain values.

import { check } from "../sys/libc.js";
import { allocatePages, type Region } from "../sys/memory.js";
import { S_IFDIR, S_IFMT } from "../sys/stat.js";
import type { DirectoryEntry, Image } from "./image.js";

/** An entry of a directory: `row` is the inode, by which Image tells the rest. */
export interface Child {
  /** Bytes; `displayName` makes them fit for people. */
  readonly name: Buffer;
  readonly row: number;
}

/** The entries of a directory in byte order of their names. Not for a layer, whose whiteouts are no inodes. */
export function childrenOf(image: Image, directory: number): Child[] {
  const entry: DirectoryEntry = { row: 0, type: 0, bytes: new Uint8Array(0), start: 0, end: 0 };
  const children: Child[] = [];
  const count = image.entryCount(directory);
  for (let i = 0; i < count; i++) {
    image.entry(directory, i, entry);
    children.push({ name: Buffer.from(entry.bytes.subarray(entry.start, entry.end)), row: entry.row });
  }
  return children.sort((a, b) => Buffer.compare(a.name, b.name));
}

/** One name of a tree. An inode with several names is visited at each. */
export interface Visited {
  /** Bytes, absolute: `/` for the root. */
  readonly path: Buffer;
  readonly row: number;
}

const slash = Buffer.from("/");

/**
 * Every name of an image below `start` (a row; the root unless given), that one first: a directory before what is in it,
 * names in byte order. Throws Corrupt.
 */
export function* walkTree(image: Image, start = 0, path: Buffer = slash): Generator<Visited, void> {
  const pending: Visited[] = [{ path, row: start }];
  for (let next = pending.pop(); next !== undefined; next = pending.pop()) {
    yield next;
    const { row } = next;
    if ((image.mode(row) & S_IFMT) !== S_IFDIR) continue;
    const folder = next.path.equals(slash) ? next.path : Buffer.concat([next.path, slash]);
    const children = childrenOf(image, row).map((child) => ({
      path: Buffer.concat([folder, child.name]),
      row: child.row,
    }));
    for (const child of children.reverse()) pending.push(child);
  }
}

const CHUNK = 1 << 20;
let chunk: Region | undefined;

/**
 * What a file holds from `offset` on, up to 1 MiB at a time; holes are zeros. A chunk is good until the next one is
 * asked for, of this or another file. Throws Corrupt, or FsError: EISDIR or EINVAL for what is no file, or as pread(2).
 */
export function* readChunks(image: Image, row: number, offset = 0): Generator<Uint8Array, void> {
  chunk ??= allocatePages(CHUNK);
  const target = { address: chunk.address, bytes: chunk.bytes, start: 0 };
  for (let at = offset; ; ) {
    const got = check(image.read(row, at, target, CHUNK), "read");
    if (got === 0) return;
    at += got;
    yield chunk.bytes.subarray(0, got);
  }
}

/** All that a file holds. Throws as {@link readChunks}. */
export function readContent(image: Image, row: number): Buffer {
  return Buffer.concat([...copies(readChunks(image, row))]);
}

function* copies(chunks: Iterable<Uint8Array>): Generator<Buffer> {
  for (const bytes of chunks) yield Buffer.from(bytes);
}
