// The ring by which a worker that blocks gets the bytes that the main thread receives.
import { createHash } from "node:crypto";
import { resolve } from "node:path";
import { setImmediate as nextTurn } from "node:timers/promises";
import { Worker } from "node:worker_threads";
import { describe, expect, it } from "vitest";
import { FeedWriter } from "../../src/builder/feed.js";
import { noise } from "../e2e/make-image.js";
import { noCommand, titleOf } from "../e2e/mounted.js";

const reader = `
  const { createHash } = require("node:crypto");
  const { parentPort, workerData } = require("node:worker_threads");
  import(workerData.module).then(({ feedPieces }) => {
    const hash = createHash("sha256");
    let size = 0;
    try {
      for (const piece of feedPieces(workerData.shared)) {
        hash.update(piece);
        size += piece.length;
        if (size >= workerData.stopAt) break;
      }
      parentPort.postMessage({ size, digest: hash.digest("hex") });
    } catch (cause) {
      parentPort.postMessage({ size, error: cause.message });
    }
  });`;

function read(feed: FeedWriter, stopAt = Number.POSITIVE_INFINITY): Promise<unknown> {
  const module = resolve(import.meta.dirname, "../../dist/builder/feed.js");
  const worker = new Worker(reader, { eval: true, workerData: { module, shared: feed.shared, stopAt } });
  return new Promise((done, failed) => worker.once("message", done).once("error", failed));
}

describe.skipIf(noCommand)(titleOf("a feed", noCommand), () => {
  it.each([0, 1, 1000, 256 << 10, (256 << 10) + 1, 4 << 20, (4 << 20) + 1, 21_000_001])(
    "gives %i bytes as they were written, whatever the pieces",
    async (size) => {
      const bytes = noise(size);
      const feed = new FeedWriter();
      const reading = read(feed);
      for (let at = 0, length = 1; at < size; at += length, length = (length * 7) % 1_500_007) {
        await feed.write(bytes.subarray(at, at + length));
      }
      feed.end();
      // What is given up after its end is whole all the same.
      feed.fail();
      expect(await reading).toEqual({ size, digest: createHash("sha256").update(bytes).digest("hex") });
    },
  );

  it("that is given up ends its reader, in the middle and before anything came", async () => {
    for (const length of [0, 100, 1 << 20]) {
      const feed = new FeedWriter();
      const reading = read(feed);
      await feed.write(noise(length));
      await nextTurn();
      feed.fail();
      expect(await reading).toMatchObject({ error: "the bytes did not come" });
      await expect(feed.write(noise(1))).rejects.toThrow("given up");
    }
  });

  it("that nobody reads any more holds its writer only until it is given up", async () => {
    const feed = new FeedWriter();
    const reading = read(feed, 1);
    const writing = feed.write(noise(10 << 20)).then(
      () => "written",
      (cause: Error) => cause.message,
    );
    await reading;
    feed.fail();
    expect(await writing).toBe("the feed was given up");
  });
});
