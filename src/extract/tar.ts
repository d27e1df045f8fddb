// The tree of an image as a tar: PAX where ustar cannot say it, so that GNU tar unpacks the same tree and
// `imgfs build tar:` makes the same one of it.
// Order: a directory before what is in it, entries by their bytes; the first name of a file has its data, the others are
// hard links to it. The same tree gives the same bytes.

import { displayName } from "../base/bytes.js";
import { Errno } from "../base/errno.js";
import { looksLikeMarker } from "../builder/path.js";
import { memberTypeOf, type TarMember } from "../builder/tar/member.js";
import { dataPadding, encodeMember, endOfArchive } from "../builder/tar/writer.js";
import type { Image } from "../imgfs/image.js";
import { PATH_MAX } from "../imgfs/layout.js";
import { type Child, childrenOf } from "../imgfs/look.js";
import { SEEK_DATA, SEEK_HOLE } from "../sys/files.js";
import { allocatePages } from "../sys/memory.js";
import { deviceMajor, deviceMinor } from "../sys/stat.js";
import { at, check } from "./failure.js";
import { isDirectory, type Start } from "./walk.js";

const bufferSize = 1 << 20;
const rootPath = Buffer.from("./");
const slash = Buffer.from("/");
const noBytes = Buffer.alloc(0);

/**
 * Hands the tar of `start` to `write` piece by piece; a piece is used again after the call. A directory is `./` and what
 * it holds, anything else is the one member under its name. Throws what `write` throws, and an Error that names the path.
 */
export function writeTar(image: Image, start: Start, write: (bytes: Uint8Array) => void): void {
  const tar = new TarExport(image, write);
  if (isDirectory(image, start.row)) tar.tree(start.row);
  else tar.member(start.name, start.row);
  write(endOfArchive);
}

interface Level {
  readonly path: Buffer;
  readonly children: readonly Child[];
  next: number;
}

class TarExport {
  private readonly image: Image;
  private readonly write: (bytes: Uint8Array) => void;
  private readonly firstNames = new Map<number, Buffer>();
  private readonly buffer = allocatePages(bufferSize);

  constructor(image: Image, write: (bytes: Uint8Array) => void) {
    this.image = image;
    this.write = write;
  }

  tree(top: number): void {
    const { image } = this;
    this.member(rootPath, top);
    const levels: Level[] = [{ path: noBytes, children: childrenOf(image, top), next: 0 }];
    for (let level = levels.at(-1); level !== undefined; level = levels.at(-1)) {
      const child = level.children[level.next++];
      if (child === undefined) {
        levels.pop();
        continue;
      }
      const path = Buffer.concat([level.path, child.name]);
      // What is longer no tool can name, and a deep tree of a hostile image would make a tar of any size.
      if (path.length > PATH_MAX) throw new Error(`${displayName(path)}: a path of ${path.length} bytes`);
      if (!isDirectory(image, child.row)) {
        this.member(path, child.row);
        continue;
      }
      const inside = Buffer.concat([path, slash]);
      this.member(inside, child.row);
      levels.push({ path: inside, children: childrenOf(image, child.row), next: 0 });
    }
  }

  member(path: Buffer, row: number): void {
    const { write } = this;
    let pieces: number[] | undefined;
    let member: TarMember;
    try {
      member = this.describe(path, row);
      if (member.type === "file" && member.size > 0) pieces = this.piecesOf(row, member.size);
    } catch (cause) {
      throw at(displayName(path), cause);
    }
    write(encodeMember(member, pieces));
    if (member.type !== "file") return;
    const stored = pieces ?? [0, member.size];
    let total = 0;
    for (let i = 0; i < stored.length; i += 2) {
      const offset = stored[i] as number;
      const length = stored[i + 1] as number;
      for (let done = 0; done < length; ) done += this.data(path, row, offset + done, length - done);
      total += length;
    }
    write(dataPadding(total));
  }

  private data(path: Buffer, row: number, offset: number, length: number): number {
    const { address, bytes } = this.buffer;
    let got: number;
    try {
      got = check(this.image.read(row, offset, { address, bytes, start: 0 }, Math.min(length, bufferSize)));
    } catch (cause) {
      throw at(displayName(path), cause);
    }
    this.write(bytes.subarray(0, got));
    return got;
  }

  private describe(path: Buffer, row: number): TarMember {
    const { image } = this;
    const mode = image.mode(row);
    const type = memberTypeOf(mode);
    const device = image.rdev(row);
    const first = this.firstNames.get(row);
    const target = first ?? (type === "symlink" ? Buffer.from(image.symlinkTarget(row)) : noBytes);
    if (first === undefined && type !== "directory" && image.nlink(row) > 1) this.firstNames.set(row, path);
    return {
      type: first === undefined ? type : "link",
      path,
      target,
      mode: mode & 0o7777,
      uid: image.uid(row),
      gid: image.gid(row),
      size: first === undefined && type === "file" ? image.size(row) : 0,
      mtimeSec: image.mtimeSec(row),
      mtimeNsec: image.mtimeNsec(row),
      devMajor: deviceMajor(device),
      devMinor: deviceMinor(device),
      xattrs: image.xattrs(row) ?? [],
      literal: looksLikeMarker(path),
    };
  }

  /** Offset and length of what a sparse file stores, or undefined for a file without holes. */
  private piecesOf(row: number, size: number): number[] | undefined {
    const { image } = this;
    if (check(image.seek(row, 0, SEEK_HOLE)) === size) return undefined;
    const pieces: number[] = [];
    let end = 0;
    while (end < size) {
      const data = image.seek(row, end, SEEK_DATA);
      if (data === -Errno.ENXIO) break;
      end = check(image.seek(row, check(data), SEEK_HOLE));
      pieces.push(data, end - data);
    }
    if (end < size) pieces.push(size, 0);
    return pieces;
  }
}
