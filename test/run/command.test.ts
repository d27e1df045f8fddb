import { describe, expect, it } from "vitest";
import { type CommandOptions, commandOf } from "../../src/run/command.js";

const none: CommandOptions = { words: [], env: [] };
const config = (part: object): Buffer => Buffer.from(JSON.stringify({ config: part }));
const full = config({
  Entrypoint: ["/e", "1"],
  Cmd: ["c"],
  Env: ["A=image", "PATH=/p"],
  WorkingDir: "/w",
  User: "web",
});

describe("the command of a run", () => {
  it("is Entrypoint and Cmd, and words take the place of Cmd", () => {
    expect(commandOf(full, none, {}, false).words).toEqual(["/e", "1", "c"]);
    expect(commandOf(full, { ...none, words: ["x", "-y"] }, {}, false).words).toEqual(["/e", "1", "x", "-y"]);
    expect(commandOf(config({ Cmd: ["c"] }), none, {}, false).words).toEqual(["c"]);
    expect(commandOf(undefined, none, {}, false).words).toEqual([]);
  });

  it("forgets Cmd with --entrypoint, and Entrypoint with an empty one", () => {
    expect(commandOf(full, { ...none, entrypoint: "/n" }, {}, false).words).toEqual(["/n"]);
    expect(commandOf(full, { ...none, entrypoint: "/n", words: ["x"] }, {}, false).words).toEqual([
      "/n",
      "x",
    ]);
    expect(commandOf(full, { ...none, entrypoint: "", words: ["x"] }, {}, false).words).toEqual(["x"]);
  });

  it("takes variables from the config, then from the options, and only by name from the caller", () => {
    const env = ["A=mine", "B", "MISSING", "EMPTY="];
    const caller = { B: "of the caller", C: "not asked for", TERM: "vt100" };
    expect(commandOf(full, { ...none, env }, caller, true).env).toEqual({
      PATH: "/p",
      TERM: "vt100",
      A: "mine",
      B: "of the caller",
      EMPTY: "",
    });
    expect(commandOf(undefined, none, caller, false).env).toEqual({
      PATH: "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin",
    });
    expect(() => commandOf(full, { ...none, env: ["=x"] }, {}, false)).toThrow('"=x" is no variable');
  });

  it("starts in WorkingDir as User, or where and as whom the options say", () => {
    expect(commandOf(full, none, {}, false)).toMatchObject({ workdir: "/w", user: "web" });
    expect(commandOf(full, { ...none, workdir: "/x", user: "0" }, {}, false)).toMatchObject({
      workdir: "/x",
      user: "0",
    });
    expect(commandOf(config({ WorkingDir: "relative" }), none, {}, false).workdir).toBe("/relative");
    expect(commandOf(undefined, none, {}, false)).toMatchObject({ workdir: "/", user: "" });
  });

  it("takes null for nothing, and names what is wrong in a config", () => {
    const nothing = config({ Entrypoint: null, Cmd: null, Env: null, WorkingDir: null, User: null });
    expect(commandOf(nothing, none, {}, false).words).toEqual([]);
    expect(commandOf(Buffer.from('{"config":null}'), none, {}, false).words).toEqual([]);
    expect(() => commandOf(config({ Cmd: "sh" }), none, {}, false)).toThrow("a wrong Cmd");
    expect(() => commandOf(config({ Env: [1] }), none, {}, false)).toThrow("a wrong Env");
    expect(() => commandOf(config({ User: 7 }), none, {}, false)).toThrow("a wrong User");
    expect(() => commandOf(Buffer.from("{"), none, {}, false)).toThrow("not JSON");
  });
});
