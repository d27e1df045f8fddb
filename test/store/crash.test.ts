// A process killed, and a step refused, at each named point: the next command works, and the store is sound.
import { readdirSync, rmSync } from "node:fs";
import { join } from "node:path";
import { describe, expect, it } from "vitest";
import { checkStore } from "../../src/store/check.js";
import { type StoreFaultPoint, storeFaultPoints } from "../../src/store/fault.js";
import { cannotMount, run, scratch, titleOf } from "../e2e/mounted.js";
import { act, newLayout, newStore } from "./shared.js";

const points = (Object.keys(storeFaultPoints) as StoreFaultPoint[]).filter(
  (point) => !/^(init|ingest)\./.test(point) && point !== "sweep.remove" && point !== "source.note",
);

/** The operation that passes a point. */
function operationOf(point: StoreFaultPoint): "create" | "delete" | "clean" {
  if (point.startsWith("delete.")) return "delete";
  return point.startsWith("clean.") ? "clean" : "create";
}

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
  for (const action of ["kill", "ENOSPC"] as const) {
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
      expect(cut, cut.message).toMatchObject(
        action === "kill" ? { killed: true } : { ok: false, code: "ENOSPC" },
      );
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
