// A whole directory at once, as the addon wants it: names, and for each a stat that holds its type and st_ino.
// A name that is not UTF-8 cannot be given to it, and one that holds U+FFFD could not be told from such a one when it
// comes back: neither is listed.
import type { DirectorySink, Entry } from "../operations.js";
import { emptyEntry } from "../operations.js";
import { putListed, type ShortInodes, STAT_WORDS } from "./attributes.js";
import { isFaithful } from "./paths.js";

const FIRST_CAPACITY = 64;

export class Listing implements DirectorySink {
  readonly plus = false;
  readonly entry: Entry = emptyEntry();
  readonly names: string[] = [];
  private words = new Uint32Array(FIRST_CAPACITY * STAT_WORDS);
  private readonly inodes: ShortInodes;

  constructor(inodes: ShortInodes) {
    this.inodes = inodes;
  }

  add(bytes: Uint8Array, start: number, end: number, type: number, ino: number, _next: number): boolean {
    const name = Buffer.from(bytes.buffer, bytes.byteOffset + start, end - start).toString();
    if (!isFaithful(name)) return true;
    const at = this.names.length * STAT_WORDS;
    if (at === this.words.length) {
      const larger = new Uint32Array(this.words.length * 2);
      larger.set(this.words);
      this.words = larger;
    }
    putListed(this.words.subarray(at, at + STAT_WORDS), type, ino, this.inodes);
    this.names.push(name);
    return true;
  }

  /** One array of words for each name. */
  stats(): Uint32Array[] {
    return this.names.map((_, i) => this.words.subarray(i * STAT_WORDS, (i + 1) * STAT_WORDS));
  }
}
