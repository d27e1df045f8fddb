// Id maps as people write them.
import { describe, expect, it } from "vitest";
import { parseIdMap, readNamespaceIds } from "../../src/daemon/id-maps.js";

const problem = (text: string, earlier: string[] = []): string => {
  try {
    parseIdMap(
      text,
      earlier.flatMap((map) => parseIdMap(map)),
    );
    return "none";
  } catch (cause) {
    return (cause as Error).message;
  }
};

describe("an id map", () => {
  it("is image id, host id and count", () => {
    expect(parseIdMap("0:100000:65536")).toEqual([{ image: 0, host: 100_000, count: 65_536 }]);
    expect(parseIdMap("0:0:4294967295")).toEqual([{ image: 0, host: 0, count: 4_294_967_295 }]);
    expect(parseIdMap("4294967294:7:1")).toEqual([{ image: 4_294_967_294, host: 7, count: 1 }]);
  });

  it("may be a list, by colons alone as in a mount option or by commas as in a label, and repeated", () => {
    const two = [
      { image: 0, host: 1000, count: 1 },
      { image: 1, host: 100_000, count: 65_536 },
    ];
    expect(parseIdMap("0:1000:1:1:100000:65536")).toEqual(two);
    expect(parseIdMap("0:1000:1,1:100000:65536")).toEqual(two);
    expect(parseIdMap("1:100000:65536", parseIdMap("0:1000:1"))).toEqual(two);
  });

  it.each([
    "",
    "0",
    "0:1",
    "0:1:2:3",
    "a:b:c",
    "-1:0:5",
    "0:0x10:5",
    "1e3:0:5",
    " 0:0:1",
    "0:0:1\n",
    "0::1",
    "0:1:99999999999",
    "0:0:1,",
  ])("is refused when it is %j", (text) => {
    expect(problem(text)).toBe(`${JSON.stringify(text)} is not IMAGE-ID:HOST-ID:COUNT, in whole numbers`);
  });

  it("is refused when it maps nothing, or beyond the largest id", () => {
    expect(problem("0:100000:0")).toBe("0:100000:0 maps no ids");
    const beyond = (map: string): string => `${map} goes beyond the largest id, 4294967294`;
    for (const map of ["0:1:4294967295", "1:0:4294967295", "4294967295:0:1", "0:9999999999:1"]) {
      expect(problem(map)).toBe(beyond(map));
    }
  });

  it("is refused when ranges overlap, on either side, also with an earlier one", () => {
    const image = "0:100000:10 and 9:5:1 overlap in the image";
    const host = "0:100000:10 and 10:99999:2 overlap on the host";
    expect(problem("0:100000:10:9:5:1")).toBe(image);
    expect(problem("9:5:1", ["0:100000:10"])).toBe(image);
    expect(problem("10:99999:2", ["0:100000:10"])).toBe(host);
    expect(problem("10:99999:1", ["0:100000:10"])).toBe("none");
    expect(problem("10:100010:1", ["0:100000:10"])).toBe("none");
  });
});

describe("the ids of a namespace", () => {
  it("are all of them outside of user namespaces, and the overflow ids are the kernel's", () => {
    const ids = readNamespaceIds();
    expect(ids).toMatchObject({ uids: undefined, gids: undefined });
    expect(ids.overflowUid).toBeGreaterThan(0);
    expect(ids.overflowGid).toBeGreaterThan(0);
  });
});
