// Downloads by name, as containerd's content store has them: an ingest is named by a ref, says how far it is, goes on where
// it stopped, also in a later process, and can be aborted on demand.
// On disk: FOLDER/<sha256 of the ref>/{ingest.json,data}, and FOLDER/lock, which is held for each step that gives or takes
// a name, and never while bytes come.
// Invariants: a folder with a name is complete; an ingest has one writer, by flock on `data`, which its death frees; a symlink
// is never followed. Nothing is synced: what a crash of the machine damages has another digest, and begins anew.
import { randomBytes } from "node:crypto";
import {
  closeSync,
  constants,
  lstatSync,
  mkdirSync,
  openSync,
  readdirSync,
  renameSync,
  rmSync,
  writeFileSync,
} from "node:fs";
import { join } from "node:path";
import * as v from "valibot";
import { digestHex, type SourceDigest, sha256 } from "../base/digest.js";
import { errnoText } from "../base/errno.js";
import { NotPlain, readPlain } from "../base/plain.js";
import {
  dataName,
  Ingest,
  IngestError,
  type IngestPlace,
  type IngestStep,
  type IngestWish,
} from "./ingest.js";

/** What the place of the ingests has, and Node does not. */
export interface IngestHost {
  /** Waits for the exclusive flock(2) of an open file, which ends when that is closed. */
  readonly wait: (fd: number) => void;
  /** Takes it if nobody has it. */
  readonly take: (fd: number) => boolean;
  /** Called before each step that changes the disk; what it throws, the step has failed with. */
  readonly announce: (step: IngestStep) => void;
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
const { O_RDONLY, O_RDWR, O_CREAT, O_NOFOLLOW, O_NONBLOCK } = constants;

/** The ingests of one folder. */
export class Ingests {
  readonly folder: string;
  private readonly host: IngestHost;

  /** Makes the folder, for its owner alone, if it is not there. */
  constructor(folder: string, host: IngestHost) {
    this.folder = folder;
    this.host = host;
    mkdirSync(folder, { recursive: true, mode: 0o700 });
  }

  /**
   * The writer of an ingest, which is made if there is none of that ref. One that is there goes on, or begins anew where
   * its total or digest is another than now. Throws an IngestError: `unavailable` while another writer has it.
   */
  open(ref: string, wish: IngestWish = {}): Ingest {
    if (ref === "" || Buffer.byteLength(ref) > maxRef) {
      throw new IngestError("failed", ref.slice(0, 80), `a ref has 1 to ${maxRef} bytes`);
    }
    return this.locked(() => this.begin(ref, wish));
  }

  /** What is known of one ref; undefined where there is no ingest. */
  status(ref: string): IngestStatus | undefined {
    return this.locked(() => this.look(this.pathOf(ref)));
  }

  /** Every ingest, in the order of their refs. */
  list(): IngestStatus[] {
    return this.locked(() =>
      this.paths()
        .map((path) => this.look(path))
        .filter((one) => one !== undefined)
        .sort((a, b) => (a.ref < b.ref ? -1 : 1)),
    );
  }

  /** Removes an ingest and what has arrived of it, also under a writer, who is told at its next step. */
  abort(ref: string): void {
    this.locked(() => {
      const path = this.pathOf(ref);
      if (lstatSync(path, { throwIfNoEntry: false }) === undefined) {
        throw new IngestError("absent", ref, "there is none");
      }
      this.remove(path);
    });
  }

  /** Removes those that nobody is at and that nothing was added to since `time`, and what is none. */
  expire(time: Date): void {
    this.locked(() => {
      for (const path of this.paths()) {
        const status = this.look(path);
        if (status === undefined || (!status.isActive && status.updatedAt < time)) this.remove(path);
      }
    });
  }

  private paths(): string[] {
    return readdirSync(this.folder)
      .filter((name) => name !== lockName)
      .map((name) => join(this.folder, name));
  }

