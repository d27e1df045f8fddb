// The words of GrootFS's command line and log, as Go's libraries read and write them.
import { mkdtempSync, readFileSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { describe, expect, it } from "vitest";
import type { Caller } from "../../src/cli/groot/caller.js";
import { goJson } from "../../src/cli/groot/go-json.js";
import { goInt64 } from "../../src/cli/groot/go-texts.js";
import { goWords } from "../../src/cli/groot/go-words.js";
import { grootfsProgram } from "../../src/cli/groot/grootfs.js";
import { lagerLevel, lagerLog } from "../../src/cli/groot/lager.js";
import { envOf, specJson } from "../../src/cli/groot/spec.js";
import { failureOf } from "../../src/cli/groot/words.js";
import { RegistryError } from "../../src/oci/registry/errors.js";

describe("the words of Go's flag package", () => {
  const read = (...words: string[]): string[] => goWords(grootfsProgram(), words);

  it("may have one dash, a value after = or after a space, and false for a flag", () => {
    expect(
      read("-store", "/s", "--log-level=debug", "create", "-disk-limit-size-bytes", "5", "a", "b"),
    ).toEqual(["--store=/s", "--log-level=debug", "create", "--disk-limit-size-bytes=5", "a", "b"]);
    expect(read("create", "--with-clean=true", "-exclude-image-from-quota=false", "a", "b")).toEqual([
      "create",
      "--with-clean",
      "--no-exclude-image-from-quota",
      "a",
      "b",
    ]);
  });

  it("leave values and what follows -- alone, and what is unknown for the parser to refuse", () => {
    expect(read("clean", "--threshold-bytes", "-1")).toEqual(["clean", "--threshold-bytes=-1"]);
    expect(read("create", "--username", "--password", "x", "y")).toEqual([
      "create",
      "--username=--password",
      "x",
      "y",
    ]);
    expect(read("delete", "--", "-store")).toEqual(["delete", "--", "-store"]);
    expect(read("list", "-x", "--nope=1")).toEqual(["list", "-x", "--nope=1"]);
    expect(read("create", "--username")).toEqual(["create", "--username"]);
  });

  it("has numbers as strconv reads them", () => {
    const cases = ["0", "12", "-7", "+3", "0x10", "010", "0o17", "0b101", "9223372036854775807"];
    expect(cases.map(goInt64)).toEqual([0n, 12n, -7n, 3n, 16n, 8n, 15n, 5n, 9223372036854775807n]);
    for (const text of ["", "a", "1.5", "1k", " 1", "1_0x", "9223372036854775808", "08"]) {
      expect(goInt64(text), text).toBeUndefined();
    }
  });
});

describe("JSON as Go writes it", () => {
  it("escapes what HTML would read", () => {
    expect(goJson({ a: "<b>&\u2028" })).toBe('{"a":"\\u003cb\\u003e\\u0026\\u2028"}');
  });

  it("is a runtime-spec with nothing that GrootFS leaves out", () => {
    expect(specJson({ rootfs: "/s/images/i/rootfs", env: ["PATH=/bin"], mounts: [] })).toBe(
      '{"ociVersion":"","process":{"user":{"uid":0,"gid":0},"env":["PATH=/bin"],"cwd":""},"root":{"path":"/s/images/i/rootfs"}}',
    );
    const mount = { destination: "/", type: "fuse3.imgfs", source: "/s/content/x", options: ["upper=/u"] };
    expect(specJson({ rootfs: "/r", env: [], mounts: [mount] })).toBe(
      '{"ociVersion":"","process":{"user":{"uid":0,"gid":0},"cwd":""},"root":{"path":"/r"},"mounts":[{"destination":"/","type":"fuse3.imgfs","source":"/s/content/x","options":["upper=/u"]}]}',
    );
  });

  it("has the variables of a config, whatever else is in that", () => {
    expect(envOf({ config: { Env: ["A=1", 2, "B=<x>"] } })).toEqual(["A=1", "B=<x>"]);
    const empty = [undefined, {}, { config: null }, { config: { Env: null } }, { config: { Env: "A" } }];
    for (const config of empty) expect(envOf(config)).toEqual([]);
  });
});

describe("layers that are not those of the manifest", () => {
  const told = (message: string): string =>
    failureOf(new Error(message), { command: "create" } as Caller).groot;

  it("are told in GrootFS's words, and anything else in ours", () => {
    const [a, b] = ["a", "b"].map((digit) => `sha256:${digit.repeat(64)}`);
    expect(told(`layer 1 (${a}): digest mismatch: the bytes are ${b}, expected ${a}`)).toBe(
      `layerID digest mismatch: expected: ${"a".repeat(64)}, actual: ${"b".repeat(64)}`,
    );
    expect(told(`layer 1 (${a}): diffID mismatch: the uncompressed bytes are ${b}, expected ${a}`)).toBe(
      `diffID digest mismatch: expected: ${"a".repeat(64)}, actual: ${"b".repeat(64)}`,
    );
    expect(told("/l: layer 1: the blob has 5 bytes, the descriptor says 7")).toBe(
      "layer size is different from the value in the manifest; expected: 7, actual 5",
    );
    expect(told("layer 1: damaged gzip data")).toBe("layer 1: damaged gzip data");
  });

  it("of registries are told as GrootFS tells them", () => {
    const caller = { command: "create", args: ["docker://h:5000/a/b", "x"] } as unknown as Caller;
    const of = (kind: ConstructorParameters<typeof RegistryError>[0]): string =>
      failureOf(new RegistryError(kind, "h:5000: why"), caller).groot;
    expect(of("insecure")).toBe(
      "This registry is insecure. To pull images from this registry, please use the --insecure-registry option.",
    );
    for (const kind of ["absent", "unauthorized", "denied"] as const) {
      expect(of(kind)).toBe("docker://h:5000/a/b does not exist or you do not have permissions to see it.");
    }
    expect(of("refused")).toBe("unable to retrieve auth token: invalid username/password");
    expect(of("unreachable")).toBe("h:5000: why");
  });
});

describe("lager", () => {
  function lines(level: string, write: (log: ReturnType<typeof lagerLog>) => void): string[] {
    const folder = mkdtempSync(join(tmpdir(), "imgfs-lager-"));
    try {
      const file = join(folder, "log");
      write(lagerLog("grootfs", lagerLevel(level), file));
      return readFileSync(file, "utf8").split("\n").slice(0, -1);
    } finally {
      rmSync(folder, { recursive: true });
    }
  }

  it("writes sessions, sorted data and times with nine digits", () => {
    const [one = "", two, three] = lines("debug", (log) => {
      const create = log.session("create");
      create.session("groot-creating", { imageID: "x" }).info("starting", { b: 1, a: "<" });
      create.session("second").debug("more");
      create.error("creating", new Error("no"), { id: "x" });
    });
    const time = /^\{"timestamp":"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{9}Z",/;
    expect(one).toMatch(time);
    expect(one.replace(time, "")).toBe(
      '"level":"info","source":"grootfs","message":"grootfs.create.groot-creating.starting","data":{"a":"\\u003c","b":1,"imageID":"x","session":"1.1"}}',
    );
    expect(two?.replace(time, "")).toBe(
      '"level":"debug","source":"grootfs","message":"grootfs.create.second.more","data":{"session":"1.2"}}',
    );
    expect(three?.replace(time, "")).toBe(
      '"level":"error","source":"grootfs","message":"grootfs.create.creating","data":{"error":"no","id":"x","session":"1"}}',
    );
    const { timestamp } = JSON.parse(one) as { readonly timestamp: string };
    expect(Math.abs(Date.parse(timestamp) - Date.now())).toBeLessThan(60_000);
  });

  it("logs to a file from info on where the level is fatal, the level of whatever is none", () => {
    const log = (level: string): number =>
      lines(level, (each) => {
        each.debug("a");
        each.info("b");
        each.error("c", "why");
      }).length;
    expect(["debug", "INFO", "error", "fatal", "nonsense", ""].map(log)).toEqual([3, 2, 1, 2, 2, 2]);
  });
});
