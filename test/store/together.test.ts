// Many processes on one store.
import { closeSync, constants, existsSync, openSync, readdirSync, readFileSync } from "node:fs";
import { join } from "node:path";
import { describe, expect, it } from "vitest";
import { checkStore } from "../../src/store/check.js";
import { cannotMount, scratch, shell, titleOf, until } from "../e2e/mounted.js";
import { act, type Done, newLayout, newStore } from "./shared.js";

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

  /** A create that waits with a layer converted and without its name, until it is let go. */
  async function creating(
    store: string,
    source: string,
    id: string,
  ): Promise<{ done: Promise<Done>; pid: number; letGo(): void }> {
    const pipe = scratch("pipe");
    await shell(`mkfifo '${pipe}'`);
    const done = act(store, ["create", source, id], { IMGFS_STORE_FAULT: `layer.publish:wait=${pipe}` });
    let fd: number | undefined;
    await until("a layer is converted", () => {
      try {
        fd = openSync(pipe, constants.O_WRONLY | constants.O_NONBLOCK);
      } catch (cause) {
        // Nobody waits there yet.
        if ((cause as NodeJS.ErrnoException).code !== "ENXIO") throw cause;
      }
      return fd !== undefined;
    });
    const [lease = ""] = readdirSync(join(store, "leases"));
    return { done, pid: Number(lease.split("-")[0]), letGo: () => closeSync(fd as number) };
  }

  it("one that waits for the layers of another converts them where that is killed", async () => {
    const [store, source] = [await newStore(), newLayout()];
    const first = await creating(store, source, "a");
    const second = act(store, ["create", source, "b"]);
    await until("the second one is at work", () => readdirSync(join(store, "leases")).length === 2);
    process.kill(first.pid, "SIGKILL");
    first.letGo();
    expect(await first.done).toMatchObject({ killed: true });
    expect(await second).toMatchObject({ ok: true, unpacked: 2 });
    expect(readdirSync(join(store, "images/b/rootfs")).sort()).toEqual(["base", "top"]);
    expect(await act(store, ["delete", "b"])).toMatchObject({ ok: true });
    expect(checkStore(store, { data: true })).toMatchObject({ findings: [], notes: [], images: 0 });
  });

  it("a clean takes nothing that a create at work has found or is converting", async () => {
    const store = await newStore();
    expect(await act(store, ["pull", newLayout("-old")])).toMatchObject({ ok: true });
    const blobs = (): string[] => readdirSync(join(store, "content"));
    expect(blobs()).toHaveLength(3);
    // Its lower layer is the old one's.
    const one = await creating(store, newLayout("-new"), "a");
    expect(await act(store, ["clean"])).toMatchObject({ ok: true, result: { cleaned: true } });
    expect(blobs()).toHaveLength(1);
    one.letGo();
    expect(await one.done).toMatchObject({ ok: true, unpacked: 1 });
    expect(readdirSync(join(store, "images/a/rootfs")).sort()).toEqual(["base", "top-new"]);
    expect(await act(store, ["clean"])).toMatchObject({ ok: true });
    expect(blobs()).toHaveLength(3);
    expect(await act(store, ["delete", "a"])).toMatchObject({ ok: true });
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
