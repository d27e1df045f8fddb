import { describe, expect, it } from "vitest";
import {
  choosePlatform,
  formatPlatform,
  hostPlatform,
  parsePlatform,
  platformOf,
} from "../../src/oci/platform.js";
import { parseReference } from "../../src/oci/reference.js";

describe("a source reference", () => {
  it.each([
    ["oci:dir", "oci", "dir", undefined],
    ["oci:/a/b:tag", "oci", "/a/b", "tag"],
    ["oci:dir:docker.io/x/y:1.0", "oci", "dir", "docker.io/x/y:1.0"],
    ["docker-archive:f.tar:debian:12", "docker-archive", "f.tar", "debian:12"],
    ["docker-archive:f.tar:@1", "docker-archive", "f.tar", "@1"],
    ["tar:a:b.tar", "tar", "a:b.tar", undefined],
  ])("%s is taken apart", (text, transport, path, selector) => {
    expect(parseReference(text)).toEqual({ transport, path, selector, text });
  });

  it.each([
    ["image", /^"image" has no transport: write one of oci:DIR/],
    ["ocii:dir", /^unknown transport "ocii" in "ocii:dir": use one of/],
    ["constructor:x", /^unknown transport/],
    ["oci-archive:f", /^transport "oci-archive" in "oci-archive:f" is not supported yet/],
    ["docker://debian", /^transport "docker" .* is not supported yet/],
    ["oci:", /^"oci:" names no path: the form is oci:DIR\[:TAG\]$/],
    ["oci:dir:", /^"oci:dir:" has an empty tag/],
  ])("%s is refused in one line", (text, message) => {
    expect(() => parseReference(text)).toThrow(message);
  });
});

describe("a platform", () => {
  it("has Go's names, whatever the machine calls itself", () => {
    expect(formatPlatform(parsePlatform("linux/x86_64"))).toBe("linux/amd64");
    expect(formatPlatform(parsePlatform("linux/aarch64/v8"))).toBe("linux/arm64");
    expect(formatPlatform(parsePlatform("linux/arm/v6"))).toBe("linux/arm/v6");
    expect(hostPlatform().os).toBe("linux");
    for (const bad of ["linux", "linux/", "/amd64", "a/b/c/d", "linux/arm/"]) {
      expect(() => parsePlatform(bad)).toThrow(/^not a platform/);
    }
  });

  const offers = ["linux/amd64", "linux/arm64/v8", "linux/arm/v5", "linux/arm/v7", "windows/amd64"].map(
    (name) => {
      const [os, architecture, variant] = name.split("/") as [string, string, string?];
      return { name, platform: platformOf(os, architecture, variant) };
    },
  );
  it.each([
    ["linux/arm64", "linux/arm64/v8"],
    ["linux/arm/v7", "linux/arm/v7"],
    ["linux/arm/v6", "linux/arm/v5"],
    ["linux/arm", "linux/arm/v7"],
    ["windows/amd64", "windows/amd64"],
  ])("%s takes %s", (wanted, chosen) => {
    expect(choosePlatform<{ name: string }>("index", parsePlatform(wanted), offers).name).toBe(chosen);
  });

  it("that is not there is an error that lists what is", () => {
    expect(() => choosePlatform("index x", parsePlatform("linux/s390x"), offers)).toThrow(
      "index x: nothing for platform linux/s390x; it has linux/amd64, linux/arm64, linux/arm/v5",
    );
  });
});
