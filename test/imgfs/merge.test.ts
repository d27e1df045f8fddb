import { describe, expect, it } from "vitest";
import { Image } from "../../src/imgfs/image.js";
import { directory, file, implied, link, list, whiteout, writeLayer } from "./support.js";

function stack(...roots: Parameters<typeof writeLayer>[0][]): Image {
  return Image.stack(roots.map((root) => writeLayer(root).path));
}

function paths(image: Image): string[] {
  return list(image).map(({ path, data }) => (data === undefined ? path : `${path}=${data}`));
}

describe("merging layers", () => {
  it("lets the topmost layer win and unites directories", () => {
    const image = stack(
      directory({ etc: directory({ a: file("1"), b: file("1") }, { mode: 0o700 }) }),
      directory({ etc: implied({ b: file("2"), c: file("2") }) }),
    );
    expect(paths(image)).toEqual(["", "etc", "etc/a=1", "etc/b=2", "etc/c=2"]);
    image.close();
  });

  it("hides below a whiteout and an opaque directory only what is lower", () => {
    const image = stack(
      directory({
        a: file("1"),
        d: directory({ x: file("1"), y: file("1") }),
        e: directory({ z: file("1") }),
      }),
      directory({ a: whiteout, d: directory({ y: file("2") }, { opaque: true }), e: whiteout }),
      directory({ e: directory({ new: file("3") }) }),
    );
    expect(paths(image)).toEqual(["", "d", "d/y=2", "e", "e/new=3"]);
    image.close();
  });

  it("resolves links against the tree below", () => {
    const image = stack(directory({ a: file("1"), b: file("b") }), directory({ l: link("a"), a: file("2") }));
    expect(paths(image)).toEqual(["", "a=2", "b=b", "l=1"]);
    image.close();
  });
});
