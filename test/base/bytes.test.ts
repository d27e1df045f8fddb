import { describe, expect, it } from "vitest";
import {
  alignUp,
  bytesOf,
  displayName,
  nameFromText,
  nameOf,
  raw,
  readU64,
  struct,
  u8,
  u16,
  u32,
  u64,
  writeU64,
} from "../../src/base/bytes.js";

describe("names", () => {
  it("keep every byte", () => {
    const bytes = Uint8Array.from({ length: 255 }, (_, i) => i + 1);
    expect(new Uint8Array(bytesOf(nameOf(bytes)))).toEqual(bytes);
  });

  it("are the bytes of a range", () => {
    expect(nameOf(Buffer.from("a/bc/d"), 2, 4)).toBe("bc");
  });

  it("print as UTF-8 where they are, and escaped where not", () => {
    expect(displayName(nameFromText("caf\u00e9"))).toBe("caf\u00e9");
    expect(displayName(Buffer.from([0x63, 0xe9]))).toBe("c\\xe9");
    expect(displayName(Buffer.from("new\nline\x7f"))).toBe("new\\x0aline\\x7f");
  });
});

describe("record layouts", () => {
  it("compute offsets from widths", () => {
    const layout = struct({ a: u8, b: u16, c: u32, d: u64, e: raw(5) });
    expect(layout).toEqual({ a: 0, b: 1, c: 3, d: 7, e: 15, byteLength: 20 });
  });
});

describe("64-bit fields", () => {
  const view = new DataView(new ArrayBuffer(8));

  it("hold unsigned values up to 2**53 and refuse more", () => {
    for (const value of [0, 1, 2 ** 32 - 1, 2 ** 32, 2 ** 53 - 1]) {
      writeU64(view, 0, value);
      expect(readU64(view, 0)).toBe(value);
    }
    view.setBigUint64(0, 2n ** 53n, true);
    expect(() => readU64(view, 0)).toThrow(RangeError);
  });
});

it("alignUp rounds to the next multiple", () => {
  expect([alignUp(0, 4096), alignUp(1, 4096), alignUp(4096, 4096), alignUp(2 ** 40 + 1, 16)]).toEqual([
    0,
    4096,
    4096,
    2 ** 40 + 16,
  ]);
});
