// A process killed, and a step refused, at each named point: the next command works, and the store is sound.
import { readdirSync, rmSync } from "node:fs";
import { join } from "node:path";
import { describe, expect, it } from "vitest";
import { checkStore } from "../../src/store/check.js";
import { type StoreFaultPoint, storeFaultPoints } from "../../src/store/fault.js";
import { cannotMount, run, scratch, titleOf } from "../e2e/mounted.js";
import { act, newLayout, newStore } from "./shared.js";

const points = (Object.keys(storeFaultPoints) as StoreFaultPoint[]).filter(
  (point) => !/^(init|ingest)\./.test(point) && point !== "sweep.remove",
);

/** The operation that passes a point. */
function operationOf(point: StoreFaultPoint): "create" | "delete" | "clean" {
  if (point.startsWith("delete.")) return "delete";
  return point.startsWith("clean.") ? "clean" : "create";
}

/** A step that is left to the next command where it fails. */
const leaves = (point: StoreFaultPoint): boolean => point === "delete.remove" || point === "clean.remove";

async function init(
  store: string,
  fault = "",
): Promise<{ killed: boolean; code: number | null; message: string }> {
  const script = `const { initStore } = await import(${JSON.stringify(join(import.meta.dirname, "../../dist/store/store.js"))});
    await initStore(${JSON.stringify(store)}, { uid: [], gid: [] });`;
  const env = { IMGFS_STORE_FAULT: fault };
  const { signal, code, stderr } = await run("node", ["--input-type=module", "-e", script], { env });
  return { killed: signal !== null, code, message: stderr };
}

describe.skipIf(cannotMount !== undefined)(titleOf("a store after a crash", cannotMount), () => {
  for (const action of ["kill", "ENOSPC", "EIO"] as const) {
    it.each(points)(`${action} at %s`, async (point) => {
      const [store, source, other] = [await newStore(), newLayout("-a"), newLayout("-b")];
      const operation = operationOf(point);
      expect(await act(store, ["create", other, "kept"])).toMatchObject({ ok: true });
      if (operation === "delete") await act(store, ["create", source, "one"]);
      if (operation === "clean") await act(store, ["pull", source]);
      const args =
        operation === "clean"
          ? ["clean"]
          : operation === "delete"
            ? ["delete", "one"]
            : ["create", source, "one"];
      const cut = await act(store, args, { IMGFS_STORE_FAULT: `${point}:${action}` });
      if (action === "kill") expect(cut).toMatchObject({ killed: true });
      else if (leaves(point)) {
        const warnings = expect.arrayContaining([expect.stringContaining(`fault at ${point}`)]);
        expect(cut).toMatchObject({ ok: true, warnings });
      } else if (operation === "create" && action === "ENOSPC") {
        expect(cut).toMatchObject({
          kind: "full",
          message: `${store}: no space left on the store's filesystem`,
        });
      } else expect(cut, cut.message).toMatchObject({ ok: false, code: action });
      expect(checkStore(store, { data: true }).findings).toEqual([]);

      // The same again works, whether or not the first time had come to its end.
      const again = await act(store, args);
      const gone = operation === "delete" && again.kind === "absent";
      expect(again.ok || gone || again.message === "image for id `one` already exists", again.message).toBe(
        true,
      );
      if (operation === "create") {
        expect(readdirSync(join(store, "images/one/rootfs")).sort()).toEqual(["base", "top-a"]);
      }
      const report = checkStore(store, { data: true });
      expect(report).toMatchObject({ findings: [], notes: [] });
      expect(readdirSync(join(store, "images/kept/rootfs")).sort()).toEqual(["base", "top-b"]);
      for (const id of readdirSync(join(store, "images")))
        expect(await act(store, ["delete", id])).toMatchObject({ ok: true });
      await act(store, ["clean"]);
      expect(checkStore(store, { data: true })).toEqual({ findings: [], notes: [], images: 0, files: 0 });
    });
  }

  it.each(["ENOSPC", "EIO"])("is no less for what a dead process has left and %s keeps", async (action) => {
    const [store, source] = [await newStore(), newLayout()];
    const kill = { IMGFS_STORE_FAULT: "index.write:kill" };
    expect(await act(store, ["create", source, "one"], kill)).toMatchObject({ killed: true });
    expect(readdirSync(join(store, "leases"))).toHaveLength(1);
    const warnings = [expect.stringContaining("left by a process that died: ")];
    const fails = { IMGFS_STORE_FAULT: `sweep.remove:${action}` };
    expect(await act(store, ["create", source, "one"], fails)).toMatchObject({ ok: true, warnings });
    expect(await act(store, ["delete", "one"], fails)).toMatchObject({ ok: true, warnings });
    expect(await act(store, ["clean"], fails)).toMatchObject({ ok: true, warnings });
    expect(readdirSync(join(store, "leases"))).toHaveLength(1);
    const killed = await act(store, ["pull", source], { IMGFS_STORE_FAULT: "sweep.remove:kill" });
    expect(killed).toMatchObject({ killed: true });
    expect(await act(store, ["clean"])).toMatchObject({ ok: true, warnings: [] });
    expect(checkStore(store, { data: true })).toEqual({ findings: [], notes: [], images: 0, files: 0 });
    for (const folder of ["tmp", "leases"]) expect(readdirSync(join(store, folder))).toEqual([]);
  });

  it.each(["init.begin", "init.folder", "init.maps", "init.format"] as const)(
    "is made by the next init where the first was cut short at %s",
    async (point) => {
      const store = scratch("store");
      expect(await init(store, `${point}:kill`)).toMatchObject({ killed: true });
      expect(await init(store)).toMatchObject({ code: 0 });
      expect(await act(store, ["pull", newLayout()])).toMatchObject({ ok: true });
      expect(checkStore(store, { data: true }).findings).toEqual([]);
      rmSync(store, { recursive: true });
    },
  );
});
