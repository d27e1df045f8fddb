import { mkdirSync, mkdtempSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { afterAll, describe, expect, it } from "vitest";
import {
  choosePlatform,
  formatPlatform,
  hostPlatform,
  parsePlatform,
  platformOf,
} from "../../src/oci/platform.js";
import { parseReference } from "../../src/oci/reference.js";

const here = mkdtempSync(join(tmpdir(), "imgfs-reference-"));
const folder = join(here, "folder");
const odd = join(here, "odd:name");
mkdirSync(folder);
mkdirSync(odd);
afterAll(() => rmSync(here, { recursive: true, force: true }));
const digest = `sha256:${"0123456789abcdef".repeat(4)}`;

describe("a source reference", () => {
  it.each([
    ["oci:dir", "oci", "dir", undefined],
    ["oci:/a/b:tag", "oci", "/a/b", "tag"],
    ["oci:///a/b:tag", "oci", "/a/b", "tag"],
    ["oci:dir:docker.io/x/y:1.0", "oci", "dir", "docker.io/x/y:1.0"],
    ["oci-archive:f.tar:tag", "oci-archive", "f.tar", "tag"],
    ["docker-archive:f.tar:debian:12", "docker-archive", "f.tar", "debian:12"],
    ["docker-archive:f.tar:@1", "docker-archive", "f.tar", "@1"],
    ["dir:a:b", "dir", "a:b", undefined],
    ["tar:a:b.tar", "tar", "a:b.tar", undefined],
    [`oci:${odd}`, "oci", odd, undefined],
    [`oci:${odd}:tag:1`, "oci", odd, "tag:1"],
    [`oci:${folder}@${digest}`, "oci", folder, `@${digest}`],
    [`oci:${folder}:@${digest}`, "oci", folder, `@${digest}`],
    [`oci:${folder}:tag@${digest}`, "oci", folder, `tag@${digest}`],
  ])("%s is taken apart", (text, transport, path, selector) => {
    expect(parseReference(text)).toEqual({ transport, path, selector, text });
  });

  it.each([
    [folder, folder, undefined],
    [`${folder}:tag`, folder, "tag"],
    [`${folder}:registry:5000/x:1`, folder, "registry:5000/x:1"],
    [odd, odd, undefined],
    [`${odd}:tag`, odd, "tag"],
    [`${folder}@${digest}`, folder, `@${digest}`],
    ["/never/there", "/never/there", undefined],
    ["./never:tag", "./never", "tag"],
  ])("%s is a path without a transport", (text, path, selector) => {
    expect(parseReference(text)).toEqual({ transport: undefined, path, selector, text });
  });

  const noFile = "is no file or folder: use a path or one of oci:DIR[:TAG], oci-archive:";
  it.each([
    ["", /^an empty source: use one of oci:DIR/],
    ["image", `"image" ${noFile}`],
    ["image", /; docker:\/\/image would be an image in a registry$/],
    ["debian:12", `"debian:12" ${noFile}`],
    ["ghcr.io/a/b@sha256:00", `"ghcr.io/a/b@sha256:00" ${noFile}`],
    ["Odd Name", /tar:FILE, docker:\/\/NAME\[:TAG\|@DIGEST\]$/],
    ["docker:debian", '"docker:debian": the form is docker://NAME[:TAG|@DIGEST]'],
    ["docker-daemon:debian", "images of the docker daemon are not supported; docker save makes"],
    ["containers-storage:x", "podman's store is not supported"],
    ["ocii://dir", /^unknown transport "ocii" in "ocii:\/\/dir": use one of/],
    ["constructor:x", noFile],
    ["oci:", /^"oci:" names no path: the form is oci:DIR\[:TAG\]$/],
    ["oci:dir:", /^"oci:dir:" has an empty tag/],
    ["dir:", /^"dir:" names no path: the form is dir:PATH$/],
    [`${folder}:`, /has an empty tag: the form is PATH:TAG$/],
  ])("%s is refused in one line", (text, message) => {
    expect(() => parseReference(text)).toThrow(message);
    expect(() => parseReference(text)).toThrow(/^[^\n]+$/);
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