  private remove(path: string): void {
    this.host.announce("remove");
    rmSync(path, { recursive: true, force: true });
  }

  /**
   * Runs a step that gives or takes names, while nobody else does. What a dead process has left of one is removed. The
   * step does not wait for anything: a thread that waits here lets nothing else of its process run.
   */
  private locked<T>(step: () => T): T {
    const lock = openSync(join(this.folder, lockName), O_RDWR | O_CREAT | O_NOFOLLOW, 0o600);
    try {
      this.host.wait(lock);
      for (const name of readdirSync(this.folder)) {
        if (name.startsWith(fresh)) this.remove(join(this.folder, name));
      }
      return step();
    } finally {
      closeSync(lock);
    }
  }

  private begin(ref: string, { total, expected }: IngestWish): Ingest {
    const path = this.pathOf(ref);
    const known = readNote(path, ref);
    if (known === undefined || differs(known, { total, expected })) {
      if (known !== undefined && this.isActive(path)) throw taken(ref);
      rmSync(path, { recursive: true, force: true });
      this.make(path, { version: 1, ref, total, expected, startedAt: new Date().toISOString() });
    }
    const fd = openPlain(join(path, dataName), O_RDWR);
    try {
      if (!this.host.take(fd)) throw taken(ref);
      const place: IngestPlace = {
        ref,
        path,
        fd,
        total: total ?? known?.total,
        expected: expected ?? known?.expected,
        locked: (step) => this.locked(step),
        announce: this.host.announce,
      };
      if (known !== undefined && (known.total !== place.total || known.expected !== place.expected)) {
        writeNote(path, { ...known, total: place.total, expected: place.expected });
      }
      return new Ingest(place);
    } catch (cause) {
      closeSync(fd);
      throw cause;
    }
  }

  private pathOf(ref: string): string {
    return join(this.folder, digestHex(sha256(Buffer.from(ref))));
  }

  private make(path: string, note: Note): void {
    const made = join(this.folder, `${fresh}${randomBytes(6).toString("hex")}`);
    this.host.announce("make");
    mkdirSync(made, { mode: 0o700 });
    writeFileSync(join(made, dataName), "", { mode: 0o600 });
    writeNote(made, note);
    renameSync(made, path);
  }

  private isActive(path: string): boolean {
    const fd = openPlain(join(path, dataName), O_RDONLY);
    try {
      return !this.host.take(fd);
    } finally {
      closeSync(fd);
    }
  }

  private look(path: string): IngestStatus | undefined {
    const note = readNote(path);
    if (note === undefined || this.pathOf(note.ref) !== path) return undefined;
    const { size, mtime } = lstatSync(join(path, dataName));
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

/** What is noted of an ingest; undefined where there is none, or one that is damaged. */
function readNote(path: string, ref?: string): Note | undefined {
  let value: unknown;
  try {
    if (!lstatSync(path).isDirectory() || !lstatSync(join(path, dataName)).isFile()) return undefined;
    value = JSON.parse(readPlain(join(path, noteName)));
  } catch (cause) {
    const { code } = cause as NodeJS.ErrnoException;
    if (cause instanceof SyntaxError || cause instanceof NotPlain || code === "ENOENT" || code === "ELOOP")
      return undefined;
    throw new IngestError("failed", ref ?? path, errnoText(code ?? "EIO"));
  }
  const parsed = v.safeParse(Note, value);
  if (!parsed.success || (ref !== undefined && parsed.output.ref !== ref)) return undefined;
  return parsed.output as Note;
}

function openPlain(path: string, flags: number): number {
  return openSync(path, flags | O_NOFOLLOW | O_NONBLOCK);
}

function writeNote(path: string, note: Note): void {
  const made = join(path, `${fresh}${noteName}`);
  writeFileSync(made, JSON.stringify(note), { mode: 0o600 });
  renameSync(made, join(path, noteName));
}
