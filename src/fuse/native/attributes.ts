// Attributes in the form that the addon takes: arrays of 32-bit words, in the order of populate_stat and
// populate_statvfs in its fuse-native.c. Times are whole milliseconds from 1970 on, st_ino has 32 bits.
import type { Attr, StatfsReply } from "../operations.js";

/** Words of one stat. */
export const STAT_WORDS = 18;
const STATFS_WORDS = 11;
const HIGH = 0x1_0000_0000;
const S_IFMT = 0o170000;
const S_IFDIR = 0o040000;

export function isDirectoryMode(mode: number): boolean {
  return (mode & S_IFMT) === S_IFDIR;
}

function putWide(words: Uint32Array, at: number, value: number): void {
  words[at] = value >>> 0;
  words[at + 1] = Math.floor(value / HIGH);
}

/** Milliseconds; the addon counts in unsigned ones, so a time before 1970 is shown as its beginning. */
function milliseconds(seconds: number, nanoseconds: number): number {
  return Math.max(0, seconds * 1000 + Math.floor(nanoseconds / 1e6));
}

/**
 * st_ino in 32 bits. Small numbers stay as they are; each of the others gets one of the upper half, the same for as
 * long as the mount lives, so that no two objects share one: programs take those for hard links.
 */
export class ShortInodes {
  private readonly numbers = new Map<number, number>();

  of(ino: number): number {
    if (ino < HIGH / 2) return ino;
    let number = this.numbers.get(ino);
    if (number === undefined) {
      number = HIGH / 2 + (this.numbers.size % (HIGH / 2));
      this.numbers.set(ino, number);
    }
    return number;
  }
}

export function putStat(words: Uint32Array, attr: Attr, nlink: number, inodes: ShortInodes): void {
  words[0] = attr.mode;
  words[1] = attr.uid;
  words[2] = attr.gid;
  putWide(words, 3, attr.size);
  words[5] = 0;
  words[6] = nlink;
  words[7] = inodes.of(attr.ino);
  words[8] = attr.rdev;
  words[9] = attr.blksize;
  putWide(words, 10, attr.blocks);
  putWide(words, 12, milliseconds(attr.atimeSec, attr.atimeNsec));
  putWide(words, 14, milliseconds(attr.mtimeSec, attr.mtimeNsec));
  putWide(words, 16, milliseconds(attr.ctimeSec, attr.ctimeNsec));
}

/** What a directory listing says of an entry: its type (DT_*) and st_ino. */
export function putListed(words: Uint32Array, type: number, ino: number, inodes: ShortInodes): void {
  words[0] = type << 12;
  words[7] = inodes.of(ino);
}

export function newStatfs(): Uint32Array {
  return new Uint32Array(STATFS_WORDS);
}

/** Block counts that do not fit in 32 bits are given in larger blocks. */
export function putStatfs(words: Uint32Array, counts: StatfsReply): void {
  let scale = 1;
  while (counts.blocks / scale >= HIGH) scale *= 2;
  const scaled = (blocks: number): number => Math.floor(blocks / scale);
  words[0] = counts.bsize * scale;
  words[1] = counts.frsize * scale;
  words[2] = scaled(counts.blocks);
  words[3] = scaled(counts.bfree);
  words[4] = scaled(counts.bavail);
  words[5] = Math.min(counts.files, HIGH - 1);
  words[6] = Math.min(counts.ffree, HIGH - 1);
  words[7] = words[6];
  words[8] = 0;
  words[9] = 0;
  words[10] = counts.namelen;
}
