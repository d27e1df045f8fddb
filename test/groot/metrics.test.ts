// Metrics: names and units are GrootFS's, the file is one that others can read at any time.
import { mkdtempSync, readdirSync, readFileSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { afterEach, beforeEach, describe, expect, it } from "vitest";
import type { StoreLog } from "../../src/cli/groot/lager.js";
import { Metrics } from "../../src/cli/groot/metrics.js";

let folder: string;
const errors: string[] = [];
const log: StoreLog = {
  session: () => log,
  debug: () => {},
  info: () => {},
  error: (action) => errors.push(action),
};

beforeEach(() => {
  folder = mkdtempSync(join(tmpdir(), "imgfs-metrics-"));
  errors.length = 0;
});
afterEach(() => rmSync(folder, { recursive: true }));

describe("metrics", () => {
  it("are a file with the last value of each, of several commands", () => {
    const file = join(folder, "imgfs.prom");
    const places = { metricsFile: file, metricsLog: undefined };
    const first = new Metrics(places, log);
    first.measure("ImageCreationTime", 12, "nanos");
    first.measure("UnpackTime", 5, "nanos");
    first.write();
    const second = new Metrics(places, log);
    second.measure("ImageCreationTime", 7, "nanos");
    second.measure("CommittedQuotaInBytes", 4096, "bytes");
    second.write();
    expect(readFileSync(file, "utf8")).toBe(
      [
        "# TYPE CommittedQuotaInBytes gauge",
        "# HELP CommittedQuotaInBytes Quotas of all images, bytes.",
        'CommittedQuotaInBytes{origin="grootfs",unit="bytes"} 4096',
        "# TYPE ImageCreationTime gauge",
        "# HELP ImageCreationTime Time a create took, nanos.",
        'ImageCreationTime{origin="grootfs",unit="nanos"} 7',
        "# TYPE UnpackTime gauge",
        "# HELP UnpackTime Time a layer's conversion took, nanos.",
        'UnpackTime{origin="grootfs",unit="nanos"} 5',
        "# EOF",
        "",
      ].join("\n"),
    );
    expect(readdirSync(folder)).toEqual(["imgfs.prom"]);
  });

  it("are lines of JSON, one for each value", async () => {
    const file = join(folder, "log");
    const metrics = new Metrics({ metricsFile: undefined, metricsLog: file }, log);
    await metrics.time("ImageStatsTime", async () => {});
    await expect(
      metrics.time("ImageCleanTime", async () => {
        throw new Error("no");
      }),
    ).rejects.toThrow("no");
    metrics.write();
    const lines = readFileSync(file, "utf8").trimEnd().split("\n");
    expect(lines.map((line) => JSON.parse(line) as object)).toEqual(
      ["ImageStatsTime", "ImageCleanTime"].map((name) => ({
        time: expect.stringMatching(/^\d{4}-.*Z$/),
        origin: "grootfs",
        name,
        value: expect.any(Number),
        unit: "nanos",
      })),
    );
    expect(errors).toEqual([]);
  });

  it("that cannot be written are logged, and leave nothing half-written", () => {
    const places = { metricsFile: join(folder, "none/file"), metricsLog: folder };
    const metrics = new Metrics(places, log);
    metrics.write();
    expect(errors).toEqual([]);
    metrics.measure("UnpackTime", 1, "nanos");
    metrics.write();
    expect(errors).toEqual(["failed-to-emit-metrics", "failed-to-emit-metrics"]);
    writeFileSync(join(folder, "other"), "not ours\n");
    const replaced = new Metrics({ metricsFile: join(folder, "other"), metricsLog: undefined }, log);
    replaced.measure("UnpackTime", 1, "nanos");
    replaced.write();
    expect(readFileSync(join(folder, "other"), "utf8")).toMatch(/^# TYPE UnpackTime gauge\n/);
  });
});
