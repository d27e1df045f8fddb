// Which folders are stores, which names are ids, and what is refused.
import {
  chmodSync,
  mkdirSync,
  mkdtempSync,
  readdirSync,
  renameSync,
  statSync,
  symlinkSync,
  writeFileSync,
} from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { describe, expect, it } from "vitest";
import { checkStore } from "../../src/store/check.js";
import type { StoreError } from "../../src/store/errors.js";
import { readImage } from "../../src/store/images.js";
import { deleteStore, initStore, openStore } from "../../src/store/store.js";
import { scratch, scratchDirectory } from "../e2e/mounted.js";
import { act, newLayout, newStore } from "./shared.js";

const none = { uid: [], gid: [] };

async function failureOf(work: () => unknown): Promise<string> {
  try {
    await work();
    return "no failure";
  } catch (cause) {
    const { kind, message } = cause as StoreError;
    return `${kind}: ${message}`;
  }
}

describe("a store", () => {
  it("is made in a missing or empty folder, its owner's alone, and found again", async () => {
    const missing = scratch("store");
    const empty = scratchDirectory("store");
    for (const path of [missing, empty]) {
      expect(await initStore(path, none)).toBe("made");
      expect(await initStore(path, none)).toBe("there");
      expect(statSync(path).mode & 0o777).toBe(0o700);
      expect(checkStore(path, { data: false })).toEqual({ findings: [], notes: [], images: 0, files: 0 });
    }
  });

  it("keeps to its maps", async () => {
    const path = scratch("store");
    const maps = { uid: [{ image: 0, host: 1000, count: 1 }], gid: [{ image: 0, host: 2000, count: 1 }] };
    await initStore(path, maps);
    expect(openStore(path).maps).toEqual(maps);
    expect(await initStore(path, maps)).toBe("there");
    expect(await failureOf(() => initStore(path, { ...maps, uid: [{ image: 0, host: 7, count: 1 }] }))).toBe(
      "maps: provided UID mappings do not match those already configured in the store",
    );
    expect(await failureOf(() => initStore(path, { ...maps, gid: [{ image: 0, host: 7, count: 1 }] }))).toBe(
      "maps: provided GID mappings do not match those already configured in the store",
    );
  });

  it("is no folder of somebody else's: nothing in it is touched", async () => {
    const path = scratchDirectory("other");
    writeFileSync(join(path, "precious"), "mine");
    mkdirSync(join(path, "images"));
    for (const work of [() => initStore(path, none), () => openStore(path), () => deleteStore(path)]) {
      expect(await failureOf(work)).toMatch(/^foreign: .*not.* store of imgfs/);
    }
    expect(readdirSync(path).sort()).toEqual(["images", "precious"]);
  });

  it("of a newer layout is refused by name, and stays", async () => {
    const path = await newStore();
    writeFileSync(join(path, "format"), "imgfs store 2\n");
    for (const work of [() => openStore(path), () => deleteStore(path), () => initStore(path, none)]) {
      expect(await failureOf(work)).toBe(
        `newer: ${path}: a store with a layout this version does not know: imgfs store 2`,
      );
    }
    expect(readdirSync(path)).toContain("content");
  });

  it.each(["", ".", "..", "a/b", "../images/x", "a\0b", "x".repeat(256)])(
    "takes no id like %j",
    async (id) => {
      const store = openStore(await newStore());
      expect(await failureOf(() => readImage(store, id))).toMatch(/^bad-id: /);
    },
  );

  it("does not follow symlinks that somebody planted", async () => {
    const path = await newStore();
    const outside = mkdtempSync(join(tmpdir(), "imgfs-outside-"));
    writeFileSync(join(outside, "state.json"), "{}");
    symlinkSync(outside, join(path, "images/one"));
    const store = openStore(path);
    expect(readImage(store, "one")).toBeUndefined();
    expect(checkStore(path, { data: false }).findings).toEqual([
      { path: "images/one", problem: "no folder of an image" },
    ]);
    renameSync(join(path, "content"), join(path, "moved"));
    symlinkSync(join(path, "moved"), join(path, "content"));
    expect(await failureOf(() => openStore(path))).toBe(`damaged: ${path}: content is no directory`);
  });

  it("tells what is wrong with its content and its images", async () => {
    const path = await newStore();
    expect(await act(path, ["create", newLayout(), "one"], { NO_MOUNT: "1" })).toMatchObject({ ok: true });
    const [blob] = readdirSync(join(path, "content")).filter((name) => !name.includes("index"));
    const whole = join(path, "content", blob as string);
    chmodSync(whole, 0o600);
    writeFileSync(whole, "not a blob");
    writeFileSync(join(path, "images/one/state.json"), "{");
    const { findings } = checkStore(path, { data: true });
    expect(findings.map(({ path }) => path)).toEqual(
      expect.arrayContaining([`content/${blob}`, "images/one"]),
    );
  });

  it("refuses images that are larger than their limit, before it has anything of them", async () => {
    const [path, source] = [await newStore(), newLayout("", 3 << 20)];
    const refused = async (limit: number): Promise<string | undefined> =>
      (await act(path, ["create", source, "one", String(limit)], { NO_MOUNT: "1" })).message;
    expect(await refused(10)).toMatch(/^layers exceed disk quota \d+\/10 bytes$/);
    expect(readdirSync(join(path, "content"))).toEqual([]);
    expect(await refused(1 << 20)).toBe("uncompressed layer size exceeds quota");
    await act(path, ["pull", source]);
    expect(await refused(1 << 20)).toBe("disk limit is smaller than volume size");
    expect(readdirSync(join(path, "images"))).toEqual([]);
  });
});
