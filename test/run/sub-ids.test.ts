import { expect, it } from "vitest";
import { mapOf, subordinateRanges } from "../../src/run/sub-ids.js";

const text = "# none\nme:100000:65536\nother:200000:65536\n1000:300000:10\nme:x:5\nme:400000:0\nme:5\n";

it("ranges are a user's by name and by number", () => {
  expect(subordinateRanges(text, "me", 1000)).toEqual([
    [100_000, 65_536],
    [300_000, 10],
  ]);
  expect(subordinateRanges(text, undefined, 1000)).toEqual([[300_000, 10]]);
  expect(subordinateRanges(text, "nobody", 7)).toEqual([]);
});

it("root is the user, and the ids after it the ranges in turn", () => {
  expect(mapOf(1000, [])).toEqual([[0, 1000, 1]]);
  expect(
    mapOf(1000, [
      [100_000, 65_536],
      [300_000, 10],
    ]),
  ).toEqual([
    [0, 1000, 1],
    [1, 100_000, 65_536],
    [65_537, 300_000, 10],
  ]);
});
