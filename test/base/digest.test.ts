import { expect, it } from "vitest";
import { digestBytes, digestHex, parseDigest, sha256 } from "../../src/base/digest.js";

const empty = "sha256:e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855";

it("a digest is sha256 in lower-case hex and nothing else", () => {
  expect(parseDigest(empty)).toBe(empty);
  for (const bad of [
    "",
    "sha256:",
    empty.toUpperCase(),
    empty.slice(0, -1),
    `${empty}0`,
    empty.replace("256", "512"),
  ]) {
    expect(() => parseDigest(bad)).toThrow("not a sha256 digest");
  }
});

it("a digest of several parts is that of their concatenation", () => {
  expect(sha256(Buffer.from("a"), Buffer.from("bc"))).toBe(sha256(Buffer.from("abc")));
  expect(digestBytes(sha256()).toString("hex")).toBe(digestHex(parseDigest(empty)));
});
