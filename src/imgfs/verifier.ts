// Contents against their digests before anything of them is given out, each once. For data without a codec: frames of
// compressed data are checked whenever they are decoded, and the root digest vouches for those digests.
// Invariant: what was found damaged stays so, with one and the same Corrupt.
import { type HashedRun, hashContent } from "./content-hash.js";
import { type Blob, type ContentRange, type ContentReader, readRaw } from "./content-reader.js";
import { Corrupt } from "./errors.js";
import { type Elsewhere, RUN, type TaskResult, type VerifyTask } from "./work.js";

/** Up to here hashing takes no longer than handing the work over. */
const AT_ONCE = 128 << 10;
/** Contents from here on keep a thread busy for many reads' time. */
const LONG = 4 << 20;

type StoredRun = HashedRun & { readonly blob: Blob | undefined };

export class Verifier {
  private readonly reader: ContentReader;
  /** By content, 1 once it was found sound. */
  private readonly sound: Uint8Array;
  private readonly damaged = new Map<number, Corrupt>();
  private readonly underWay = new Set<number>();
  /** Could not be checked elsewhere: the next reader does it, and meets what is wrong. */
  private readonly failed = new Set<number>();

  constructor(reader: ContentReader) {
    this.reader = reader;
    this.sound = new Uint8Array(reader.count);
  }

  /** Makes sure of a content now. Throws Corrupt, or a system error. */
  check(content: number, size: number): void {
    if (this.sound[content] === 1) return;
    const known = this.damaged.get(content);
    if (known !== undefined) throw known;
    const runs = this.runsOf(content, size);
    this.failed.delete(content);
    if (runs.some(isPlain)) {
      let found: Uint8Array;
      try {
        found = hashContent(size, runs, ({ blob }, offset, into) => readRaw(blob as Blob, offset, into));
      } catch (cause) {
        if (cause instanceof Corrupt) this.damaged.set(content, cause);
        throw cause;
      }
      if (Buffer.compare(found, this.reader.digest(content)) !== 0) {
        throw this.remember(content, runs, `${size} bytes differ from their digest`);
      }
    }
    this.sound[content] = 1;
  }

  /** Has a larger content checked elsewhere. The key of that work when it is under way, otherwise 0. */
  prepare(content: number, size: number, elsewhere: Elsewhere): number {
    if (this.sound[content] === 1 || size <= AT_ONCE) return 0;
    if (this.damaged.has(content) || this.failed.has(content)) return 0;
    const key = -3 - 2 * content;
    if (this.underWay.has(content)) return key;
    const runs = this.runsOf(content, size);
    if (!runs.some(isPlain)) return 0;
    const digest = Buffer.from(this.reader.digest(content)).toString("latin1");
    const numbers = numbersOf(runs);
    if (numbers === undefined) return 0;
    const task: VerifyTask = { kind: "verify", size, runs: numbers, digest };
    const done = (result: TaskResult): void => {
      this.underWay.delete(content);
      if (result.status === 0) this.sound[content] = 1;
      else if (result.problem !== undefined) this.remember(content, runs, result.problem);
      else this.failed.add(content);
    };
    if (!elsewhere.begin({ key, task, long: size >= LONG, done })) return 0;
    this.underWay.add(content);
    return key;
  }

  private remember(content: number, runs: readonly StoredRun[], problem: string): Corrupt {
    const first = runs.find(({ blob }) => blob !== undefined);
    const from =
      first === undefined
        ? ""
        : `, from byte ${(first.blob as Blob).dataOffset + (first.rawOffset as number)}`;
    const file = first?.blob?.source.name ?? "";
    const damage = new Corrupt(file, "data", `content ${content}${from}`, problem);
    this.damaged.set(content, damage);
    return damage;
  }

  private runsOf(content: number, size: number): StoredRun[] {
    const range: ContentRange = { blob: 0, rawOffset: undefined, fileOffset: 0, length: 0 };
    const count = Math.max(1, this.reader.runCount(content));
    return Array.from({ length: count }, (_, run) => {
      this.reader.range(content, run, size, range);
      const { rawOffset, fileOffset, length } = range;
      const blob = rawOffset === undefined ? undefined : this.reader.stored(content, range).blob;
      return { blob, rawOffset, fileOffset, length };
    });
  }
}

/** Stored without a codec: only then is there something that nobody else verifies. */
function isPlain({ blob }: StoredRun): boolean {
  return blob !== undefined && blob.frames === undefined;
}

/** The runs for another thread; undefined when not all of them lie in files as they are. */
function numbersOf(runs: readonly StoredRun[]): Float64Array | undefined {
  const numbers = new Float64Array(runs.length * RUN);
  for (const [i, { blob, rawOffset, fileOffset, length }] of runs.entries()) {
    if (blob !== undefined && (blob.frames !== undefined || blob.source.fd < 0)) return undefined;
    const place = blob === undefined ? [-1, 0] : [blob.source.fd, blob.dataOffset + (rawOffset as number)];
    numbers.set([...place, fileOffset, length], i * RUN);
  }
  return numbers;
}
