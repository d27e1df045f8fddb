import { describe, expect, it } from "vitest";
import type { Name } from "../../src/base/bytes.js";
import { emptyListing, inOrder, listName, unlistName } from "../../src/overlay/listing.js";

describe("a listing in memory", () => {
  // Names came and went for ever in a directory that nobody listed, and each left a record.
  it("keeps nothing of names that are gone", () => {
    const listing = emptyListing();
    for (let i = 0; i < 1000; i++) listName(listing, `stays${i}` as Name, 8, i + 1, false);
    expect(inOrder(listing).length).toBe(1000);
    for (let i = 0; i < 100_000; i++) {
      listName(listing, `goes${i % 7}` as Name, 8, 5000, false);
      unlistName(listing, `goes${i % 7}` as Name);
    }
    expect(listing.added.length).toBeLessThan(3000);
    expect(inOrder(listing).length).toBe(1000);
    for (let i = 0; i < 1000; i++) unlistName(listing, `stays${i}` as Name);
    expect(listing.order.length + listing.added.length).toBeLessThan(200);
  });
});
