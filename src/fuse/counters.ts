// Requests, failures and latencies by opcode, what is being served, and the filesystem's own figures, in memory that
// every thread of the process can read.
// Invariants: the session's thread alone writes the plain cells, so that counting costs no atomic operation; a helper
// that answers a request itself adds to cells of its own kind, by Atomics. Readers may see a count that is one request
// old. A time is of this process's monotonic clock, in milliseconds.
import { performance } from "node:perf_hooks";
import { OPCODE_LIMIT, Op } from "./abi.js";
import { BUCKETS, bucketOf, type Latency, latencyOf } from "./latency.js";

const SLOTS = OPCODE_LIMIT;
/** Figures of the filesystem's own, at most. */
const GAUGES = 16;
/** BigInt cells of a helper's kind are in nanoseconds. */
const NANOSECONDS = 1_000_000;

/** Where each part begins, in cells of 8 bytes. */
const Place = {
  requests: 0,
  errors: SLOTS,
  total: 2 * SLOTS,
  longest: 3 * SLOTS,
  buckets: 4 * SLOTS,
  current: (4 + BUCKETS) * SLOTS,
  gauges: (4 + BUCKETS) * SLOTS + 4,
  late: (4 + BUCKETS) * SLOTS + 4 + GAUGES,
  length: (4 + BUCKETS) * SLOTS + 4 + GAUGES + 1 + (3 + BUCKETS) * SLOTS,
} as const;

/** Cells of what is being served: its opcode or 0, when it began by its thread's clock, and that clock's offset. */
const Current = { opcode: 0, since: 1, offset: 2 } as const;
/** Cells of what helpers answer: requests that wait for them, then by opcode. */
const Late = {
  waiting: 0,
  errors: 1,
  total: 1 + SLOTS,
  longest: 1 + 2 * SLOTS,
  buckets: 1 + 3 * SLOTS,
} as const;

/** Counts of one opcode. */
export interface OpcodeCount {
  readonly opcode: string;
  readonly requests: number;
  /** Requests answered with an error, ENOSYS and ENOENT included. */
  readonly errors: number;
}

/** The same with the time from the arrival of a request to its reply; undefined where none has been answered. */
export interface OpcodeTimes extends OpcodeCount {
  readonly latency: Latency | undefined;
}

/** What the session's thread has been at. */
export interface Serving {
  readonly opcode: string;
  /** Milliseconds since it came; undefined for one that is not timed. */
  readonly for: number | undefined;
}

/** Shared memory for {@link Counters}, zeroed. */
export function createCounterMemory(): SharedArrayBuffer {
  return new SharedArrayBuffer(Place.length * Float64Array.BYTES_PER_ELEMENT);
}

/**
 * What is done in a few microseconds, and often: of these one in {@link SAMPLE} is timed, because looking at the clock
 * twice takes a fiftieth of such a request.
 */
const quick: readonly number[] = [
  Op.LOOKUP,
  Op.GETATTR,
  Op.STATX,
  Op.READLINK,
  Op.GETXATTR,
  Op.LISTXATTR,
  Op.FLUSH,
  Op.RELEASE,
  Op.FORGET,
  Op.BATCH_FORGET,
];
/** A power of two. */
const SAMPLE = 8;
/** In place of a time. */
const UNTIMED = -1;

/** Milliseconds of the clock that all threads share; performance.now() has another origin in each. */
export function monotonicNow(): number {
  const [seconds, nanoseconds] = process.hrtime();
  return seconds * 1000 + nanoseconds / NANOSECONDS;
}

const names = new Map<number, string>(Object.entries(Op).map(([name, opcode]) => [opcode, name]));

function nameOf(slot: number): string {
  return names.get(slot) ?? (slot === 0 ? "UNKNOWN" : `OP${slot}`);
}

export class Counters {
  readonly memory: SharedArrayBuffer;
  /** The filesystem's own figures. */
  readonly gauges: Float64Array;
  private readonly requests: Float64Array;
  private readonly errors: Float64Array;
  private readonly total: Float64Array;
  private readonly longest: Float64Array;
  private readonly buckets: Float64Array;
  private readonly current: Float64Array;
  private readonly late: BigInt64Array;
  /** By slot, the bits of a count that must be those of the first request for it to be timed. */
  private readonly masks = new Uint8Array(SLOTS);

  constructor(memory: SharedArrayBuffer) {
    const cells = (place: number, length: number): Float64Array =>
      new Float64Array(memory, place * Float64Array.BYTES_PER_ELEMENT, length);
    this.memory = memory;
    this.requests = cells(Place.requests, SLOTS);
    this.errors = cells(Place.errors, SLOTS);
    this.total = cells(Place.total, SLOTS);
    this.longest = cells(Place.longest, SLOTS);
    this.buckets = cells(Place.buckets, SLOTS * BUCKETS);
    this.current = cells(Place.current, Place.gauges - Place.current);
    this.gauges = cells(Place.gauges, GAUGES);
    this.late = new BigInt64Array(memory, Place.late * 8, Place.length - Place.late);
    for (const opcode of quick) this.masks[opcode] = SAMPLE - 1;
  }

