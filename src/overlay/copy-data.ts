// The bytes of a lower file into a new backing file, holes left out. Stored ranges go from blob to file inside the
// kernel (copy_file_range, which shares extents where the filesystem can); what is not stored as it reads is read
// through the image.
import { Errno } from "../base/errno.js";
import { copyRange, pread, pwrite, SEEK_DATA, SEEK_HOLE, truncateFd } from "../sys/files.js";
import type { Region } from "../sys/memory.js";
import type { LowerTree } from "./lower.js";

/** Stored ranges of a file: for each descriptor of a blob, flat triples [blobOffset, fileOffset, length]. */
export type StoredRanges = Map<number, number[]>;

/** The stored ranges of a file up to `limit`, or undefined when it is not stored as it reads. */
export function storedRanges(tree: LowerTree, row: number, limit: number): StoredRanges | undefined {
  const ranges: StoredRanges = new Map();
  const plain = tree.dataRanges(row, (fd, blobOffset, fileOffset, length) => {
    const wanted = Math.min(length, limit - fileOffset);
    if (wanted <= 0) return;
    const list = ranges.get(fd) ?? [];
    list.push(blobOffset, fileOffset, wanted);
    ranges.set(fd, list);
  });
  return plain ? ranges : undefined;
}

/** Copies a file's first `size` bytes to `to`, which is empty, and sets its size. 0 or a negative errno. */
export function copyData(tree: LowerTree, row: number, to: number, size: number, buffer: Region): number {
  if (size === 0) return 0;
  const ranges = storedRanges(tree, row, size);
  const copied =
    ranges === undefined ? copyRead(tree, row, to, size, buffer) : copyStored(ranges, to, buffer);
  if (copied < 0 || (ranges !== undefined && endOf(ranges) === size)) return copied;
  return truncateFd(to, size);
}

/** Where the last stored byte ends: short of the size when the file ends in a hole. */
function endOf(ranges: StoredRanges): number {
  let end = 0;
  for (const list of ranges.values()) {
    for (let i = 0; i < list.length; i += 3) end = Math.max(end, list[i + 1]! + list[i + 2]!);
  }
  return end;
}

function copyStored(ranges: StoredRanges, to: number, buffer: Region): number {
  for (const [from, list] of ranges) {
    for (let i = 0; i < list.length; i += 3) {
      const result = copyOne(from, list[i]!, to, list[i + 1]!, list[i + 2]!, buffer);
      if (result < 0) return result;
    }
  }
  return 0;
}

function copyOne(
  from: number,
  fromOffset: number,
  to: number,
  toOffset: number,
  length: number,
  buffer: Region,
): number {
  for (let done = 0; done < length; ) {
    let got = copyRange(from, fromOffset + done, to, toOffset + done, length - done);
    if (got === -Errno.EXDEV || got === -Errno.EOPNOTSUPP || got === -Errno.EINVAL || got === -Errno.ENOSYS) {
      got = pread(from, buffer.address, Math.min(buffer.length, length - done), fromOffset + done);
      if (got > 0) got = writeAll(to, buffer.address, got, toOffset + done);
    }
    if (got === -Errno.EINTR) continue;
    if (got < 0) return got;
    if (got === 0) return -Errno.EIO;
    done += got;
  }
  return 0;
}

function copyRead(tree: LowerTree, row: number, to: number, size: number, buffer: Region): number {
  for (let at = 0; at < size; ) {
    const data = tree.seek(row, at, SEEK_DATA);
    if (data === -Errno.ENXIO) return 0;
    if (data < 0) return data;
    const hole = tree.seek(row, data, SEEK_HOLE);
    if (hole < 0) return hole;
    const end = Math.min(hole, size);
    at = data;
    while (at < end) {
      const target = { address: buffer.address, bytes: buffer.bytes, start: 0 };
      const got = tree.read(row, at, target, Math.min(buffer.length, end - at));
      if (got < 0) return got;
      if (got === 0) return -Errno.EIO;
      const written = writeAll(to, buffer.address, got, at);
      if (written < 0) return written;
      at += got;
    }
    at = Math.max(at, end);
  }
  return 0;
}

/** Writes all of `length` bytes. The count, or a negative errno. */
export function writeAll(fd: number, address: number, length: number, offset: number): number {
  for (let done = 0; done < length; ) {
    const got = pwrite(fd, address + done, length - done, offset + done);
    if (got === -Errno.EINTR) continue;
    if (got < 0) return got;
    done += got;
  }
  return length;
}
