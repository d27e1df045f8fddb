// What goes wrong between a registry and us: each fault is got over, or told in one line.
import { createHash } from "node:crypto";
import { truncateSync } from "node:fs";
import { beforeAll, describe, expect, it } from "vitest";
import { RegistryError, type RegistryFailure } from "../../../src/oci/registry/errors.js";
import { noise } from "../../e2e/make-image.js";
import { titleOf } from "../../e2e/mounted.js";
import { gzip, Layout } from "../../fixtures/oci.js";
import { file, tar } from "../../fixtures/tar.js";
import { pull, quick } from "./pull.js";
import { cannotServe, freePort, place, push, type Served, serveRegistry, storedBlob } from "./serve.js";
import { type Asked, type Trouble, troubled } from "./trouble.js";

const inCi = process.env["CI"] !== undefined && process.env["CI"] !== "";
it.runIf(inCi)("registries are tested in CI", () => expect(cannotServe).toBeUndefined());

const size = 3 << 20;
const layers = [tar(file("small", "x".repeat(2000))), tar(file("big", noise(size)))];
const plain = { tlsVerify: false } as const;

let registry: Served;
let made: Layout;
let digests: string[];
let big: string;
let manifest: string;

const isBlob = ({ path }: Asked, digest = big): boolean => path.endsWith(`/blobs/${digest}`);
const isManifest = ({ path }: Asked): boolean => path.includes("/manifests/");

async function failure(pulling: Promise<unknown>): Promise<{ kind: RegistryFailure; message: string }> {
  const cause = await pulling.then(
    () => expect.unreachable("the pull succeeded"),
    (reason: unknown) => reason,
  );
  expect(cause).toBeInstanceOf(RegistryError);
  const { kind, message } = cause as RegistryError;
  expect(message).toMatch(/^[^\n]+$/);
  return { kind, message };
}

