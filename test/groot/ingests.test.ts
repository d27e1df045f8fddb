// Downloads of a store that do not come to their end: a later process goes on with them, or somebody aborts them.
import { createHash } from "node:crypto";
import { closeSync, openSync, readdirSync, readFileSync, statSync, utimesSync, writeSync } from "node:fs";
import { join } from "node:path";
import { beforeAll, describe, expect, it } from "vitest";
import { checkStore } from "../../src/store/check.js";
import { noise } from "../e2e/make-image.js";
import { cannotMount, type Outcome, run, scratch, titleOf, until } from "../e2e/mounted.js";
import { digest, Layout } from "../fixtures/oci.js";
import { file, tar } from "../fixtures/tar.js";
import { cannotServe, push, serveRegistry } from "../oci/registry/serve.js";
import { type Asked, type Trouble, type Troubled, troubled } from "../oci/registry/trouble.js";
import { layoutOf, madeStore, program, type TestStore } from "./kit.js";

const missing = cannotMount ?? cannotServe;
const inCi = process.env["CI"] !== undefined && process.env["CI"] !== "";
it.runIf(inCi)("downloads of the store are tested in CI", () => expect(missing).toBeUndefined());

const content = noise(3 << 20);
const layer = tar(file("big", content));
const small = tar(file("small", "small\n"));
const ref = `layer-${digest(layer)}`;
/** Bytes of the layer that come before the trouble begins. */
const part = 2_000_000;

interface IngestLine {
  ref: string;
  offset: number;
  total: number;
  expected: string;
  active: boolean;
}

async function ingests(store: TestStore): Promise<IngestLine[]> {
  const text = await store.say("imgfs", "store", "ingests", "--json");
  return text
    .split("\n")
    .filter((line) => line !== "")
    .map((line) => JSON.parse(line) as IngestLine);
}

/** That of the large layer: the small one may be there too, whole and without its blob yet. */
const large = async (store: TestStore): Promise<IngestLine[]> =>
  (await ingests(store)).filter((one) => one.ref === ref);

/** Where what has come of the layer lies. */
const dataOf = (store: TestStore): string =>
  join(store.path, "ingests", createHash("sha256").update(ref).digest("hex"), "data");

