// What goes wrong with a registry while create fetches: it is got over, or told in one line, and nothing is left.
import { readdirSync, readFileSync, truncateSync } from "node:fs";
import { join } from "node:path";
import { beforeAll, describe, expect, it } from "vitest";
import { noise } from "../e2e/make-image.js";
import { cannotMount, type Outcome, scratch, titleOf } from "../e2e/mounted.js";
import { digest, gzip, Layout } from "../fixtures/oci.js";
import { file, tar } from "../fixtures/tar.js";
import { cannotServe, freePort, push, serveRegistry, storedBlob } from "../oci/registry/serve.js";
import { type Asked, type Trouble, type Troubled, troubled } from "../oci/registry/trouble.js";
import { madeStore, names, type TestStore, told } from "./kit.js";

const missing = cannotMount ?? cannotServe;
const inCi = process.env["CI"] !== undefined && process.env["CI"] !== "";
it.runIf(inCi)("the store is tested with registries in trouble in CI", () => expect(missing).toBeUndefined());

const big = noise(1 << 20);
const layers = [tar(file("small", "x".repeat(2000))), tar(file("big", big))];
const blobs = layers.map((layer) => gzip(layer));
const [, blob = Buffer.of()] = blobs;
const blobDigest = digest(blob);
const isBlob = ({ path }: Asked): boolean => path.endsWith(`/blobs/${blobDigest}`);
const isManifest = ({ path }: Asked): boolean => path.includes("/manifests/");
const hex = (text: string): string => text.replace("sha256:", "");