describe.skipIf(cannotServe)(titleOf("a registry behind a bad connection", cannotServe), () => {
  beforeAll(async () => {
    registry = await serveRegistry();
    made = new Layout(place("layout"));
    made.tag(made.image(layers, { compress: gzip }), "latest");
    await push(registry.host, "a/b", made);
    digests = layers.map((layer) => `sha256:${createHash("sha256").update(gzip(layer)).digest("hex")}`);
    big = digests[1] as string;
    manifest = made.manifests[0]?.digest as string;
  });

  const through = (trouble: (asked: Asked) => Trouble | undefined) => troubled(registry.host, trouble);

  it("without a fault gives every byte, and retries nothing", async () => {
    const proxy = await through(() => undefined);
    const pulled = await pull(`${proxy.host}/a/b`, plain);
    expect(pulled.layers).toEqual(digests);
    expect(pulled.retries).toEqual([]);
  });

  it("goes on by Range where a body was cut, as often as it makes progress", async () => {
    const proxy = await through((asked) => (isBlob(asked) ? { cutAfter: 400_000 } : undefined));
    const pulled = await pull(`${proxy.host}/a/b`, plain);
    expect(pulled.layers).toEqual(digests);
    const ranges = proxy.asked.filter((asked) => isBlob(asked)).map(({ headers }) => headers.range);
    expect(ranges[0]).toBeUndefined();
    expect(ranges.length).toBeGreaterThan(quick.tries);
    const starts = ranges.slice(1).map((range) => Number(/^bytes=(\d+)-$/.exec(String(range))?.[1]));
    expect(starts).toEqual([...starts].sort((a, b) => a - b));
    expect(starts[0]).toBeGreaterThan(0);
    expect(pulled.retries[0]).toMatch(
      /^127\.0\.0\.1:\d+\/a\/b: the connection was closed at \d+ of \d+ bytes; trying/,
    );
  });

  it("skips what it has where a server does not know Range", async () => {
    const proxy = await through((asked) =>
      isBlob(asked)
        ? { whole: true, ...(asked.before < 2 ? { cutAfter: 1_000_000 * (asked.before + 1) } : {}) }
        : undefined,
    );
    expect((await pull(`${proxy.host}/a/b`, plain)).layers).toEqual(digests);
    expect(proxy.asked.filter((asked) => isBlob(asked))).toHaveLength(3);
  });

  it("leaves a piece as it is for a slow reader, whatever comes meanwhile", async () => {
    for (const trouble of [undefined, { piece: 5000, pause: 0 }, { chunked: true }] as const) {
      const proxy = await through((asked) => (isBlob(asked) ? trouble : undefined));
      expect((await pull(`${proxy.host}/a/b`, plain, undefined, 3)).layers).toEqual(digests);
    }
  });

  it("takes an early end without a length for what it is", async () => {
    const proxy = await through((asked) =>
      isBlob(asked) ? { chunked: true, ...(asked.before === 0 ? { cutAfter: 1_000_000 } : {}) } : undefined,
    );
    const pulled = await pull(`${proxy.host}/a/b`, plain);
    expect(pulled.layers).toEqual(digests);
    expect(pulled.retries).toEqual([
      expect.stringMatching(/: the body was cut at 1000000 of \d+ bytes; trying again/),
    ]);
  });

  it("gives up on a body that is always cut at the same place", async () => {
    const proxy = await through((asked) => (isBlob(asked) ? { whole: true, cutAfter: 100_000 } : undefined));
    expect(await failure(pull(`${proxy.host}/a/b`, plain))).toEqual({
      kind: "unreachable",
      message: expect.stringMatching(/^the connection was closed at 100000 of \d+ bytes$/),
    });
    expect(proxy.asked.filter((asked) => isBlob(asked))).toHaveLength(quick.tries);
  });

  it("does not wait for ever where nothing comes, and minds no slowness", async () => {
    const limits = { ...quick, silence: 2000 };
    const silent = await through((asked) =>
      isBlob(asked) && asked.before === 0 ? { silentAfter: 500_000 } : undefined,
    );
    const pulled = await pull(`${silent.host}/a/b`, { ...plain, limits });
    expect(pulled.layers).toEqual(digests);
    expect(pulled.retries).toEqual([
      expect.stringMatching(/: nothing came for 2 s at \d+ of \d+ bytes; trying/),
    ]);
    // Twice the limit in all, and never so long without a byte.
    const slow = await through((asked) => (isBlob(asked) ? { piece: 300_000, pause: 450 } : undefined));
    expect((await pull(`${slow.host}/a/b`, { ...plain, limits })).retries).toEqual([]);
  });

  it("waits as long as a 429 says, and is told so where that is too long", async () => {
    const limited = (after: string) => (asked: Asked) =>
      isManifest(asked) && asked.before === 0
        ? { status: 429, headers: { "retry-after": after } }
        : undefined;
    const start = performance.now();
    const pulled = await pull(`${(await through(limited("1"))).host}/a/b`, plain);
    expect(pulled.layers).toEqual(digests);
    expect(pulled.retries).toEqual([expect.stringMatching(/: status 429; trying again in 1\.0 s$/)]);
    // Not a measure of speed: it must not come back earlier than it was asked to.
    expect(performance.now() - start).toBeGreaterThan(990);
    const soon = new Date(Date.now() + 1500).toUTCString();
    expect((await pull(`${(await through(limited(soon))).host}/a/b`, plain)).retries).toHaveLength(1);
    const long = await through(limited("3600"));
    expect(await failure(pull(`${long.host}/a/b`, plain))).toEqual({
      kind: "limited",
      message: `${long.host}/a/b: manifest latest: too many requests, it says, to wait 3600 s`,
    });
    expect(long.asked.filter(isManifest)).toHaveLength(1);
  });

  it.each([500, 502, 503, 504, 408])("tries again after %i", async (status) => {
    const proxy = await through((asked) =>
      asked.before < 2 ? { status, body: "<html>trouble</html>" } : undefined,
    );
    expect((await pull(`${proxy.host}/a/b`, plain)).layers).toEqual(digests);
  });

  it("says what the server says where it always fails", async () => {
    const body = JSON.stringify({ errors: [{ code: "UNAVAILABLE", message: "disk\n\u001b[31mfull" }] });
    const proxy = await through((asked) => (isManifest(asked) ? { status: 503, body } : undefined));
    expect(await failure(pull(`${proxy.host}/a/b`, plain))).toEqual({
      kind: "unreachable",
      message: `${proxy.host}/a/b: manifest latest: status 503 (UNAVAILABLE: disk [31mfull)`,
    });
    expect(proxy.asked.filter(isManifest)).toHaveLength(quick.tries);
  });

  it("tries again where a connection ends without an answer, or none can be made", async () => {
    const proxy = await through((asked) => (asked.before === 0 ? { hangUp: true } : undefined));
    expect((await pull(`${proxy.host}/a/b`, plain)).layers).toEqual(digests);
    const port = await freePort();
    const nobody = await failure(pull(`127.0.0.1:${port}/a/b`, plain));
    expect(nobody).toEqual({
      kind: "unreachable",
      message: `127.0.0.1:${port}/a/b: manifest latest: connection refused`,
    });
  });

  it("stops at once when it is told to, in the middle of a wait", async () => {
    const proxy = await through((asked) => (isManifest(asked) ? { status: 503 } : undefined));
    const limits = { ...quick, delay: 60_000 };
    const { openSource } = await import("../../../src/oci/open.js");
    const abort = new AbortController();
    const opening = openSource(`docker://${proxy.host}/a/b`, {
      registry: { ...plain, limits, onRetry: () => abort.abort(new Error("enough")) },
      signal: abort.signal,
    });
    await expect(opening).rejects.toThrow("enough");
  });

  it("refuses a manifest or config of other bytes, by tag and by digest", async () => {
    const change = (bytes: Buffer): Buffer =>
      Buffer.from(bytes.toString().replace(/"schemaVersion":2/, '"schemaVersion": 2'));
    const proxy = await through((asked) => (isManifest(asked) ? { change } : undefined));
    for (const reference of [":latest", `@${manifest}`]) {
      expect(await failure(pull(`${proxy.host}/a/b${reference}`, plain))).toEqual({
        kind: "damaged",
        message: expect.stringMatching(
          /a\/b: manifest [^ ]+: digest mismatch: the bytes are sha256:[0-9a-f]{64}$/,
        ),
      });
    }
    const config = await through((asked) =>
      /\/blobs\//.test(asked.path) && !digests.some((digest) => isBlob(asked, digest))
        ? { change: (bytes) => Buffer.from(bytes.toString().replace("linux", "linuz")) }
        : undefined,
    );
    expect((await failure(pull(`${config.host}/a/b`, plain))).message).toMatch(
      /a\/b: config sha256:[0-9a-f]{64}: digest mismatch/,
    );
  });

  it("gives layers of the length that the manifest says, or an error", async () => {
    const short = await through((asked) =>
      isBlob(asked) ? { change: (bytes) => bytes.subarray(0, 1000) } : undefined,
    );
    expect(await failure(pull(`${short.host}/a/b`, plain))).toEqual({
      kind: "damaged",
      message: expect.stringMatching(/^size mismatch: it has 1000 bytes, the manifest says \d+$/),
    });
    const long = await through((asked) =>
      isBlob(asked) ? { change: (bytes) => Buffer.concat([bytes, bytes]), headers: {} } : undefined,
    );
    expect((await failure(pull(`${long.host}/a/b`, plain))).message).toMatch(/^size mismatch/);
    const range = await through((asked) =>
      isBlob(asked)
        ? asked.before === 0
          ? { cutAfter: 1_000_000 }
          : { change: (bytes) => bytes, headers: { "content-range": `bytes 5-10/${size}` } }
        : undefined,
    );
    expect((await failure(pull(`${range.host}/a/b`, plain))).message).toBe(
      "it answers with another range than was asked for",
    );
  });

  it("that lost a part of a blob says what is missing", async () => {
    const other = await serveRegistry({ storage: "damaged" });
    await push(other.host, "a/b", made);
    truncateSync(storedBlob(big, "damaged"), 5000);
    expect((await failure(pull(`${other.host}/a/b`, plain))).message).toMatch(
      /^size mismatch: it has 5000 bytes/,
    );
  });

  it("follows redirects to another host, without the login and with a signed query", async () => {
    const seen: Asked[] = [];
    const cdn = await troubled(registry.host, (asked) => {
      seen.push(asked);
      return undefined;
    });
    const proxy = await through((asked) =>
      isBlob(asked)
        ? { status: 307, headers: { location: `http://${cdn.host}${asked.path}?X-Signature=secret` } }
        : undefined,
    );
    expect((await pull(`${proxy.host}/a/b`, plain)).layers).toEqual(digests);
    expect(seen.map(({ path }) => path)).toEqual([`/v2/a/b/blobs/${big}?X-Signature=secret`]);
    expect(seen[0]?.headers.authorization).toBeUndefined();
  });

  it("goes round in no circle of redirects, and to no other protocol", async () => {
    const circle = await through((asked) =>
      isBlob(asked) ? { status: 302, headers: { location: asked.path } } : undefined,
    );
    expect((await failure(pull(`${circle.host}/a/b`, plain))).message).toBe("more than 10 redirects");
    const file = await through((asked) =>
      isBlob(asked) ? { status: 302, headers: { location: "file:///etc/passwd" } } : undefined,
    );
    expect((await failure(pull(`${file.host}/a/b`, plain))).message).toMatch(
      /redirects to "file:", which is not followed/,
    );
  });

  it("tells absent, unauthorised, denied and strange answers apart", async () => {
    expect(await failure(pull(`${registry.host}/no/such`, plain))).toEqual({
      kind: "absent",
      message: `${registry.host}/no/such: manifest latest: not found (MANIFEST_UNKNOWN: manifest unknown)`,
    });
    const cases: [number, RegistryFailure, RegExp][] = [
      [401, "unauthorized", /manifest latest: it does not exist, or needs a login$/],
      [403, "denied", /manifest latest: access is denied$/],
      [404, "absent", /manifest latest: not found$/],
      [400, "damaged", /manifest latest: status 400$/],
      [204, "damaged", /manifest latest: status 204$/],
    ];
    for (const [status, kind, message] of cases) {
      const proxy = await through((asked) => (isManifest(asked) ? { status } : undefined));
      expect(await failure(pull(`${proxy.host}/a/b`, plain))).toEqual({
        kind,
        message: expect.stringMatching(message),
      });
    }
    const endless = await through((asked) =>
      isManifest(asked) ? { change: () => Buffer.alloc(5 << 20, 0x20) } : undefined,
    );
    expect((await failure(pull(`${endless.host}/a/b`, plain))).message).toMatch(/more than 4194304 bytes$/);
  });

  it("speaks plain HTTP only where it may", async () => {
    expect(await failure(pull(`${registry.host}/a/b`))).toEqual({
      kind: "insecure",
      message: `${registry.host}/a/b: manifest latest: ${registry.host} does not speak TLS`,
    });
  });
});
