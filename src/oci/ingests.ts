// Downloads by name, as containerd's content store has them: an ingest is named by a ref, says how far it is, goes on where
// it stopped, also in a later process, and can be aborted on demand.
// On disk: FOLDER/<sha256 of the ref>/{ingest.json,data}, and FOLDER/lock, which is held for each step that gives or takes
// a name, and never while bytes come.
// Invariants: a folder with a name is complete; an ingest has one writer, by flock on `data`, which its death frees.
import { randomBytes } from "node:crypto";
import {
  closeSync,
  existsSync,
  fsyncSync,
  mkdirSync,
  openSync,
  readdirSync,
  readFileSync,
  renameSync,
  rmSync,
  statSync,
  writeFileSync,
} from "node:fs";
import { join } from "node:path";
import * as v from "valibot";
import { digestHex, type SourceDigest, sha256 } from "../base/digest.js";
import { syncFolder } from "../base/durable.js";
import { errnoText } from "../base/errno.js";
import { dataName, Ingest, IngestError, type IngestPlace, type IngestWish } from "./ingest.js";

/** flock(2), which Node does not have. A lock belongs to the open file and ends when it is closed. */
export interface FileLocks {
  /** Waits for the exclusive lock. */
  readonly wait: (fd: number) => void;
  /** Takes it if nobody has it. */
  readonly take: (fd: number) => boolean;
}

export interface IngestStatus {
  readonly ref: string;
  /** Bytes that have arrived. */
  readonly offset: number;
  /** Bytes that are to come in all; undefined where nobody has said. */
  readonly total: number | undefined;
  readonly expected: SourceDigest | undefined;
  readonly startedAt: Date;
  readonly updatedAt: Date;
  /** Whether a writer is at it now. */
  readonly isActive: boolean;
}

const Note = v.object({
  version: v.literal(1),
  ref: v.string(),
  total: v.optional(v.pipe(v.number(), v.safeInteger(), v.minValue(0))),
  expected: v.optional(v.pipe(v.string(), v.regex(/^(?:sha256:[0-9a-f]{64}|sha512:[0-9a-f]{128})$/))),
  startedAt: v.pipe(v.string(), v.isoTimestamp()),
});

/** ingest.json. */
type Note = Omit<v.InferOutput<typeof Note>, "expected"> & { readonly expected?: SourceDigest | undefined };

const noteName = "ingest.json";
const lockName = "lock";
const fresh = ".new-";
/** Bytes of a ref. */
const maxRef = 4096;

/** The ingests of one folder. */
export class Ingests {
  readonly folder: string;
  private readonly locks: FileLocks;

  /** Makes the folder, for its owner alone, if it is not there. */
  constructor(folder: string, locks: FileLocks) {
    this.folder = folder;
    this.locks = locks;
    mkdirSync(folder, { recursive: true, mode: 0o700 });
  }

  /**
   * The writer of an ingest, which is made if there is none of that ref. One that is there goes on, or begins anew where
   * its total or digest is another than now. Throws an IngestError: `unavailable` while another writer has it.
   */
  async open(ref: string, wish: IngestWish = {}): Promise<Ingest> {
    const place = this.locked(() => this.begin(ref, wish));
    try {
      return await Ingest.resume(place);
    } catch (cause) {
      closeSync(place.fd);
      throw cause;
    }
  }

  /** What is known of one ref; undefined where there is no ingest. */
  status(ref: string): IngestStatus | undefined {
    return this.locked(() => this.look(this.pathOf(ref)));
  }

  /** Every ingest, in the order of their refs. */
  list(): IngestStatus[] {
    return this.locked(() =>
      readdirSync(this.folder)
        .filter((name) => /^[0-9a-f]{64}$/.test(name))
        .map((name) => this.look(join(this.folder, name)))
        .filter((one) => one !== undefined)
        .sort((a, b) => (a.ref < b.ref ? -1 : 1)),
    );
  }

  /** Removes an ingest and what has arrived of it, also under a writer, whose commit then fails. */
  abort(ref: string): void {
    this.locked(() => {
      const path = this.pathOf(ref);
      if (!existsSync(path)) throw new IngestError("absent", ref, "there is none");
      rmSync(path, { recursive: true, force: true });
    });
  }

