// What a check found. One damage often shows in thousands of records, one as the consequence of another: of each kind
// in a file the first few are told, the rest counted, so that nothing of another kind or in another file is lost in them.
import { Corrupt } from "./errors.js";

/** One damage: where it is and what is wrong. */
export interface Finding {
  readonly file: string;
  readonly section: string;
  /** Empty when the whole section is meant. */
  readonly record: string;
  readonly problem: string;
}

/** Findings told of one kind in one file. */
const KIND_MAX = 5;

export class Findings {
  readonly list: Finding[] = [];
  /** Findings of kinds of which enough were told. */
  leftOut = 0;
  private readonly file: string;
  private readonly seen = new Set<string>();
  private readonly kinds = new Map<string, number>();

  constructor(file: string) {
    this.file = file;
  }

  add(section: string, record: string | number, problem: string): void {
    this.tell({
      file: this.file,
      section,
      record: typeof record === "number" ? `record ${record}` : record,
      problem,
    });
  }

  tell({ file, section, record, problem }: Finding): void {
    const kind = JSON.stringify([file, section, problem.replace(/\d+/g, "#")]);
    const told = this.kinds.get(kind) ?? 0;
    if (told >= KIND_MAX) {
      this.leftOut += 1;
      return;
    }
    const key = JSON.stringify([file, section, record, problem]);
    if (this.seen.has(key)) return;
    this.seen.add(key);
    this.kinds.set(kind, told + 1);
    this.list.push({ file, section, record, problem });
  }

  /** Runs a check; what it throws is a finding. True when it threw nothing. */
  attempt(section: string, record: string | number, run: () => void): boolean {
    try {
      run();
      return true;
    } catch (cause) {
      if (cause instanceof Corrupt) this.tell(cause);
      else this.add(section, record, cause instanceof Error ? cause.message : String(cause));
      return false;
    }
  }
}