  /** The calling thread counts from now on; `since` and the like are of its performance.now(). */
  own(): void {
    this.current[Current.offset] = monotonicNow() - performance.now();
  }

  /** Counts a request, whose time begins; opcodes beyond the table share slot 0. */
  request(opcode: number): void {
    const slot = opcode < SLOTS ? opcode : 0;
    const before = this.requests[slot] as number;
    this.requests[slot] = before + 1;
    this.begin(slot, (before & (this.masks[slot] as number)) === 0 ? performance.now() : UNTIMED);
  }

  /** A request that came before is served again: its time goes on. */
  begin(opcode: number, since: number): void {
    this.current[Current.opcode] = opcode < SLOTS ? opcode : 0;
    this.current[Current.since] = since;
  }

  /** When the request being served came, by the clock of its thread; negative for one that is not timed. */
  get since(): number {
    return this.current[Current.since] as number;
  }

  /** The same for one that takes long: it is timed from now at the latest. */
  get sinceAtLatest(): number {
    if (this.since < 0) this.current[Current.since] = performance.now();
    return this.since;
  }

  error(opcode: number): void {
    const slot = opcode < SLOTS ? opcode : 0;
    this.errors[slot] = (this.errors[slot] as number) + 1;
  }

  /** A request that came at `since` has its reply. */
  answered(opcode: number, since: number): void {
    if (since < 0) return;
    const slot = opcode < SLOTS ? opcode : 0;
    const took = performance.now() - since;
    this.total[slot] = (this.total[slot] as number) + took;
    if (took > (this.longest[slot] as number)) this.longest[slot] = took;
    const at = slot * BUCKETS + bucketOf(took);
    this.buckets[at] = (this.buckets[at] as number) + 1;
  }

  /** Nothing is being served. */
  rest(): void {
    this.current[Current.opcode] = 0;
  }

  /** A time of the owning thread by the clock that all threads share. */
  shared(since: number): number {
    return since + (this.current[Current.offset] as number);
  }

  /** A request has no reply yet and others are served meanwhile, or it has its reply at last. Any thread. */
  wait(change: 1 | -1): void {
    Atomics.add(this.late, Late.waiting, BigInt(change));
  }

  /** A helper has answered a request that came at `since`, of the {@link shared} clock. */
  answeredLate(opcode: number, since: number, status: number): void {
    const { late } = this;
    const slot = opcode < SLOTS ? opcode : 0;
    const took = Math.max(0, monotonicNow() - since);
    const nanoseconds = BigInt(Math.round(took * NANOSECONDS));
    if (status < 0) Atomics.add(late, Late.errors + slot, 1n);
    Atomics.add(late, Late.total + slot, nanoseconds);
    Atomics.add(late, Late.buckets + slot * BUCKETS + bucketOf(took), 1n);
    for (let longest = Atomics.load(late, Late.longest + slot); longest < nanoseconds; ) {
      const found = Atomics.compareExchange(late, Late.longest + slot, longest, nanoseconds);
      if (found === longest) break;
      longest = found;
    }
    this.wait(-1);
  }

  /** Requests that wait for a helper, or behind one that does. */
  get waiting(): number {
    return Number(Atomics.load(this.late, Late.waiting));
  }

  /** What is being served now; undefined when the session waits for the kernel. */
  get serving(): Serving | undefined {
    const opcode = this.current[Current.opcode] as number;
    if (opcode === 0) return undefined;
    const { since } = this;
    return {
      opcode: nameOf(opcode),
      for: since < 0 ? undefined : Math.max(0, monotonicNow() - this.shared(since)),
    };
  }

  /** Opcodes seen so far, the most frequent first. */
  report(): OpcodeCount[] {
    return Array.from(this.requests, (requests, slot) => ({
      opcode: nameOf(slot),
      requests,
      errors: (this.errors[slot] as number) + this.lateCell(Late.errors + slot),
    }))
      .filter(({ requests }) => requests > 0)
      .sort((a, b) => b.requests - a.requests);
  }

  /** The same with latencies. */
  times(): OpcodeTimes[] {
    const slots = new Map(Array.from(this.requests, (_, slot) => [nameOf(slot), slot]));
    return this.report().map((count) => ({
      ...count,
      latency: this.latency(slots.get(count.opcode) as number),
    }));
  }

  private latency(slot: number): Latency | undefined {
    const countOf = (bucket: number): number => {
      const at = slot * BUCKETS + bucket;
      return (this.buckets[at] as number) + this.lateCell(Late.buckets + at);
    };
    return latencyOf(
      countOf,
      (this.total[slot] as number) + this.lateCell(Late.total + slot) / NANOSECONDS,
      Math.max(this.longest[slot] as number, this.lateCell(Late.longest + slot) / NANOSECONDS),
    );
  }

  private lateCell(index: number): number {
    return Number(Atomics.load(this.late, index));
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
