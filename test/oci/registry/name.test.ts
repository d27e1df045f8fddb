// The names of images in registries, as distribution/reference has them.
import { describe, expect, it } from "vitest";
import { parseReference } from "../../../src/oci/reference.js";
import { nameText, parseImageName } from "../../../src/oci/registry/name.js";

const digest = `sha256:${"a".repeat(64)}`;

describe("a name", () => {
  it.each([
    ["debian", "docker.io/library/debian:latest"],
    ["debian:12", "docker.io/library/debian:12"],
    ["a/b", "docker.io/a/b:latest"],
    ["docker.io/debian", "docker.io/library/debian:latest"],
    ["index.docker.io/debian", "docker.io/library/debian:latest"],
    ["ghcr.io/a/b/c:v1.2-x_y", "ghcr.io/a/b/c:v1.2-x_y"],
    ["localhost/a", "localhost/a:latest"],
    ["localhost:5000/a:b", "localhost:5000/a:b"],
    ["registry:5000/a", "registry:5000/a:latest"],
    ["Registry/a", "Registry/a:latest"],
    ["[::1]:5000/a:b", "[::1]:5000/a:b"],
    [`debian@${digest}`, `docker.io/library/debian@${digest}`],
    [`debian:12@${digest}`, `docker.io/library/debian:12@${digest}`],
    ["h.io/a__b/c-d.e", "h.io/a__b/c-d.e:latest"],
  ])("%s is %s", (text, full) => {
    expect(nameText(parseImageName(text))).toBe(full);
  });

  it.each([
    ["", "names no repository"],
    ["Debian", "upper case is not allowed"],
    ["h.io/", "names no repository"],
    ["h.io/../x", "not the name of a repository"],
    ["h.io/a//b", "not the name of a repository"],
    ["a..b/c", "not a registry"],
    ["debian:", "not a tag"],
    ["debian:-x", "not a tag"],
    [`debian:${"x".repeat(129)}`, "not a tag"],
    ["debian@sha256:12", "not a sha256 or sha512 digest"],
    [`debian@md5:${"a".repeat(32)}`, "not a sha256 or sha512 digest"],
    ["h.io:x/y", "not a registry"],
    ["a b", "not the name of a repository"],
    [`h.io/${"a".repeat(255)}`, "longer than 255"],
  ])("%s is refused", (text, why) => {
    expect(() => parseImageName(text)).toThrow(why);
    expect(() => parseReference(`docker://${text}`)).toThrow(/^"docker:.*the form is docker:\/\/NAME/);
  });
});

describe("a source docker:", () => {
  it.each(["docker://h.io/a:1", "docker:///h.io/a:1"])("%s names an image", (text) => {
    expect(parseReference(text)).toEqual({
      transport: "docker",
      path: "h.io/a:1",
      selector: undefined,
      text,
    });
  });

  it("without slashes is none", () => {
    for (const text of ["docker:debian", "docker:/debian"]) {
      expect(() => parseReference(text)).toThrow(`"${text}": the form is docker://NAME[:TAG|@DIGEST]`);
    }
  });

  it("with a login in it is refused without repeating it", () => {
    for (const text of ["docker://ann:s3cret@h.io/a", "docker:///ann:s3cret@h.io/a"]) {
      expect(() => parseReference(text)).toThrow(/^docker:\/\/\.\.\.: a login has no place/);
      expect(() => parseReference(text)).not.toThrow(/s3cret/);
    }
  });
});
