import { describe, expect, it } from "vitest";
import { createLedgerMemory, Ledger } from "../../src/quota/ledger.js";
import {
  formatSize,
  inodeLimitFor,
  parseInodes,
  parseSize,
  type QuotaSettings,
} from "../../src/quota/settings.js";

const exclusive: QuotaSettings = { mode: "exclusive", bytes: 8192, inodes: 3, errno: "EDQUOT" };

function ledgerOf(settings: QuotaSettings, imageBytes = 0, used = { bytes: 0, inodes: 0 }): Ledger {
  const ledger = new Ledger(createLedgerMemory());
  ledger.open(settings, imageBytes, used);
  return ledger;
}

describe("a ledger", () => {
  it("charges up to its limits and not past them, both or neither", () => {
    const ledger = ledgerOf(exclusive);
    expect(ledger.charge(4096, 1)).toBe(true);
    expect(ledger.charge(4097, 1)).toBe(false);
    expect(ledger.charge(4096, 3)).toBe(false);
    expect([ledger.bytes, ledger.inodes]).toEqual([4096, 1]);
    expect(ledger.charge(4096, 2)).toBe(true);
    expect([ledger.bytesLeft, ledger.inodesLeft]).toEqual([0, 0]);
    ledger.credit(8192, 1);
    expect([ledger.bytesLeft, ledger.inodesLeft]).toEqual([8192, 1]);
  });

  it("with use above a lowered limit refuses growth, but not what costs nothing", () => {
    const ledger = ledgerOf(exclusive, 0, { bytes: 8192, inodes: 2 });
    ledger.limit(4096, undefined);
    expect(ledger.bytesLeft).toBe(0);
    expect(ledger.charge(1, 0)).toBe(false);
    expect(ledger.charge(0, 1)).toBe(true);
    ledger.credit(8192, 0);
    expect(ledger.charge(4096, 0)).toBe(true);
  });

  it("inclusive: the image counts on both sides, and a limit below it is refused in GrootFS's words", () => {
    const inclusive: QuotaSettings = { ...exclusive, mode: "inclusive", bytes: 10000, inodes: "derived" };
    const ledger = ledgerOf(inclusive, 6000, { bytes: 4000, inodes: 0 });
    expect(ledger.report()).toMatchObject({ bytes: 10000, byteLimit: 10000, bytesLeft: 0, imageBytes: 6000 });
    expect(ledger.charge(1, 0)).toBe(false);
    expect(() => ledger.limit(5999, undefined)).toThrow(/^disk limit is smaller than volume size/);
    ledger.limit(10001, undefined);
    expect(ledger.charge(1, 0)).toBe(true);
    expect(() => ledgerOf(inclusive, 10001)).toThrow(/^disk limit is smaller than volume size/);
  });

  it("derives the limit of inodes anew with that of bytes, unless it was given", () => {
    const derived = ledgerOf({ ...exclusive, bytes: 2 ** 30, inodes: "derived" });
    expect(derived.report()?.inodeLimit).toBe(2 ** 18);
    derived.limit(2 ** 31, undefined);
    expect(derived.report()?.inodeLimit).toBe(2 ** 19);
    derived.limit(undefined, 7);
    derived.limit(2 ** 30, undefined);
    expect(derived.report()).toMatchObject({ byteLimit: 2 ** 30, inodeLimit: 7 });
    expect(inodeLimitFor(10000)).toBe(1024);
    expect(inodeLimitFor(Infinity)).toBe(Infinity);
  });

  it("without a quota has no report, and no limit can be set", () => {
    const ledger = new Ledger(createLedgerMemory());
    expect(ledger.report()).toBeUndefined();
    expect(() => ledger.limit(1, undefined)).toThrow("no quota");
  });
});

describe("sizes", () => {
  it.each([
    ["10000", 10000],
    ["512k", 524288],
    ["512K", 524288],
    ["3m", 3145728],
    ["1.5G", 1610612736],
    ["2T", 2199023255552],
    ["unlimited", Infinity],
  ])("%s", (text, bytes) => {
    expect(parseSize(text)).toBe(bytes);
  });

  it.each(["", "0", "0G", "-1", "1.5", "1e3", "1 G", "1GB", "1P", "9007199254740993", "99999T", "G", "0x10"])(
    "%s is none",
    (text) => {
      expect(parseSize(text)).toBeUndefined();
    },
  );

  it("limits of inodes are whole numbers", () => {
    expect(parseInodes("12")).toBe(12);
    expect(parseInodes("unlimited")).toBe(Infinity);
    for (const text of ["0", "1k", "1.5", "-1", ""]) expect(parseInodes(text)).toBeUndefined();
  });

  it("for people", () => {
    expect([512, 8192, 1610612736, 2 ** 40 * 200, Infinity].map(formatSize)).toEqual([
      "512 B",
      "8 KiB",
      "1.5 GiB",
      "200 TiB",
      "unlimited",
    ]);
  });
});

describe("limits that travelled as JSON", () => {
  // Infinity would arrive as null, and nothing would be refused or everything.
  it("are what they were, and nothing else is taken for one", () => {
    const given: QuotaSettings = {
      mode: "exclusive",
      bytes: "unlimited",
      inodes: "unlimited",
      errno: "EDQUOT",
    };
    const ledger = ledgerOf(JSON.parse(JSON.stringify(given)));
    expect(ledger.report()).toMatchObject({ byteLimit: Infinity, inodeLimit: Infinity });
    for (const bytes of [null, Number.NaN, -1, 1.5, "10"] as never[]) {
      expect(() => ledgerOf({ ...given, bytes })).toThrow(/^quota: .* is no number of bytes$/);
    }
  });
});
