// A stand-in for Garden, written from what Guardian does with its image plugins: the words it calls them by, and how it
// reads what they print. Two stores, one for containers with mapped ids and one for privileged ones.
import { existsSync, readFileSync, statSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { describe, expect, it } from "vitest";
import { cannotMount, isMounted, run, shell, titleOf } from "../e2e/mounted.js";
import { layerTar } from "../e2e/tar-writer.js";
import {
  file,
  folder,
  layoutOf,
  MiB,
  type Name,
  names,
  newStore,
  program,
  type TestStore,
  tarOf,
} from "./kit.js";

/** A key and what its value must be; any other key is refused. */
type Decoder = (value: unknown, at: string) => void;

const fields =
  (known: Readonly<Record<string, Decoder>>): Decoder =>
  (value, at) => {
    if (typeof value !== "object" || value === null || Array.isArray(value))
      throw new Error(`${at}: no object`);
    for (const [key, each] of Object.entries(value)) {
      const decoder = known[key];
      if (decoder === undefined) throw new Error(`${at}: unknown key ${key}`);
      decoder(each, `${at}.${key}`);
    }
  };
const listOf =
  (decoder: Decoder): Decoder =>
  (value, at) => {
    if (!Array.isArray(value)) throw new Error(`${at}: no list`);
    value.forEach((each, i) => {
      decoder(each, `${at}[${i}]`);
    });
  };
const text: Decoder = (value, at) => {
  if (typeof value !== "string") throw new Error(`${at}: no string`);
};
const unsigned: Decoder = (value, at) => {
  if (!Number.isSafeInteger(value) || (value as number) < 0) throw new Error(`${at}: no uint64`);
};

/** runtime-spec's Spec, as far as a plugin fills it. */
const spec = fields({
  ociVersion: text,
  process: fields({ user: fields({ uid: unsigned, gid: unsigned }), env: listOf(text), cwd: text }),
  root: fields({ path: text }),
  mounts: listOf(fields({ destination: text, type: text, source: text, options: listOf(text) })),
});

/** map[string]map[string]uint64 */
function decodeStats(stdout: string): Record<string, Record<string, number>> {
  const value = JSON.parse(stdout) as Record<string, Record<string, number>>;
  for (const [key, below] of Object.entries(value)) {
    if (typeof below !== "object" || below === null) throw new Error(`${key}: no map`);
    for (const [name, each] of Object.entries(below)) unsigned(each, `${key}.${name}`);
  }
  return value;
}

interface DesiredSpec {
  readonly process: { readonly env?: readonly string[] };
  readonly root: { readonly path: string };
}

/** Guardian's image plugin: two commands, each with its own extra arguments. */
class Garden {
  private readonly name: Name;
  private readonly unprivileged: TestStore;
  private readonly privileged: TestStore;

  constructor(name: Name) {
    this.name = name;
    this.unprivileged = newStore();
    this.privileged = newStore();
  }

  private async plugin(store: TestStore, action: string, words: readonly string[]): Promise<string> {
    const { code, stdout, stderr } = await run(program(this.name), ["--store", store.path, ...words]);
    // Every line of stderr is to be one of lager.
    const lines = stderr.split("\n").filter((each) => each !== "");
    if (this.name === "grootfs" || code === 0) for (const line of lines) JSON.parse(line);
    if (code !== 0) throw new Error(`running image plugin ${action}: ${stdout}: exit status ${code}`);
    return stdout;
  }

  async start(only?: "unprivileged"): Promise<void> {
    const maps = ["0:4294967294:1", "1:1:4294967293"].flatMap((map) => [
      "--uid-mapping",
      map,
      "--gid-mapping",
      map,
    ]);
    await this.plugin(this.unprivileged, "init-store", [
      "init-store",
      "--store-size-bytes",
      "1073741824",
      ...maps,
    ]);
    if (only === undefined) await this.plugin(this.privileged, "init-store", ["init-store"]);
  }

  async create(
    handle: string,
    rootfs: string,
    {
      privileged = false,
      quota = 0,
      scope = "total" as "total" | "exclusive",
      username = "",
      password = "",
    } = {},
  ): Promise<DesiredSpec> {
    const limit = quota > 0 ? ["--disk-limit-size-bytes", String(quota)] : [];
    const exclusive = quota > 0 && scope === "exclusive" ? ["--exclude-image-from-quota"] : [];
    const url = rootfs.replace("#", ":");
    const login = [
      ...(username === "" ? [] : ["--username", username]),
      ...(password === "" ? [] : ["--password", password]),
    ];
    const words = ["create", ...limit, ...exclusive, ...login, url, handle];
    const stdout = await this.plugin(privileged ? this.privileged : this.unprivileged, "create", words);
    const value = JSON.parse(stdout) as DesiredSpec;
    spec(value, "spec");
    return value;
  }

  async destroy(handle: string): Promise<void> {
    for (const store of [this.unprivileged, this.privileged])
      await this.plugin(store, "destroy", ["delete", handle]);
  }

  async metrics(handle: string, privileged = false): Promise<{ total: number; exclusive: number }> {
    const store = privileged ? this.privileged : this.unprivileged;
    const { disk_usage: usage } = decodeStats(await this.plugin(store, "metrics", ["stats", handle]));
    return { total: usage?.["total_bytes_used"] ?? 0, exclusive: usage?.["exclusive_bytes_used"] ?? 0 };
  }

  async capacity(): Promise<number> {
    const value = JSON.parse(await this.plugin(this.unprivileged, "capacity", ["capacity"])) as object;
    fields({ capacity: unsigned })(value, "capacity");
    return (value as { readonly capacity: number }).capacity;
  }

  async gc(): Promise<string> {
    return this.plugin(this.unprivileged, "clean", ["clean", "--threshold-bytes", "0"]);
  }
}

describe.skipIf(cannotMount).each(names)(
  titleOf("Garden with %s as its image plugin", cannotMount),
  (name) => {
    it("creates, measures and destroys containers of both kinds", async () => {
      const garden = new Garden(name);
      await garden.start();
      const tar = tarOf(folder("etc/"), file("etc/motd", "hello\n"), file("big", Buffer.alloc(5 * MiB, 1)));
      const { root, process: started } = await garden.create("one", tar, { quota: 50 * MiB });
      expect(started.env).toBeUndefined();
      expect(readFileSync(join(root.path, "etc/motd"), "utf8")).toBe("hello\n");
      // Root of the container is the largest id of the host.
      expect(statSync(join(root.path, "etc/motd"))).toMatchObject({ uid: 4_294_967_294, gid: 4_294_967_294 });
      const before = await garden.metrics("one");
      expect(before.total - before.exclusive).toBe(5 * MiB + "hello\n".length);
      writeFileSync(join(root.path, "written"), Buffer.alloc(4 * MiB));
      const after = await garden.metrics("one");
      expect(after.exclusive - before.exclusive).toBe(4 * MiB);
      expect(after.total - after.exclusive).toBe(before.total - before.exclusive);

      const layout = layoutOf(layerTar([file("one", "1")]), layerTar([file("two", "2")]));
      const two = await garden.create("two", `oci://${layout}#latest`, { privileged: true });
      expect(two.process.env).toEqual(["PATH=/bin"]);
      expect(readFileSync(join(two.root.path, "two"), "utf8")).toBe("2");
      expect((await garden.metrics("two", true)).total).toBeGreaterThanOrEqual(2);

      for (const handle of ["one", "two", "never-there"]) await garden.destroy(handle);
      for (const { path } of [root, two.root]) {
        expect(isMounted(path)).toBe(false);
        expect(existsSync(path)).toBe(false);
      }
      expect(await garden.gc()).toBe("clean completed\n");
      expect(await garden.capacity()).toBeGreaterThan(0);
    });

    it("has a limit that bites, of the whole or of the changes alone", async () => {
      const garden = new Garden(name);
      await garden.start();
      const tar = tarOf(file("big", Buffer.alloc(2 * MiB, 1)));
      const write = (path: string, mebibytes: number): Promise<string> =>
        shell(`dd if=/dev/zero of='${path}/new' bs=1M count=${mebibytes} 2>&1 || :`);
      const total = await garden.create("total", tar, { quota: 4 * MiB });
      expect(await write(total.root.path, 3)).toContain("Disk quota exceeded");
      const exclusive = await garden.create("exclusive", tar, { quota: 4 * MiB, scope: "exclusive" });
      expect(await write(exclusive.root.path, 3)).not.toContain("Disk quota exceeded");
      expect(await write(exclusive.root.path, 5)).toContain("Disk quota exceeded");
      for (const handle of ["total", "exclusive"]) await garden.destroy(handle);
    });

    it("destroys a container in both stores, also where one has never been made", async () => {
      const garden = new Garden(name);
      await garden.start("unprivileged");
      const { root } = await garden.create("only", tarOf(file("f", "1")));
      await garden.destroy("only");
      await garden.destroy("only");
      expect(existsSync(root.path)).toBe(false);
    });

    it("logs in to a registry with the user's own name and password", async () => {
      const garden = new Garden(name);
      await garden.start();
      // Nothing listens there: what counts is that the words are taken, and that the password is not told.
      const failing = garden.create("x", "docker://127.0.0.1:1/a/b#1", {
        username: "ann",
        password: "s3cret",
      });
      const why = await failing.then(
        () => "",
        (cause: Error) => cause.message,
      );
      expect(why).toMatch(/^running image plugin create: /);
      expect(why).not.toContain("s3cret");
      if (name === "grootfs") expect(why).toContain("127.0.0.1:1/a/b: manifest 1: connection refused");
    });

    it("tells its users why a container could not be made", async () => {
      const garden = new Garden(name);
      await garden.start();
      const tar = tarOf(file("big", Buffer.alloc(2 * MiB, 1)));
      const failing = garden.create("small", tar, { quota: MiB });
      // Guardian shows people what came on stdout: as imgfs there is nothing.
      if (name === "imgfs") await expect(failing).rejects.toThrow();
      else {
        await expect(failing).rejects.toThrow(
          `running image plugin create: layers exceed disk quota ${statSync(tar).size}/${MiB} bytes\n: exit status 1`,
        );
      }
    });
  },
);
