// What a check found. Each damage is told once, however many records show it, and their number is bounded.
import { Corrupt } from "./errors.js";

/** One damage: where it is and what is wrong. */
export interface Finding {
  readonly file: string;
  readonly section: string;
  /** Empty when the whole section is meant. */
  readonly record: string;
  readonly problem: string;
}

const FINDINGS_MAX = 10_000;

export class Findings {
  readonly list: Finding[] = [];
  private readonly file: string;
  private readonly seen = new Set<string>();

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
    const key = JSON.stringify([file, section, record, problem]);
    if (this.list.length >= FINDINGS_MAX || this.seen.has(key)) return;
    this.seen.add(key);
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
