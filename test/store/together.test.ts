// Many processes on one store.
import { existsSync, readdirSync, readFileSync } from "node:fs";
import { join } from "node:path";
import { describe, expect, it } from "vitest";
import { checkStore } from "../../src/store/check.js";
import { cannotMount, titleOf } from "../e2e/mounted.js";
import { act, newLayout, newStore } from "./shared.js";

describe.skipIf(cannotMount !== undefined)(titleOf("processes on one store", cannotMount), () => {
  it("two that make images of the same layers convert each layer once", async () => {
    const [store, source] = [await newStore(), newLayout("", 30 << 20)];
    const done = await Promise.all(["a", "b", "c"].map((id) => act(store, ["create", source, id])));
    expect(done.map(({ ok, message }) => (ok ? "ok" : message))).toEqual(["ok", "ok", "ok"]);
    expect(done.reduce((sum, { unpacked = 0 }) => sum + unpacked, 0)).toBe(2);
    for (const { result } of done)
      expect(readFileSync(join(result?.rootfs as string, "top"), "utf8")).toBe("top \n");
    const again = await act(store, ["create", source, "d"]);
    expect([again.ok, again.unpacked]).toEqual([true, 0]);
    for (const id of ["a", "b", "c", "d"])
      expect(await act(store, ["delete", id])).toMatchObject({ ok: true });
    expect(checkStore(store, { data: true })).toMatchObject({ findings: [], notes: [], images: 0 });
  });

  it("twenty creates, twenty deletes and three cleans leave it whole, and each image with its layers", async () => {
    const store = await newStore();
    const layouts = Array.from({ length: 5 }, (_, i) => newLayout(`-${i}`));
    const ids = Array.from({ length: 20 }, (_, i) => `image-${i}`);
    const creates = (): Promise<unknown>[] =>
      ids.map(async (id, i) => {
        const done = await act(store, ["create", layouts[i % 5] as string, id]);
        expect(done, `${id}: ${done.message}`).toMatchObject({ ok: true });
        expect(readdirSync(done.result?.rootfs as string).sort()).toEqual(["base", `top-${i % 5}`]);
      });
    const cleans = (): Promise<unknown>[] =>
      [1, 2, 3].map(async () => expect(await act(store, ["clean"])).toMatchObject({ ok: true }));
    await Promise.all([...creates(), ...cleans()]);
    const replaced = (id: string, i: number): Promise<unknown>[] => [
      act(store, ["delete", id]).then((done) => expect(done, done.message).toMatchObject({ ok: true })),
      act(store, ["create", layouts[i % 5] as string, `${id}-again`]).then((done) =>
        expect(done, done.message).toMatchObject({ ok: true }),
      ),
    ];
    await Promise.all([...ids.flatMap(replaced), ...cleans()]);
    expect(readdirSync(join(store, "images")).sort()).toEqual(ids.map((id) => `${id}-again`).sort());
    await Promise.all(ids.map((id) => act(store, ["delete", `${id}-again`])));
    expect(await act(store, ["clean"])).toMatchObject({ ok: true, result: { cleaned: true } });
    expect(checkStore(store, { data: true })).toEqual({ findings: [], notes: [], images: 0, files: 0 });
    for (const folder of ["tmp", "leases"]) expect(readdirSync(join(store, folder))).toEqual([]);
  }, 240_000);

  it("only one of several gets an id", async () => {
    const [store, source] = [await newStore(), newLayout()];
    const done = await Promise.all([1, 2, 3, 4].map(() => act(store, ["create", source, "one"])));
    expect(done.filter(({ ok }) => ok)).toHaveLength(1);
    expect(done.filter(({ ok }) => !ok).map(({ message }) => message)).toEqual(
      Array(3).fill("image for id `one` already exists"),
    );
    expect(existsSync(join(store, "images/one/rootfs/base"))).toBe(true);
    await act(store, ["delete", "one"]);
  });
});
