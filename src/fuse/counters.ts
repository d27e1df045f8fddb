// Requests and failures by opcode, in memory that every thread of the process can read while one thread counts.
// Only the session's thread writes; readers may see a count that is one request old.
import { OPCODE_LIMIT, Op } from "./abi.js";

const SLOTS = OPCODE_LIMIT;

/** Counts of one opcode. */
export interface OpcodeCount {
  readonly opcode: string;
  readonly requests: number;
  /** Requests answered with an error, ENOSYS and ENOENT included. */
  readonly errors: number;
}

/** Shared memory for {@link Counters}, zeroed. */
export function createCounterMemory(): SharedArrayBuffer {
  return new SharedArrayBuffer(SLOTS * 2 * Float64Array.BYTES_PER_ELEMENT);
}

export class Counters {
  private readonly requests: Float64Array;
  private readonly errors: Float64Array;

  constructor(memory: SharedArrayBuffer) {
    this.requests = new Float64Array(memory, 0, SLOTS);
    this.errors = new Float64Array(memory, SLOTS * Float64Array.BYTES_PER_ELEMENT, SLOTS);
  }

  /** Counts a request; opcodes beyond the table share slot 0. */
  request(opcode: number): void {
    const slot = opcode < SLOTS ? opcode : 0;
    this.requests[slot] = (this.requests[slot] as number) + 1;
  }

  error(opcode: number): void {
    const slot = opcode < SLOTS ? opcode : 0;
    this.errors[slot] = (this.errors[slot] as number) + 1;
  }

  /** Opcodes seen so far, the most frequent first. */
  report(): OpcodeCount[] {
    const names = new Map<number, string>(Object.entries(Op).map(([name, opcode]) => [opcode, name]));
    return Array.from(this.requests, (requests, slot) => ({
      opcode: names.get(slot) ?? (slot === 0 ? "UNKNOWN" : `OP${slot}`),
      requests,
      errors: this.errors[slot] as number,
    }))
      .filter(({ requests }) => requests > 0)
      .sort((a, b) => b.requests - a.requests);
  }
}

/** A report as a table for people. */
export function formatCounters(report: readonly OpcodeCount[]): string {
  const rows = [["opcode", "requests", "errors"]].concat(
    report.map(({ opcode, requests, errors }) => [opcode, String(requests), String(errors)]),
  );
  return rows
    .map(
      ([name, requests, errors]) => `${name?.padEnd(18)} ${requests?.padStart(12)} ${errors?.padStart(10)}\n`,
    )
    .join("");
}
