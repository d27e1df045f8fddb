// What a mount's process says of itself. Read from memory that the serving thread fills; nothing here asks the mount.
import { readdirSync } from "node:fs";
import type { Counters, OpcodeTimes } from "../fuse/counters.js";
import type { Latency } from "../fuse/latency.js";
import type { Ledger } from "../quota/ledger.js";
import { type QuotaFigures, quotaFigures } from "./control-protocol.js";
import type { MountOptions, Transport } from "./options.js";

/** Requests of one opcode; latencies are in microseconds. */
export interface OpcodeFigures {
  readonly opcode: string;
  readonly requests: number;
  readonly errors: number;
  readonly latency: Latency | null;
}

export interface MountStatus {
  readonly pid: number;
  /** ISO 8601. */
  readonly startedAt: string;
  /** Seconds since it was live. */
  readonly uptime: number;
  readonly mountpoint: string;
  readonly device: string | null;
  readonly sources: readonly string[];
  readonly upper: string | null;
  readonly readOnly: boolean;
  readonly transport: Transport;
  readonly quota: QuotaFigures | null;
  readonly requests: {
    readonly total: number;
    readonly errors: number;
    /** Requests without a reply yet while others are served. */
    readonly waiting: number;
    /** What the session's thread is at; `for` is in milliseconds, null where it is not timed. */
    readonly serving: { readonly opcode: string; readonly for: number | null } | null;
    readonly opcodes: readonly OpcodeFigures[];
  };
  /** The filesystem's own figures. */
  readonly caches: Readonly<Record<string, number>>;
  readonly process: {
    /** Bytes. */
    readonly rss: number;
    readonly descriptors: number;
  };
}

/** What a status is read from. */
export interface StatusSources {
  readonly options: MountOptions;
  readonly mountpoint: string;
  readonly device: string | undefined;
  /** When it was live: by performance.now(), and as a date. */
  readonly liveSince: number;
  readonly liveAt: Date;
  readonly counters: Counters;
  readonly ledger: Ledger;
  /** Names of the filesystem's own figures. */
  readonly gauges: readonly string[];
}

export function statusOf(sources: StatusSources): MountStatus {
  const { options, counters, gauges } = sources;
  const opcodes = counters.times();
  const { serving } = counters;
  const report = sources.ledger.report();
  const uptime = (performance.now() - sources.liveSince) / 1000;
  return {
    pid: process.pid,
    startedAt: sources.liveAt.toISOString(),
    uptime: Math.round(uptime * 1000) / 1000,
    mountpoint: sources.mountpoint,
    device: sources.device ?? null,
    sources: options.sources,
    upper: options.upper ?? null,
    readOnly: options.readOnly ?? options.upper === undefined,
    transport: options.transport ?? "direct",
    quota: report === undefined ? null : quotaFigures(report),
    requests: {
      total: sum(opcodes, ({ requests }) => requests),
      errors: sum(opcodes, ({ errors }) => errors),
      waiting: counters.waiting,
      serving:
        serving === undefined
          ? null
          : {
              opcode: serving.opcode,
              for: serving.for === undefined ? null : Math.round(serving.for * 1000) / 1000,
            },
      opcodes: opcodes.map((each) => ({ ...each, latency: each.latency ?? null })),
    },
    caches: Object.fromEntries(gauges.map((name, i) => [name, counters.gauges[i] as number])),
    process: { rss: process.memoryUsage.rss(), descriptors: descriptorCount() },
  };
}

function sum(opcodes: readonly OpcodeTimes[], of: (each: OpcodeTimes) => number): number {
  return opcodes.reduce((total, each) => total + of(each), 0);
}

/** Without the one by which they are counted. */
function descriptorCount(): number {
  return readdirSync("/proc/self/fd").length - 1;
}
