// Metrics under GrootFS's names: the last value of each in a file of OpenMetrics text, as node_exporter's textfile
// collector reads it, and every value as a line of JSON.
import { appendFileSync, readFileSync, renameSync, rmSync, writeFileSync } from "node:fs";
import { goJson } from "./go-json.js";
import type { StoreLog } from "./lager.js";

export type Unit = "nanos" | "bytes";

interface Value {
  readonly value: number;
  readonly unit: Unit;
}

export interface MetricsPlaces {
  readonly metricsFile: string | undefined;
  readonly metricsLog: string | undefined;
}

/** What a metric is, for people. */
const meanings: Readonly<Record<string, string>> = {
  ImageCreationTime: "Time a create took",
  ImageDeletionTime: "Time a delete took",
  ImageStatsTime: "Time a stats took",
  ImageCleanTime: "Time a clean took",
  UnpackTime: "Time a layer's conversion took",
  DownloadTime: "Time a layer's download took",
  SharedLockingTime: "Time until a shared lock was had",
  ExclusiveLockingTime: "Time until an exclusive lock was had",
  UnusedLayersSize: "Layers that no image uses",
  UsedLayersSize: "Layers that images use",
  DownloadedLayersSizeInBytes: "All layers of the store",
  CommittedQuotaInBytes: "Quotas of all images",
  UsedBackingStoreInBytes: "What the store takes on disk",
};

/** Takes what a command measures, and writes it at its end. */
export class Metrics {
  private readonly places: MetricsPlaces;
  private readonly log: StoreLog;
  private readonly measured: {
    readonly name: string;
    readonly value: number;
    readonly unit: Unit;
    readonly time: Date;
  }[] = [];

  constructor(places: MetricsPlaces, log: StoreLog) {
    this.places = places;
    this.log = log;
  }

  /** Whether anybody wants to know: what costs something is not measured otherwise. */
  get wanted(): boolean {
    return this.places.metricsFile !== undefined || this.places.metricsLog !== undefined;
  }

  readonly measure = (name: string, value: number, unit: Unit): void => {
    this.measured.push({ name, value, unit, time: new Date() });
  };

  /** Measures how long `work` takes, also when it fails. */
  async time<T>(name: string, work: () => Promise<T>): Promise<T> {
    const start = process.hrtime.bigint();
    try {
      return await work();
    } finally {
      this.measure(name, Number(process.hrtime.bigint() - start), "nanos");
    }
  }

  /** Writes what was measured. What cannot be written is logged: it is no failure of the command. */
  write(): void {
    const { metricsFile, metricsLog } = this.places;
    if (this.measured.length === 0) return;
    if (metricsLog !== undefined) {
      const lines = this.measured.map(
        ({ name, value, unit, time }) =>
          `${goJson({ time: time.toISOString(), origin: "grootfs", name, value, unit })}\n`,
      );
      this.attempt(() => appendFileSync(metricsLog, lines.join(""), { mode: 0o644 }));
    }
    if (metricsFile !== undefined) this.attempt(() => this.replace(metricsFile));
  }

  /** Other commands' metrics stay; a reader sees the file before or after, never half of it. */
  private replace(file: string): void {
    const values = readOpenMetrics(file);
    for (const { name, value, unit } of this.measured) values.set(name, { value, unit });
    const staged = `${file}.${process.pid}.new`;
    try {
      writeFileSync(staged, openMetrics(values), { mode: 0o644, flag: "wx" });
      renameSync(staged, file);
    } catch (cause) {
      rmSync(staged, { force: true });
      throw cause;
    }
  }

  private attempt(write: () => void): void {
    try {
      write();
    } catch (cause) {
      this.log.error("failed-to-emit-metrics", cause);
    }
  }
}

/** The text of a file in OpenMetrics 1.0, families in order of their names. */
export function openMetrics(values: ReadonlyMap<string, Value>): string {
  const families = [...values].sort(([a], [b]) => (a < b ? -1 : 1));
  const lines = families.flatMap(([name, { value, unit }]) => [
    `# TYPE ${name} gauge`,
    `# HELP ${name} ${meanings[name] ?? name}, ${unit}.`,
    `${name}{origin="grootfs",unit="${unit}"} ${value}`,
  ]);
  return `${[...lines, "# EOF"].join("\n")}\n`;
}

/** The values of a file that {@link openMetrics} wrote; none of one that is missing or is something else. */
function readOpenMetrics(file: string): Map<string, Value> {
  let text: string;
  try {
    text = readFileSync(file, "utf8");
  } catch {
    return new Map();
  }
  const lines = text.matchAll(/^(\w+)\{origin="grootfs",unit="(nanos|bytes)"\} (\d+)$/gm);
  return new Map(
    [...lines].map(([, name, unit, value]) => [name as string, { value: Number(value), unit: unit as Unit }]),
  );
}