describe.skipIf(missing)(titleOf("a download of the store", missing), () => {
  let behind: string;

  beforeAll(async () => {
    ({ host: behind } = await serveRegistry());
    const made = new Layout(scratch("layout"));
    made.tag(made.image([small, layer]), "latest");
    await push(behind, "a/b", made);
  });

  /** A registry whose large layer is in trouble. */
  const front = (trouble: (asked: Asked) => Trouble | undefined): Promise<Troubled> =>
    troubled(behind, (asked) => (asked.path.endsWith(digest(layer)) ? trouble(asked) : undefined));
  const once = (trouble: Trouble): Promise<Troubled> =>
    front(({ before }) => (before === 0 ? trouble : undefined));
  const rangesOf = ({ asked }: Troubled): (string | undefined)[] =>
    asked.filter(({ path }) => path.endsWith(digest(layer))).map(({ headers }) => headers.range);
  const create = (store: TestStore, { host }: Troubled, id = "one"): Promise<Outcome> =>
    store.call("imgfs", "create", "--tls-verify", "false", "--progress", "none", `docker://${host}/a/b`, id);

  /** A pull of its own, until so much of the layer is on disk; what it comes to is for the caller. */
  async function begun(
    store: TestStore,
    { host }: Troubled,
  ): Promise<{ kill(signal?: NodeJS.Signals): void; done: Promise<Outcome> }> {
    const pid = scratch("pid");
    const words = ["--store", store.path, "pull", "--tls-verify", "false", `docker://${host}/a/b`];
    const done = run("sh", ["-c", 'echo $$ >"$0"; exec "$@"', pid, program("imgfs"), ...words]);
    await until("a part of the layer has come", () => {
      const stat = statSync(dataOf(store), { throwIfNoEntry: false });
      return stat !== undefined && stat.size > 1_000_000;
    });
    return { kill: (signal = "SIGKILL") => process.kill(Number(readFileSync(pid, "utf8")), signal), done };
  }

  async function isThere(store: TestStore): Promise<void> {
    expect(readFileSync(store.image("one", "rootfs/big")).equals(content)).toBe(true);
    expect(readFileSync(store.image("one", "rootfs/small"), "utf8")).toBe("small\n");
    expect(await ingests(store)).toEqual([]);
    expect(checkStore(store.path, { data: true }).findings).toEqual([]);
  }

  it("goes on in a later process where the one before was killed", async () => {
    const [store, registry] = [await madeStore(), await once({ silentAfter: part })];
    const first = await begun(store, registry);
    expect(await large(store)).toMatchObject([
      { ref, total: layer.length, expected: digest(layer), active: true },
    ]);
    first.kill();
    await first.done;
    const [left] = await large(store);
    expect(left).toMatchObject({ ref, active: false });
    expect(left?.offset).toBeGreaterThan(1_000_000);
    expect(await store.say("imgfs", "store", "ingests")).toMatch(
      new RegExp(`^${ref}  1\\.\\d+ MiB of 3\\.0\\d MiB  stopped  20\\d\\d-[^\\n]+Z$`, "m"),
    );
    expect(await create(store, registry)).toMatchObject({ code: 0, stderr: "" });
    expect(rangesOf(registry)).toEqual([undefined, `bytes=${left?.offset}-`]);
    await isThere(store);
  });

  it("stops at a signal, and goes on from there", async () => {
    const [store, registry] = [await madeStore(), await once({ silentAfter: part })];
    const first = await begun(store, registry);
    first.kill("SIGTERM");
    expect(await first.done).toMatchObject({
      code: 143,
      stdout: "",
      stderr: expect.stringMatching(
        /^imgfs: pull docker:[^\n]+: stopped by SIGTERM, what has come of its layers is kept\n$/,
      ),
    });
    for (const folder of ["tmp", "leases"]) expect(readdirSync(join(store.path, folder))).toEqual([]);
    const [left] = await large(store);
    expect(left?.offset).toBeGreaterThan(1_000_000);
    expect(await create(store, registry)).toMatchObject({ code: 0, stderr: "" });
    expect(rangesOf(registry)).toEqual([undefined, `bytes=${left?.offset}-`]);
    await isThere(store);
  });

  it("stays as far as it came where the registry fails, and all of it is used", async () => {
    const store = await madeStore();
    const registry = await front(({ before }) =>
      before === 0 ? { cutAfter: part } : before < 5 ? { status: 404 } : undefined,
    );
    expect(await create(store, registry)).toMatchObject({ code: 10, stdout: "" });
    expect(await large(store)).toMatchObject([{ ref, offset: part, active: false }]);
    expect(await create(store, registry)).not.toMatchObject({ code: 0 });
    expect(await large(store)).toMatchObject([{ ref, offset: part, active: false }]);
    await store.call("imgfs", "pull", "--tls-verify", "false", `docker://${registry.host}/a/b`);
    await create(store, registry);
    await create(store, registry);
    expect(
      rangesOf(registry)
        .slice(1)
        .every((range) => range === `bytes=${part}-`),
    ).toBe(true);
    await isThere(store);
  });

  it("begins anew where what an earlier one left is damaged", async () => {
    const [store, registry] = [await madeStore(), await once({ silentAfter: part })];
    const first = await begun(store, registry);
    first.kill();
    await first.done;
    const fd = openSync(dataOf(store), "r+");
    writeSync(fd, "damage", 700_000);
    closeSync(fd);
    const { size } = statSync(dataOf(store));
    expect(await create(store, registry)).toMatchObject({ code: 0 });
    expect(rangesOf(registry)).toEqual([undefined, `bytes=${size}-`, undefined]);
    await isThere(store);
  });

  it("leaves nothing where the registry has other bytes than its manifest says", async () => {
    const store = await madeStore();
    const change = (bytes: Buffer): Buffer => Buffer.from(bytes).fill(1, 5000, 5010);
    const registry = await front(() => ({ change }));
    const outcome = await create(store, registry);
    expect(outcome.code).not.toBe(0);
    expect(outcome.stderr).toContain("digest mismatch");
    // The small layer may have come and not have been made into a blob yet.
    expect((await ingests(store)).filter((each) => each.ref === ref)).toEqual([]);
    expect(rangesOf(registry)).toEqual([undefined]);
  });

  it("keeps nobody else waiting, whatever they do to the store", async () => {
    const store = await madeStore();
    const first = await begun(store, await front(() => ({ silentAfter: part })));
    const other = `oci:${layoutOf(small, tar(file("other", "other\n")))}`;
    await store.say("imgfs", "create", other, "other");
    await store.say("imgfs", "stats", "other");
    await store.say("imgfs", "clean");
    await store.say("imgfs", "delete", "other");
    await store.say("imgfs", "clean");
    expect(await store.say("imgfs", "list")).toBe("Store empty\n");
    expect(await large(store)).toMatchObject([{ ref, active: true }]);
    first.kill();
    await first.done;
  });

  it("is aborted on demand, and with it whoever is at it", async () => {
    const [store, registry] = [await madeStore(), await front(() => ({ piece: 100_000, pause: 50 }))];
    const first = await begun(store, registry);
    expect(await store.say("imgfs", "store", "ingests", "--abort", ref)).toBe("");
    expect(await large(store)).toEqual([]);
    expect(await first.done).toMatchObject({
      stderr: expect.stringContaining(`ingest "${ref}": it was aborted\n`),
    });
    expect((await first.done).code).not.toBe(0);
    expect(await store.call("imgfs", "store", "ingests", "--abort", ref)).toMatchObject({
      code: 10,
      stdout: "",
      stderr: `imgfs: ingest "${ref}": there is none\n`,
    });
    expect(checkStore(store.path, { data: true }).findings).toEqual([]);
    for (const folder of ["tmp", "leases"]) expect(readdirSync(join(store.path, folder))).toEqual([]);
  });

  it("expires by a clean when nobody has gone on with it for a day", async () => {
    const store = await madeStore();
    const first = await begun(store, await front(() => ({ silentAfter: part })));
    await store.say("imgfs", "clean");
    expect(await large(store)).toHaveLength(1);
    first.kill();
    await first.done;
    await store.say("imgfs", "clean");
    expect(await large(store)).toHaveLength(1);
    const before = new Date(Date.now() - 25 * 3_600_000);
    utimesSync(dataOf(store), before, before);
    await store.say("imgfs", "clean");
    expect(await ingests(store)).toEqual([]);
  });

  it.each(["ingest.make", "ingest.write", "ingest.commit", "ingest.remove"])(
    "is sound when its process is killed at %s, or the disk refuses that",
    async (point) => {
      const [store, registry] = [await madeStore(), await front(() => undefined)];
      const pull = (fault: string): Promise<Outcome> =>
        run(
          program("imgfs"),
          ["--store", store.path, "pull", "--tls-verify", "false", `docker://${registry.host}/a/b`],
          { env: { IMGFS_STORE_FAULT: fault } },
        );
      expect((await pull(`${point}:kill`)).code).not.toBe(0);
      expect(checkStore(store.path, { data: true }).findings).toEqual([]);
      const refused = await pull(`${point}:EIO`);
      if (point === "ingest.commit") expect(refused.code).not.toBe(0);
      else expect(refused).toMatchObject({ code: 0 });
      expect(await create(store, registry)).toMatchObject({ code: 0, stderr: "" });
      for (const { ref: one } of await ingests(store))
        await store.say("imgfs", "store", "ingests", "--abort", one);
      await isThere(store);
    },
  );

  it("of two at once comes once", async () => {
    const [store, registry] = [await madeStore(), await front(() => ({ piece: 300_000, pause: 20 }))];
    const done = await Promise.all([create(store, registry), create(store, registry, "two")]);
    expect(done).toMatchObject([{ code: 0 }, { code: 0 }]);
    expect(rangesOf(registry)).toEqual([undefined]);
    await isThere(store);
  });

  it("is listed for a store that there is", async () => {
    const store = await madeStore();
    expect(await store.call("imgfs", "store", "ingests")).toMatchObject({ code: 0, stdout: "", stderr: "" });
    expect(await store.call("imgfs", "store", "nonsense")).toMatchObject({ code: 2, stdout: "" });
    await store.say("imgfs", "delete-store");
    expect(await store.call("imgfs", "store", "ingests")).toMatchObject({ code: 10, stdout: "" });
  });
});
