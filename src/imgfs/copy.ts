// Bytes from one file to another, inside the kernel where it can.
import { readSync, writeSync } from "node:fs";
import { Errno } from "../base/errno.js";
import { copyRange } from "../sys/files.js";

const CHUNK = 1 << 20;

/** Copies `length` bytes between files, or places in files. Throws an Error when the source ends before. */
export function copyBytes(
  from: number,
  fromOffset: number,
  to: number,
  toOffset: number,
  length: number,
): void {
  let done = 0;
  while (done < length) {
    const got = copyRange(from, fromOffset + done, to, toOffset + done, Math.min(length - done, 1 << 30));
    if (got === -Errno.EINTR) continue;
    if (got <= 0) break;
    done += got;
  }
  if (done === length) return;
  const buffer = Buffer.allocUnsafe(Math.min(CHUNK, length - done));
  while (done < length) {
    const got = readSync(from, buffer, 0, Math.min(buffer.length, length - done), fromOffset + done);
    if (got === 0) throw new Error(`the file to copy ends ${length - done} bytes early`);
    for (let at = 0; at < got; ) at += writeSync(to, buffer, at, got - at, toOffset + done + at);
    done += got;
  }
}
