// What one process does to a store at a certain moment of another.
import { execFileSync, spawn } from "node:child_process";
import { createHash } from "node:crypto";
import { cpSync, readdirSync, readFileSync, symlinkSync, truncateSync } from "node:fs";
import { open } from "node:fs/promises";
import { join } from "node:path";
import { describe, expect, it } from "vitest";
import { checkStore } from "../../src/store/check.js";
import { readImage } from "../../src/store/images.js";
import { tryLock } from "../../src/store/locks.js";
import { initStore, openStore } from "../../src/store/store.js";
import { cannotMount, scratch, scratchDirectory, titleOf } from "../e2e/mounted.js";
import { act, newLayout, newStore } from "./shared.js";

async function until(done: () => boolean): Promise<void> {
  while (!done()) await new Promise((resolve) => setTimeout(resolve, 10));
}

describe("a moment of a store", () => {
  it("an image that appears while clean looks keeps its content", async () => {
    const [store, source] = [await newStore(), newLayout()];
    await act(store, ["pull", source]);
    const lock = tryLock(store, `image-${createHash("sha256").update("one").digest("hex")}`, "exclusive");
    const creating = act(store, ["create", source, "one"], { NO_MOUNT: "1" });
    // It has listed its content and waits for its name.
    await until(() =>
      readdirSync(join(store, "leases")).some((name) =>
        readFileSync(join(store, "leases", name), "utf8").includes(".index."),
      ),
    );
    // Clean waits between leases and images.
    const pipe = scratch("pipe");
    execFileSync("mkfifo", [pipe]);
    const cleaning = act(store, ["clean"], { IMGFS_STORE_FAULT: `clean.look:wait=${pipe}` });
    const writer = await open(pipe, "w");
    lock?.release();
    expect(await creating).toMatchObject({ ok: true });
    await writer.close();
    expect(await cleaning).toMatchObject({ ok: true });
    expect(checkStore(store, { data: true })).toMatchObject({ findings: [], images: 1 });
  });

  it("a damaged layer is converted again in place of what is there", async () => {
    const [store, source] = [await newStore(), newLayout()];
    await act(store, ["pull", source]);
    const [blob] = readdirSync(join(store, "content")).filter((name) => !name.includes("index"));
    truncateSync(join(store, "content", blob as string), 100);
    expect(await act(store, ["pull", source])).toMatchObject({ ok: true, unpacked: 1 });
    expect(checkStore(store, { data: true }).findings).toEqual([]);
  });

  it("an image that is deleted and made anew while it is read is no damage", async () => {
    const store = openStore(await newStore());
    await act(store.path, ["create", newLayout(), "one"], { NO_MOUNT: "1" });
    const [path, other] = [join(store.path, "images/one"), join(store.path, "tmp/other")];
    cpSync(path, other, { recursive: true });
    const mover = spawn("node", [
      "-e",
      `const fs = require("fs"); for (;;) { fs.renameSync(${JSON.stringify(path)}, ${JSON.stringify(`${other}-gone`)});
        fs.renameSync(${JSON.stringify(other)}, ${JSON.stringify(path)}); fs.renameSync(${JSON.stringify(`${other}-gone`)}, ${JSON.stringify(other)}); }`,
    ]);
    try {
      let seen = 0;
      for (let i = 0; i < 100_000; i++) if (readImage(store, "one") !== undefined) seen++;
      expect(seen).toBeGreaterThan(0);
    } finally {
      mover.kill("SIGKILL");
      await new Promise((resolve) => mover.on("exit", resolve));
    }
  });
});

describe.skipIf(cannotMount !== undefined)(titleOf("a store by another way", cannotMount), () => {
  it("through a symlink is unmounted before it is removed", async () => {
    const folder = scratchDirectory("real");
    const link = scratch("link");
    symlinkSync(folder, link);
    const store = join(link, "store");
    await initStore(store, { uid: [], gid: [] });
    expect(await act(store, ["create", newLayout(), "one"])).toMatchObject({ ok: true });
    expect(await act(store, ["delete", "one"])).toMatchObject({ ok: true });
    expect(readFileSync("/proc/self/mountinfo", "utf8")).not.toContain(folder);
    expect(readdirSync(join(folder, "store/tmp"))).toEqual([]);
  });
});