describe.skipIf(missing).each(names)(titleOf("create from a registry in trouble, as %s", missing), (name) => {
  let registry: string;
  let made: Layout;

  beforeAll(async () => {
    registry = (await serveRegistry()).host;
    made = new Layout(scratch("layout"));
    made.tag(made.image(layers, { compress: gzip }), "1");
    await push(registry, "a/b", made);
  });

  const through = (trouble: (asked: Asked) => Trouble | undefined): Promise<Troubled> =>
    troubled(registry, trouble);
  const create = (store: TestStore, host: string): Promise<Outcome> =>
    store.call(name, "create", "--insecure-registry", host, `docker://${host}/a/b:1`, "x");
  const spec = (store: TestStore): string =>
    `{"ociVersion":"","process":{"user":{"uid":0,"gid":0},"cwd":""},"root":{"path":"${store.image("x", "rootfs")}"}}\n`;

  /** It is made, and says `lines` while it is: as grootfs they are in the log, where nobody asked for one. */
  async function succeeds(host: string, ...lines: readonly (string | RegExp)[]): Promise<void> {
    const store = await madeStore();
    const { code, stdout, stderr } = await create(store, host);
    expect({ code, stderr: name === "grootfs" ? stderr : "" }).toEqual({ code: 0, stderr: "" });
    expect(stdout).toMatch(
      new RegExp(`^\\{"ociVersion":"",.*"root":\\{"path":"${store.image("x", "rootfs")}"\\}\\}\\n$`),
    );
    if (name === "imgfs") {
      const said = stderr.split("\n").slice(0, -1);
      expect(said).toEqual(
        lines.map((line) => (typeof line === "string" ? line : expect.stringMatching(line))),
      );
    }
    expect(readFileSync(store.image("x", "rootfs/big")).equals(big)).toBe(true);
    await store.say(name, "delete", "x");
  }

  /** It fails with GrootFS's text, or with ours on the last line of stderr; no image is left and nothing unfinished. */
  async function fails(host: string, groot: string, ours: string): Promise<void> {
    const store = await madeStore();
    const outcome = await create(store, host);
    if (name === "grootfs") expect(outcome).toMatchObject(told(name, groot, 1));
    else {
      expect(outcome).toMatchObject({ code: 1, stdout: "" });
      expect(outcome.stderr.split("\n").at(-2)).toBe(`imgfs: ${ours}`);
    }
    expect(await store.say(name, "list")).toBe("Store empty\n");
    expect(readdirSync(join(store.path, "images"))).toEqual([]);
    expect(readdirSync(join(store.path, "content")).filter((each) => /new|tmp/.test(each))).toEqual([]);
    expect(await store.say("imgfs", "list")).toBe("Store empty\n");
  }

  it("goes on by Range where the connection is cut", async () => {
    const proxy = await through((asked) =>
      isBlob(asked) && asked.before < 2 ? { cutAfter: 300_000 } : undefined,
    );
    await succeeds(
      proxy.host,
      /: the connection was closed at \d+ of \d+ bytes; trying again/,
      /trying again/,
    );
    const ranges = proxy.asked.filter(isBlob).map(({ headers }) => headers.range);
    expect(ranges[0]).toBeUndefined();
    expect(ranges.length).toBe(3);
    for (const range of ranges.slice(1)) expect(range).toMatch(/^bytes=[1-9]\d*-$/);
  });

  it("gives up on a connection that is always cut at the same place", async () => {
    const proxy = await through((asked) => (isBlob(asked) ? { whole: true, cutAfter: 100_000 } : undefined));
    const why = `${proxy.host}/a/b: layer 2 (${blobDigest}): the connection was closed at 100000 of ${blob.length} bytes`;
    await fails(proxy.host, why, `create docker://${proxy.host}/a/b:1: ${why}`);
  });

  it("minds no slow server", async () => {
    const proxy = await through((asked) => (isBlob(asked) ? { piece: 300_000, pause: 300 } : undefined));
    await succeeds(proxy.host);
  });

  it("waits as long as a 429 says, and does not where that is too long", async () => {
    const limited = (after: string) => (asked: Asked) =>
      isBlob(asked) && asked.before === 0 ? { status: 429, headers: { "retry-after": after } } : undefined;
    const soon = await through(limited("1"));
    await succeeds(soon.host, `imgfs: ${soon.host}/a/b: status 429; trying again in 1.0 s`);
    expect(soon.asked.filter(isBlob)).toHaveLength(2);
    const long = await through((asked) =>
      isManifest(asked) ? { status: 429, headers: { "retry-after": "3600" } } : undefined,
    );
    const why = `${long.host}/a/b: manifest 1: too many requests, it says, to wait 3600 s`;
    await fails(long.host, why, `create docker://${long.host}/a/b:1: ${why}`);
  });

  it("tries three times and more where the server has trouble", async () => {
    const proxy = await through((asked) =>
      isManifest(asked) && asked.before < 3 ? { status: 503 } : undefined,
    );
    await succeeds(proxy.host, /status 503; trying again/, /status 503/, /status 503/);
  });

  it("names an image that is not there, and a server that is not", async () => {
    const store = await madeStore();
    const url = `docker://${registry}/a/none:1`;
    const outcome = await store.call(name, "create", "--insecure-registry", registry, url, "x");
    expect(outcome).toMatchObject(
      name === "grootfs"
        ? told(name, `${url} does not exist or you do not have permissions to see it.`, 1)
        : {
            code: 10,
            stdout: "",
            stderr: `imgfs: create ${url}: ${registry}/a/none: manifest 1: not found (MANIFEST_UNKNOWN: manifest unknown)\n`,
          },
    );
    const nobody = `127.0.0.1:${await freePort()}`;
    const why = `${nobody}/a/b: manifest 1: connection refused`;
    await fails(nobody, why, `create docker://${nobody}/a/b:1: ${why}`);
  });

  it("refuses a layer of other bytes", async () => {
    const change = (bytes: Buffer): Buffer => {
      // The time in the header of gzip: what is packed stays whole.
      bytes[4] = (bytes[4] as number) ^ 1;
      return bytes;
    };
    const proxy = await through((asked) => (isBlob(asked) ? { change } : undefined));
    const actual = digest(change(Buffer.from(blob)));
    await fails(
      proxy.host,
      `layerID digest mismatch: expected: ${hex(blobDigest)}, actual: ${hex(actual)}`,
      `create: ${proxy.host}/a/b: layer 2 (${blobDigest}): digest mismatch: the bytes are ${actual}, expected ${blobDigest}`,
    );
  });

  it("refuses a manifest of other bytes", async () => {
    const change = (bytes: Buffer): Buffer => Buffer.concat([bytes, Buffer.from(" ")]);
    const proxy = await through((asked) => (isManifest(asked) ? { change } : undefined));
    const [{ digest: manifest } = { digest: "" }] = made.manifests;
    const actual = digest(change(readFileSync(made.path(manifest))));
    const why = `${proxy.host}/a/b: manifest 1: digest mismatch: the bytes are ${actual}`;
    await fails(proxy.host, why, `create docker://${proxy.host}/a/b:1: ${why}`);
  });

  it("refuses a layer that unpacks to other bytes than its config says", async () => {
    const other = new Layout(scratch("layout"));
    const wrong = digest(Buffer.from("other bytes"));
    const config = (of: Record<string, unknown>): void => {
      of["rootfs"] = { type: "layers", diff_ids: [wrong] };
    };
    const [layer = Buffer.of()] = layers;
    other.tag(other.image([layer], { compress: gzip, config }), "1");
    await push(registry, "a/wrong", other);
    const store = await madeStore();
    const url = `docker://${registry}/a/wrong:1`;
    const outcome = await store.call(name, "create", "--insecure-registry", registry, url, "x");
    const actual = digest(layer);
    expect(outcome).toMatchObject(
      told(
        name,
        name === "grootfs"
          ? `diffID digest mismatch: expected: ${hex(wrong)}, actual: ${hex(actual)}`
          : `create: ${registry}/a/wrong: layer 1 (${digest(gzip(layer))}): diffID mismatch: the uncompressed bytes are ${actual}, expected ${wrong}`,
        1,
      ),
    );
    expect(await store.say(name, "list")).toBe("Store empty\n");
  });

  it("refuses a layer that is shorter or longer than its manifest says", async () => {
    for (const [change, length] of [
      [(bytes: Buffer) => bytes.subarray(0, 5000), 5000],
      [(bytes: Buffer) => Buffer.concat([bytes, Buffer.from("more")]), blob.length + 4],
    ] as const) {
      const proxy = await through((asked) => (isBlob(asked) ? { change } : undefined));
      const why = `${proxy.host}/a/b: layer 2 (${blobDigest}): size mismatch: it has ${length} bytes, the manifest says ${blob.length}`;
      await fails(
        proxy.host,
        `layer size is different from the value in the manifest; expected: ${blob.length}, actual ${length}`,
        `create docker://${proxy.host}/a/b:1: ${why}`,
      );
    }
  });

  it("refuses a layer of which the registry has lost a part", async () => {
    const storage = `damaged-${name}`;
    const { host } = await serveRegistry({ storage });
    await push(host, "a/b", made);
    truncateSync(storedBlob(blobDigest, storage), 5000);
    await fails(
      host,
      `layer size is different from the value in the manifest; expected: ${blob.length}, actual 5000`,
      `create docker://${host}/a/b:1: ${host}/a/b: layer 2 (${blobDigest}): size mismatch: it has 5000 bytes, the manifest says ${blob.length}`,
    );
  });

  it("leaves what came, so that the next create fetches the rest alone", async () => {
    const store = await madeStore();
    let isBroken = true;
    const proxy = await through((asked) =>
      isBroken && isBlob(asked) ? (asked.before === 0 ? { cutAfter: 500_000 } : { status: 403 }) : undefined,
    );
    expect((await create(store, proxy.host)).code).not.toBe(0);
    isBroken = false;
    const before = proxy.asked.filter(isBlob).length;
    expect(await create(store, proxy.host)).toMatchObject({ code: 0, stdout: spec(store), stderr: "" });
    const ranges = proxy.asked.filter(isBlob).slice(before);
    expect(ranges).toHaveLength(1);
    expect(ranges[0]?.headers.range).toMatch(/^bytes=[1-9]\d*-$/);
    expect(readFileSync(store.image("x", "rootfs/big")).equals(big)).toBe(true);
  });
});