  /**
   * Runs a step that gives or takes names, while nobody else does. What a dead process has left of one is removed. The
   * step does not wait for anything: a thread that waits here lets nothing else of its process run.
   */
  private locked<T>(step: () => T): T {
    const lock = openSync(join(this.folder, lockName), "a", 0o600);
    try {
      this.locks.wait(lock);
      for (const name of readdirSync(this.folder)) {
        if (name.startsWith(fresh)) rmSync(join(this.folder, name), { recursive: true, force: true });
      }
      return step();
    } finally {
      closeSync(lock);
    }
  }

  private begin(ref: string, { total, expected }: IngestWish): IngestPlace {
    if (ref === "" || Buffer.byteLength(ref) > maxRef) {
      throw new IngestError("failed", ref.slice(0, 80), `a ref has 1 to ${maxRef} bytes`);
    }
    const path = this.pathOf(ref);
    const known = readNote(path, ref);
    if (known === undefined || differs(known, { total, expected })) {
      if (known !== undefined && this.isActive(path)) throw taken(ref);
      rmSync(path, { recursive: true, force: true });
      this.make(path, { version: 1, ref, total, expected, startedAt: new Date().toISOString() });
    }
    const fd = openSync(join(path, dataName), "r+");
    if (!this.locks.take(fd)) {
      closeSync(fd);
      throw taken(ref);
    }
    const note = { total: total ?? known?.total, expected: expected ?? known?.expected };
    if (known !== undefined && (known.total !== note.total || known.expected !== note.expected)) {
      writeNote(path, { ...known, ...note });
    }
    return { ref, path, fd, ...note, locked: (step) => this.locked(step) };
  }

  private pathOf(ref: string): string {
    return join(this.folder, digestHex(sha256(Buffer.from(ref))));
  }

  private make(path: string, note: Note): void {
    const made = join(this.folder, `${fresh}${randomBytes(6).toString("hex")}`);
    mkdirSync(made, { mode: 0o700 });
    writeFileSync(join(made, dataName), "", { mode: 0o600 });
    writeNote(made, note);
    renameSync(made, path);
    syncFolder(this.folder);
  }

  private isActive(path: string): boolean {
    const fd = openSync(join(path, dataName), "r");
    try {
      return !this.locks.take(fd);
    } finally {
      closeSync(fd);
    }
  }

  private look(path: string): IngestStatus | undefined {
    const note = readNote(path);
    if (note === undefined) return undefined;
    const { size, mtime } = statSync(join(path, dataName));
    return {
      ref: note.ref,
      offset: size,
      total: note.total,
      expected: note.expected,
      startedAt: new Date(note.startedAt),
      updatedAt: mtime,
      isActive: this.isActive(path),
    };
  }
}

function taken(ref: string): IngestError {
  return new IngestError("unavailable", ref, "another writer is at it");
}

/** Whether what is wished for now cannot be what was begun. */
function differs(known: Note, { total, expected }: IngestWish): boolean {
  return (
    (total !== undefined && known.total !== undefined && total !== known.total) ||
    (expected !== undefined && known.expected !== undefined && expected !== known.expected)
  );
}

/** What is noted of an ingest; undefined where there is none, or one that a crash of the machine has damaged. */
function readNote(path: string, ref?: string): Note | undefined {
  let value: unknown;
  try {
    value = JSON.parse(readFileSync(join(path, noteName), "utf8"));
  } catch (cause) {
    const { code } = cause as NodeJS.ErrnoException;
    if (cause instanceof SyntaxError || code === "ENOENT" || code === "ENOTDIR") return undefined;
    throw new IngestError("failed", ref ?? path, errnoText(code ?? "EIO"));
  }
  const parsed = v.safeParse(Note, value);
  if (!parsed.success || (ref !== undefined && parsed.output.ref !== ref)) return undefined;
  return existsSync(join(path, dataName)) ? (parsed.output as Note) : undefined;
}

function writeNote(path: string, note: Note): void {
  const made = join(path, `${fresh}${noteName}`);
  const fd = openSync(made, "w", 0o600);
  try {
    writeFileSync(fd, JSON.stringify(note));
    fsyncSync(fd);
  } finally {
    closeSync(fd);
  }
  renameSync(made, join(path, noteName));
  syncFolder(path);
}
