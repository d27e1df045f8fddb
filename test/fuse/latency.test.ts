// Histograms of latencies: what is recorded is found again, also from several threads, and quantiles are near the truth.
import { Worker } from "node:worker_threads";
import { describe, expect, it } from "vitest";
import { Op } from "../../src/fuse/abi.js";
import { Counters, createCounterMemory, monotonicNow } from "../../src/fuse/counters.js";
import { BUCKETS, bucketOf, latencyOf } from "../../src/fuse/latency.js";

describe("a histogram", () => {
  it("has a bucket for every time, in order", () => {
    let last = 0;
    for (let milliseconds = 0; milliseconds < 1e9; milliseconds = milliseconds * 1.01 + 0.00001) {
      const bucket = bucketOf(milliseconds);
      expect(bucket).toBeGreaterThanOrEqual(last);
      last = bucket;
    }
    expect(last).toBe(BUCKETS - 1);
    expect(bucketOf(-1)).toBe(0);
    expect(bucketOf(Number.POSITIVE_INFINITY)).toBe(BUCKETS - 1);
  });

  it.each([
    ["even", (i: number) => i / 1000],
    ["of a few slow ones among many quick", (i: number) => (i % 50 === 0 ? 40 : 0.008 + i / 1e6)],
    ["all the same", () => 0.0123],
  ])("tells quantiles to a tenth: %s", (_, timeOf) => {
    const times = Array.from({ length: 10_000 }, (_, i) => timeOf(i + 1));
    const counts = new Array<number>(BUCKETS).fill(0);
    for (const each of times) counts[bucketOf(each)]!++;
    const total = times.reduce((sum, each) => sum + each, 0);
    const sorted = [...times].sort((a, b) => a - b);
    const found = latencyOf((bucket) => counts[bucket] as number, total, sorted.at(-1) as number);
    const near = (value: number | undefined, truth: number): void => {
      expect(value).toBeGreaterThan(truth * 1000 * 0.87);
      expect(value).toBeLessThan(truth * 1000 * 1.13 + 0.2);
    };
    near(found?.p50, sorted[4999] as number);
    near(found?.p99, sorted[9899] as number);
    near(found?.mean, total / times.length);
    expect(found?.max).toBeCloseTo((sorted.at(-1) as number) * 1000, 1);
  });

  it("of nothing says nothing", () => {
    expect(latencyOf(() => 0, 0, 0)).toBeUndefined();
  });
});

describe("counters", () => {
  it("time every write, and of lookups every eighth, the first among them", () => {
    const counters = new Counters(createCounterMemory());
    counters.own();
    const timed: boolean[] = [];
    for (let i = 0; i < 17; i++) {
      counters.request(Op.LOOKUP);
      timed.push(counters.since >= 0);
      counters.answered(Op.LOOKUP, counters.since);
      counters.request(Op.WRITE);
      expect(counters.since).toBeGreaterThanOrEqual(0);
    }
    expect(timed.map((each, i) => (each ? i : -1)).filter((i) => i >= 0)).toEqual([0, 8, 16]);
    const [lookup] = counters.times().filter(({ opcode }) => opcode === "LOOKUP");
    expect(lookup).toMatchObject({ requests: 17, errors: 0 });
    expect(lookup?.latency?.max).toBeGreaterThanOrEqual(lookup?.latency?.p50 as number);
  });

  it("say what is served and for how long, also of what began untimed and is put off", () => {
    const counters = new Counters(createCounterMemory());
    counters.own();
    expect(counters.serving).toBeUndefined();
    counters.request(Op.READ);
    expect(counters.serving).toMatchObject({ opcode: "READ" });
    expect(counters.serving?.for).toBeGreaterThanOrEqual(0);
    counters.request(Op.GETATTR);
    counters.request(Op.GETATTR);
    expect(counters.serving).toEqual({ opcode: "GETATTR", for: undefined });
    expect(counters.sinceAtLatest).toBeGreaterThan(0);
    expect(counters.serving?.for).toBeGreaterThanOrEqual(0);
    counters.rest();
    expect(counters.serving).toBeUndefined();
  });

  it("add up what several threads answer at the same time", async () => {
    const memory = createCounterMemory();
    const counters = new Counters(memory);
    const module = new URL("../../dist/fuse/counters.js", import.meta.url).href;
    const code = `
      const { workerData } = require("node:worker_threads");
      import(workerData.module).then(({ Counters, monotonicNow }) => {
        const counters = new Counters(workerData.memory);
        for (let i = 0; i < 5000; i++) {
          counters.wait(1);
          counters.answeredLate(${Op.FSYNC}, monotonicNow() - 1 - workerData.number, i % 5 === 0 ? -5 : 0);
        }
      });`;
    await Promise.all(
      [1, 2, 3, 4].map(
        (number) =>
          new Promise<void>((done, fail) => {
            new Worker(code, { eval: true, workerData: { module, memory, number } })
              .on("error", fail)
              .on("exit", () => done());
          }),
      ),
    );
    for (let i = 0; i < 20_000; i++) counters.request(Op.FSYNC);
    const [fsync] = counters.times();
    expect(fsync).toMatchObject({ opcode: "FSYNC", requests: 20_000, errors: 4_000 });
    expect(fsync?.latency?.mean).toBeGreaterThanOrEqual(3_500);
    expect(fsync?.latency?.max).toBeGreaterThanOrEqual(5_000);
    expect(counters.waiting).toBe(0);
    expect(monotonicNow()).toBeGreaterThan(0);
  });
});
