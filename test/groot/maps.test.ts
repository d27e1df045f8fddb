// Id mappings of the store's commands: GrootFS's texts for what is none, newuidmap's for what is not allowed.
import { afterEach, describe, expect, it, vi } from "vitest";
import { readMaps } from "../../src/cli/groot/maps.js";

const files = new Map<string, string>();
vi.mock("node:fs", async (original) => {
  const fs = await original<typeof import("node:fs")>();
  const readFileSync = ((path: string, ...rest: never[]) =>
    files.get(path) ?? fs.readFileSync(path, ...rest)) as typeof fs.readFileSync;
  return { ...fs, readFileSync };
});

const ids = { geteuid: process.geteuid, getegid: process.getegid };

function become(id: number): void {
  process.geteuid = () => id;
  process.getegid = () => id;
}

afterEach(() => {
  files.clear();
  if (ids.geteuid !== undefined) process.geteuid = ids.geteuid;
  if (ids.getegid !== undefined) process.getegid = ids.getegid;
});

describe("id mappings", () => {
  it("are ranges, of several options or none", () => {
    become(0);
    expect(readMaps(["0:1000:1", "1:100000:65536"], ["0:5:1"])).toEqual({
      uid: [
        { image: 0, host: 1000, count: 1 },
        { image: 1, host: 100_000, count: 65_536 },
      ],
      gid: [{ image: 0, host: 5, count: 1 }],
    });
    expect(readMaps(undefined, undefined)).toEqual({ uid: [], gid: [] });
  });

  it("are refused as GrootFS refuses them, and where they overlap", () => {
    become(0);
    const refusals = {
      a: "parsing uid-mapping: expected integer",
      "1:b:1": "parsing uid-mapping: expected integer",
      "1:2": "parsing uid-mapping: unexpected EOF",
      "1:2:": "parsing uid-mapping: unexpected EOF",
      "": "parsing uid-mapping: unexpected EOF",
      "1-2-3": "parsing uid-mapping: input does not match format",
      "1:2:3:4": "parsing uid-mapping: input does not match format",
    };
    for (const [text, message] of Object.entries(refusals)) {
      expect(() => readMaps([text], undefined), text).toThrow(new Error(message));
    }
    expect(() => readMaps(undefined, ["0:0:0"])).toThrow(new Error("parsing gid-mapping: 0:0:0 maps no ids"));
    expect(() => readMaps(["-1:0:1"], undefined)).toThrow(/^parsing uid-mapping: .*whole numbers$/);
    expect(() => readMaps(["0:0:10", "5:100:1"], undefined)).toThrow(
      new Error("parsing uid-mapping: 0:0:10 and 5:100:1 overlap in the image"),
    );
    expect(() => readMaps(["0:4294967294:2"], undefined)).toThrow(/beyond the largest id/);
  });

  it("of an ordinary user map root to the user, and others to what is set aside", () => {
    become(1000);
    files.set("/etc/subuid", "1000:100000:65536\n");
    files.set("/etc/subgid", "1000:200000:10\n");
    const own = "0:1000:1";
    expect(readMaps([own, "1:100000:65536"], [own, "1:200000:10"]).uid).toHaveLength(2);
    expect(() => readMaps(["1:100000:10"], undefined)).toThrow(
      new Error("uid mappings: root must be mapped to its own id: 0:1000:1"),
    );
    expect(() => readMaps(["0:0:1"], undefined)).toThrow(/root must be mapped to its own id/);
    expect(() => readMaps([own], ["0:1000:2"])).toThrow(/^gid mappings: root must/);
    expect(() => readMaps([own, "1:200000:65000"], undefined)).toThrow(
      new Error("uid range [1-65001) -> [200000-265000) not allowed"),
    );
    expect(() => readMaps([own], [own, "1:200000:11"])).toThrow(
      new Error("gid range [1-12) -> [200000-200011) not allowed"),
    );
  });
});
