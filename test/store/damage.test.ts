// Images that cannot be read, and what somebody planted: the others work, nothing outside is touched, nothing waits for ever.
import { execFileSync } from "node:child_process";
import { cpSync, mkdirSync, readdirSync, readFileSync, rmSync, symlinkSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { describe, expect, it } from "vitest";
import { checkStore } from "../../src/store/check.js";
import { cannotMount, run, scratchDirectory, titleOf } from "../e2e/mounted.js";
import { act, newLayout, newStore } from "./shared.js";

const NO_MOUNT = { NO_MOUNT: "1" };

/** What is put in the place of images/bad/state.json, and what is said of it. */
const damages: Readonly<Record<string, readonly [string, (path: string) => void]>> = {
  empty: ["empty", (path) => writeFileSync(path, "")],
  "not JSON": ["not JSON", (path) => writeFileSync(path, "{")],
  "of a newer version": ["of a newer version: 2", (path) => writeFileSync(path, '{"version":2}')],
  "something else": ["not the state of an image", (path) => writeFileSync(path, "[]")],
  missing: ["no such file or directory", () => {}],
  "a symlink": [
    "not a regular file",
    (path) => {
      cpSync(join(path, "../../good/state.json"), `${path}.other`);
      symlinkSync(`${path}.other`, path);
    },
  ],
  "a pipe": ["not a regular file", (path) => execFileSync("mkfifo", [path])],
  "a directory": ["not a regular file", (path) => mkdirSync(path)],
};

describe("an image whose state is", () => {
  it.each(Object.keys(damages))("%s is in nobody's way but clean's, until it is deleted", async (kind) => {
    const [why, damage] = damages[kind] as (typeof damages)[string];
    const [store, source] = [await newStore(), newLayout()];
    for (const id of ["good", "bad"]) await act(store, ["create", source, id], NO_MOUNT);
    const state = join(store, "images/bad/state.json");
    rmSync(state);
    damage(state);
    const message = `image "bad": state.json: ${why}`;
    expect(await act(store, ["create", newLayout("-b"), "more"], NO_MOUNT)).toMatchObject({ ok: true });
    const listed = await act(store, ["list"]);
    expect(listed).toMatchObject({ ok: true, warnings: [message] });
    expect([...(listed.result?.images ?? [])].sort()).toEqual(["good", "more"]);
    for (const words of [["stats", "good"], ["sizes"], ["delete", "more"]])
      expect(await act(store, words)).toMatchObject({ ok: true, warnings: [] });
    expect(await act(store, ["stats", "bad"])).toMatchObject({ kind: "damaged", message });
    expect(await act(store, ["create", source, "bad"], NO_MOUNT)).toMatchObject({
      message: "image for id `bad` already exists",
    });
    expect(await act(store, ["clean"])).toMatchObject({
      kind: "damaged",
      message: `${message} (nothing is removed that it may need; \`imgfs delete bad\` removes the image)`,
    });
    expect(readdirSync(join(store, "content"))).toHaveLength(5);
    expect(checkStore(store, { data: true }).findings).toEqual([{ path: "images/bad", problem: message }]);
    expect(await act(store, ["delete", "bad"])).toMatchObject({ ok: true });
    expect(await act(store, ["clean"])).toMatchObject({ ok: true, warnings: [] });
    expect(readdirSync(join(store, "content"))).toHaveLength(3);
    expect(checkStore(store, { data: true })).toMatchObject({ findings: [], notes: [], images: 1 });
    expect(await act(store, ["delete-store"])).toMatchObject({ ok: true });
    mkdirSync(join(store, "images"), { recursive: true });
  });
});

describe("what was planted in a store", () => {
  it("is removed itself, and what it leads to stays", async () => {
    const [store, source] = [await newStore(), newLayout()];
    const outside = scratchDirectory("outside");
    writeFileSync(join(outside, "precious"), "mine");
    await act(store, ["create", source, "one"], NO_MOUNT);
    rmSync(join(store, "images/one/diff"), { recursive: true });
    for (const path of ["images/one/diff", "images/link", "leases/1-a", "tmp/x", "content/x", "sources/x"])
      symlinkSync(outside, join(store, path));
    mkdirSync(join(store, "leases/folder"));
    mkdirSync(join(store, "content/folder/below"), { recursive: true });
    expect(await act(store, ["stats", "one"])).toMatchObject({ message: 'image "one": diff: not a folder' });
    expect(await act(store, ["delete", "one"])).toMatchObject({ ok: true, warnings: [] });
    expect(await act(store, ["delete", "link"])).toMatchObject({ kind: "absent" });
    expect(await act(store, ["clean"])).toMatchObject({ ok: true, warnings: [] });
    for (const folder of ["leases", "tmp", "content"]) expect(readdirSync(join(store, folder))).toEqual([]);
    expect(readFileSync(join(outside, "precious"), "utf8")).toBe("mine");
  });

  it("in place of a layer makes way for it, and an empty folder is no place for an image", async () => {
    const [store, source] = [await newStore(), newLayout()];
    await act(store, ["pull", source]);
    for (const name of readdirSync(join(store, "content"))) {
      rmSync(join(store, "content", name));
      mkdirSync(join(store, "content", name, "below"), { recursive: true });
    }
    expect(await act(store, ["pull", source])).toMatchObject({ ok: true, unpacked: 2 });
    expect(checkStore(store, { data: true }).findings).toEqual([]);
    mkdirSync(join(store, "images/one"));
    const done = await act(store, ["create", source, "one"], NO_MOUNT);
    expect(done.message).toBe("image for id `one` already exists");
  });

  it("is removed however deep it is", async () => {
    const store = await newStore();
    await act(store, ["create", newLayout(), "one"], NO_MOUNT);
    const script = "import os\nfor i in range(3000):\n os.mkdir('deep'); os.chdir('deep')";
    execFileSync("python3", ["-c", script], { cwd: join(store, "images/one/diff") });
    expect(await act(store, ["delete", "one"])).toMatchObject({ ok: true, warnings: [] });
    expect(readdirSync(join(store, "tmp"))).toEqual([]);
  });
});

describe("a clean that takes too long", () => {
  it("ends, and the next one goes on", async () => {
    const [store, source] = [await newStore(), newLayout()];
    await act(store, ["pull", source]);
    const message = "timed out cleaning after '0s'";
    expect(await act(store, ["clean"], { CLEAN_TIMEOUT: "0" })).toMatchObject({ kind: "timeout", message });
    expect(checkStore(store, { data: true }).findings).toEqual([]);
    expect(await act(store, ["clean"])).toMatchObject({ ok: true });
    expect(checkStore(store, { data: true })).toEqual({ findings: [], notes: [], images: 0, files: 0 });
  });
});

describe.skipIf(cannotMount !== undefined)(titleOf("a full disk", cannotMount), () => {
  it("is named by create; delete and clean work without a byte of room, and then create does", async () => {
    const [folder, source, other] = [scratchDirectory("disk"), newLayout(), newLayout("-b", 3_000_000)];
    const driver = join(import.meta.dirname, "driver.mjs");
    const dist = join(import.meta.dirname, "../../dist");
    const script = `cd ${folder}; mkdir m; truncate -s 24M disk; mkfs.ext4 -q -m 0 disk; mount -o loop disk m
      do_it() { node ${driver} ${dist} ${folder}/m/s "$@" || :; echo; }
      init='const { initStore } = await import("${dist}/store/store.js");'
      node --input-type=module -e "$init await initStore('${folder}/m/s', { uid: [], gid: [] })"
      NO_MOUNT=1 do_it create ${source} a
      dd if=/dev/zero of=m/fill bs=1k 2>/dev/null || :
      NO_MOUNT=1 do_it create ${other} b
      do_it delete a; do_it clean; rm m/fill
      NO_MOUNT=1 do_it create ${other} b`;
    const { stdout, stderr } = await run("unshare", ["-m", "sh", "-euc", script]);
    const told = stdout.split("\n").filter((line) => line !== "");
    expect([told.length, stderr]).toEqual([5, ""]);
    const lines = told.map((line) => JSON.parse(line) as { ok: boolean; message?: string });
    expect(lines.map(({ ok }) => ok)).toEqual([true, false, true, true, true]);
    expect(lines[1]?.message).toBe(`${folder}/m/s: no space left on the store's filesystem`);
  });
});
