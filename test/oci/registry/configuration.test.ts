// registries.conf and the proxies of the environment: what they say, and pulls that go by them.
import { mkdirSync, readFileSync, writeFileSync } from "node:fs";
import { createServer } from "node:http";
import { createServer as createTlsServer } from "node:https";
import { type AddressInfo, connect } from "node:net";
import { dirname, join } from "node:path";
import { beforeAll, describe, expect, it } from "vitest";
import { RegistryError } from "../../../src/oci/registry/errors.js";
import { parseImageName } from "../../../src/oci/registry/name.js";
import { proxyFor } from "../../../src/oci/registry/proxy.js";
import { pullSources, readRegistries } from "../../../src/oci/registry/registries-conf.js";
import { titleOf } from "../../e2e/mounted.js";
import { digest, gzip, Layout } from "../../fixtures/oci.js";
import { file, tar } from "../../fixtures/tar.js";
import { environment, pull } from "./pull.js";
import {
  type Certificates,
  cannotServe,
  closeLater,
  freePort,
  makeCertificates,
  place,
  push,
  serveRegistry,
} from "./serve.js";
import { troubled } from "./trouble.js";

let serial = 0;

function conf(text: string): NodeJS.ProcessEnv {
  const path = place(`registries-${serial++}.conf`);
  writeFileSync(path, text);
  return environment({ CONTAINERS_REGISTRIES_CONF: path });
}

async function sources(name: string, env: NodeJS.ProcessEnv): Promise<string[]> {
  return pullSources(parseImageName(name), await readRegistries(env)).map(
    ({ registry, repository, isInsecure, isMirror }) =>
      `${registry}/${repository}${isInsecure ? " insecure" : ""}${isMirror ? " mirror" : ""}`,
  );
}

const aDigest = `sha256:${"a".repeat(64)}`;

describe("registries.conf", () => {
  const env = conf(`
    unqualified-search-registries = ["docker.io"]
    [aliases]
    "debian" = "docker.io/library/debian"

    [[registry]]
    location = "docker.io"
    [[registry.mirror]]
    location = "mirror.lan:5000/hub"
    insecure = true
    [[registry.mirror]]
    location = "cache.lan"

    [[registry]]
    prefix = "docker.io/library/ubuntu"
    location = "ubuntu.lan/copies/ubuntu"

    [[registry]]
    prefix = "example.com/foo"
    location = "internal.example.net/bar"
    mirror-by-digest-only = true
    [[registry.mirror]]
    location = "digests.lan/foo"

    [[registry]]
    prefix = "*.corp.lan"
    insecure = true

    [[registry]]
    prefix = "sometimes.lan"
    [[registry.mirror]]
    location = "tags.lan"
    pull-from-mirror = "tag-only"
    [[registry.mirror]]
    location = "digests.lan"
    pull-from-mirror = "digest-only"

    [[registry]]
    prefix = "pinned.lan/a/b:old"
    location = "museum.lan/a/b:old"

    [[registry]]
    location = "bad.lan/"
    blocked = true
  `);

  it.each([
    [
      "debian",
      [
        "mirror.lan:5000/hub/library/debian insecure mirror",
        "cache.lan/library/debian mirror",
        "docker.io/library/debian",
      ],
    ],
    ["ubuntu:24.04", ["ubuntu.lan/copies/ubuntu"]],
    [
      "docker.io/library/ubuntux",
      [
        "mirror.lan:5000/hub/library/ubuntux insecure mirror",
        "cache.lan/library/ubuntux mirror",
        "docker.io/library/ubuntux",
      ],
    ],
    ["example.com/foo/image", ["internal.example.net/bar/image"]],
    [`example.com/foo/image@${aDigest}`, ["digests.lan/foo/image mirror", "internal.example.net/bar/image"]],
    ["example.com/food", ["example.com/food"]],
    ["a.corp.lan/x", ["a.corp.lan/x insecure"]],
    ["a.b.corp.lan:5000/x", ["a.b.corp.lan:5000/x insecure"]],
    ["corp.lan/x", ["corp.lan/x"]],
    ["sometimes.lan/x", ["tags.lan/x mirror", "sometimes.lan/x"]],
    [`sometimes.lan/x@${aDigest}`, ["digests.lan/x mirror", "sometimes.lan/x"]],
    ["pinned.lan/a/b:old", ["museum.lan/a/b"]],
    ["pinned.lan/a/b:new", ["pinned.lan/a/b"]],
    ["other.io/a", ["other.io/a"]],
  ])("%s is asked for at its places", async (name, expected) => {
    expect(await sources(name, env)).toEqual(expected);
  });

  it("forbids what is blocked, and names the file", async () => {
    await expect(sources("bad.lan/a/b", env)).rejects.toThrow(
      new RegistryError("blocked", `bad.lan/a/b: bad.lan is blocked by ${env["CONTAINERS_REGISTRIES_CONF"]}`),
    );
    await expect(pull("bad.lan/a/b", { environment: env })).rejects.toMatchObject({ kind: "blocked" });
  });

  it("is the user's, with drop-ins, the last of which counts for a prefix", async () => {
    const home = place(`home-conf-${serial++}`);
    const files = {
      "registries.conf":
        '[[registry]]\nlocation = "one.lan"\ninsecure = true\n[[registry]]\nlocation = "two.lan"\ninsecure = true\n',
      "registries.conf.d/10-first.conf": '[[registry]]\nlocation = "one.lan"\n',
      "registries.conf.d/20-second.conf": '[[registry]]\nprefix = "one.lan"\nlocation = "moved.lan"\n',
      "registries.conf.d/readme.txt": "not = [toml",
    };
    for (const [name, text] of Object.entries(files)) {
      const path = join(home, ".config/containers", name);
      mkdirSync(dirname(path), { recursive: true });
      writeFileSync(path, text);
    }
    const user: NodeJS.ProcessEnv = { HOME: home };
    expect(await sources("one.lan/a", user)).toEqual(["moved.lan/a"]);
    expect(await sources("two.lan/a", user)).toEqual(["two.lan/a insecure"]);
  });

  it.each([
    ["[[registry]", /not valid TOML/],
    ["[[registry]]\nlocation = 5", /registry\.0\.location: invalid type/],
    ["[[registry]]\ninsecure = true", /registry\[0\]: it has neither prefix nor location$/],
    ['[[registry]]\nlocation = "https://h.io"', /registry\[0\]\.location: "https:\/\/h\.io" is not HOST/],
    [
      '[[registry]]\nprefix = "*.a.io"\nlocation = "b.io"',
      /a prefix with a wildcard cannot have a location$/,
    ],
    [
      '[[registry]]\nlocation = "a.io"\n[[registry.mirror]]\nlocation = ""',
      /registry\[0\]\.mirror\[0\]: a mirror of nothing/,
    ],
    ['[registries.insecure]\nregistries = ["a.io"]', /version 1 of the format is not supported/],
  ])("that is wrong is refused by its name: %s", async (text, message) => {
    const wrong = conf(text);
    const cause = await readRegistries(wrong).catch((reason: unknown) => reason as RegistryError);
    expect(cause).toMatchObject({ kind: "configuration", message: expect.stringMatching(message) });
    expect((cause as RegistryError).message.startsWith(`${wrong["CONTAINERS_REGISTRIES_CONF"]}: `)).toBe(
      true,
    );
    expect((cause as RegistryError).message).not.toContain("\n");
  });

  it("that is named and not there is an error, otherwise it is nothing", async () => {
    await expect(readRegistries({ CONTAINERS_REGISTRIES_CONF: place("none") })).rejects.toThrow(
      /no such file/i,
    );
    expect((await readRegistries({ HOME: place("nobody") })).size).toBeGreaterThanOrEqual(0);
  });
});

describe("a proxy from the environment", () => {
  const env = {
    HTTP_PROXY: "proxy.lan:3128",
    HTTPS_PROXY: "http://user:pw@proxy.lan:3129",
    NO_PROXY: "direct.lan, .below.lan,10.0.0.0/8 192.168.1.1,ported.lan:5000,[fd00::1],fd01::/16",
  };
  it.each([
    ["http://h.io/", "http://proxy.lan:3128/"],
    ["https://h.io/", "http://user:pw@proxy.lan:3129/"],
    ["https://direct.lan/", undefined],
    ["https://a.direct.lan/", undefined],
    ["https://notdirect.lan/", "http://user:pw@proxy.lan:3129/"],
    ["https://below.lan/", "http://user:pw@proxy.lan:3129/"],
    ["https://a.below.lan/", undefined],
    ["https://10.1.2.3:5000/", undefined],
    ["https://11.1.2.3/", "http://user:pw@proxy.lan:3129/"],
    ["https://192.168.1.1/", undefined],
    ["https://ported.lan:5000/", undefined],
    ["https://ported.lan/", "http://user:pw@proxy.lan:3129/"],
    ["https://[fd00::1]/", undefined],
    ["https://[fd01::5]:1/", undefined],
    ["https://[fd02::5]:1/", "http://user:pw@proxy.lan:3129/"],
    ["http://localhost:5000/", undefined],
    ["http://127.0.0.1:5000/", undefined],
    ["http://[::1]:5000/", undefined],
  ])("%s goes by %s", (url, expected) => {
    expect(proxyFor(new URL(url), env)?.href).toBe(expected);
  });

  it("is in lower case, too; * is all; and what is no URL is not quoted", () => {
    const url = new URL("https://h.io/");
    expect(proxyFor(url, { https_proxy: "https://p.lan" })?.href).toBe("https://p.lan/");
    expect(proxyFor(url, { https_proxy: "p.lan", no_proxy: "*" })).toBeUndefined();
    expect(proxyFor(url, { HTTP_PROXY: "p.lan" })).toBeUndefined();
    expect(() => proxyFor(url, { HTTPS_PROXY: "ftp://user:s3cret@p.lan" })).toThrow(
      /^HTTPS_PROXY: not the URL of a proxy$/,
    );
  });
});

describe.skipIf(cannotServe)(titleOf("pulls as configured", cannotServe), () => {
  const layers = [tar(file("a", "a".repeat(300_000)))];
  const digests = layers.map((layer) => digest(gzip(layer)));
  let host: string;
  let certificates: Certificates;
  let nobody: string;

  beforeAll(async () => {
    ({ host } = await serveRegistry());
    const made = new Layout(place("layout"));
    made.tag(made.image(layers, { compress: gzip }), "latest");
    await push(host, "a/b", made);
    await push(host, "hub/library/debian", made);
    certificates = await makeCertificates();
    nobody = `127.0.0.1:${await freePort()}`;
  });

  it("take the first mirror that has the image, and the place itself at last", async () => {
    const mirrored = conf(`
      [[registry]]
      location = "docker.io"
      [[registry.mirror]]
      location = "${nobody}"
      [[registry.mirror]]
      location = "${host}/empty"
      insecure = true
      [[registry.mirror]]
      location = "${host}/hub"
      insecure = true`);
    const pulled = await pull("debian", { environment: mirrored });
    expect(pulled.layers).toEqual(digests);
    expect(pulled.place).toBe(`${host}/hub/library/debian`);
    expect(pulled.retries).toEqual([expect.stringContaining(`${nobody}/library/debian: connection refused`)]);

    const moved = conf(`
      [[registry]]
      prefix = "logical.lan/x"
      location = "${host}/a"
      insecure = true
      [[registry.mirror]]
      location = "${nobody}"`);
    expect((await pull("logical.lan/x/b", { environment: moved })).layers).toEqual(digests);
  });

  it("go on where a mirror lacks a layer", async () => {
    const holes = await troubled(host, ({ path }) =>
      path.endsWith(`/blobs/${digests[0]}`) ? { status: 404 } : undefined,
    );
    const env = conf(`
      [[registry]]
      location = "${host}"
      insecure = true
      [[registry.mirror]]
      location = "${holes.host}"
      insecure = true`);
    const pulled = await pull(`${host}/a/b`, { environment: env });
    expect(pulled.layers).toEqual(digests);
    expect(pulled.place).toBe(`${holes.host}/a/b`);
  });

  it("say what each place has said where none has it", async () => {
    const env = conf(`
      [[registry]]
      location = "${host}"
      insecure = true
      [[registry.mirror]]
      location = "${nobody}"`);
    await expect(pull(`${host}/no/such`, { environment: env })).rejects.toMatchObject({
      kind: "absent",
      message: `${nobody}/no/such: manifest latest: connection refused; ${host}/no/such: manifest latest: not found (MANIFEST_UNKNOWN: manifest unknown)`,
    });
  });

  it("go through the proxy: a tunnel for TLS, with its login, and plain for plain HTTP", async () => {
    const secure = (await serveRegistry({ http: certificates.tls })).host;
    const seen: string[] = [];
    const proxy = createServer((incoming, outgoing) => {
      seen.push(`${incoming.method} ${incoming.url} ${incoming.headers["proxy-authorization"]}`);
      outgoing.writeHead(503).end();
    });
    proxy.on("connect", (incoming, socket, head) => {
      seen.push(`CONNECT ${incoming.url} ${incoming.headers["proxy-authorization"]}`);
      // The name is known to the proxy alone.
      const port = Number(secure.split(":")[1]);
      const behind = connect(port, "127.0.0.1", () => {
        socket.write("HTTP/1.1 200 OK\r\n\r\n");
        behind.write(head);
        behind.pipe(socket);
        socket.pipe(behind);
      });
      behind.on("error", () => socket.destroy());
      socket.on("error", () => behind.destroy());
    });
    proxy.listen(0, "127.0.0.1");
    await new Promise((listening) => proxy.once("listening", listening));
    closeLater(() => {
      proxy.closeAllConnections();
      return new Promise((closed) => proxy.close(closed));
    });
    const url = `http://user:pw@127.0.0.1:${(proxy.address() as AddressInfo).port}`;
    const env = environment({ HTTPS_PROXY: url, HTTP_PROXY: url });
    const login = `Basic ${Buffer.from("user:pw").toString("base64")}`;
    expect((await pull("registry.invalid:5000/a/b", { environment: env, tlsVerify: false })).layers).toEqual(
      digests,
    );
    expect(new Set(seen)).toEqual(new Set([`CONNECT registry.invalid:5000 ${login}`]));

    const key = readFileSync(certificates.key);
    const byTls = createTlsServer({ key, cert: readFileSync(certificates.cert) });
    byTls.on("connect", (...given) => proxy.emit("connect", ...given));
    byTls.listen(0, "127.0.0.1");
    await new Promise((listening) => byTls.once("listening", listening));
    closeLater(() => {
      byTls.closeAllConnections();
      return new Promise((closed) => byTls.close(closed));
    });
    const trusted = environment({
      HTTPS_PROXY: `https://localhost:${(byTls.address() as AddressInfo).port}`,
      SSL_CERT_FILE: `${certificates.caFolder}/ca.crt`,
    });
    seen.length = 0;
    const through = await pull("registry.invalid:5000/a/b", { environment: trusted, tlsVerify: false });
    expect(through.layers).toEqual(digests);
    expect(new Set(seen)).toEqual(new Set(["CONNECT registry.invalid:5000 undefined"]));

    seen.length = 0;
    proxy.removeAllListeners("connect");
    proxy.on("connect", (_, socket) => socket.end("HTTP/1.1 403 Forbidden\r\n\r\n"));
    await expect(
      pull("registry.invalid:5000/a/b", { environment: env, tlsVerify: false }),
    ).rejects.toMatchObject({
      kind: "unreachable",
    });
    expect(seen).toContain(`GET http://registry.invalid:5000/v2/ ${login}`);
  });
});

describe.skipIf(cannotServe)(titleOf("what is chosen", cannotServe), () => {
  it("is the image of the platform, of an index of either kind, by tag or digest", async () => {
    const { host } = await serveRegistry({ storage: "platforms" });
    const made = new Layout(place("platforms-layout"));
    const of = (architecture: string, text: string) => {
      const layer = tar(file("arch", text));
      const image = made.image([layer], { architecture, compress: gzip });
      return { layer, image: { ...image, platform: { os: "linux", architecture } } };
    };
    const [one, two] = [of("amd64", "1"), of("s390x", "2")] as const;
    const index = made.index([one.image, two.image]);
    made.tag(index, "oci");
    const list = made.blob(
      Buffer.from(
        JSON.stringify({
          schemaVersion: 2,
          mediaType: "application/vnd.docker.distribution.manifest.list.v2+json",
          manifests: [two.image, one.image],
        }),
      ),
      "application/vnd.docker.distribution.manifest.list.v2+json",
    );
    made.tag(list, "docker");
    const docker = made.image([one.layer], {
      architecture: "amd64",
      compress: gzip,
      mediaType: "application/vnd.docker.image.rootfs.diff.tar.gzip",
      manifest: (manifest) => {
        manifest["mediaType"] = "application/vnd.docker.distribution.manifest.v2+json";
        Object.assign(manifest["config"] as object, {
          mediaType: "application/vnd.docker.container.image.v1+json",
        });
      },
    });
    made.tag({ ...docker, mediaType: "application/vnd.docker.distribution.manifest.v2+json" }, "schema2");
    await push(host, "multi", made);
    const plain = { tlsVerify: false };
    for (const reference of [":oci", ":docker", `@${index.digest}`, `:oci@${list.digest}`]) {
      const amd64 = await pull(`${host}/multi${reference}`, plain, "linux/amd64");
      expect([amd64.platform, ...amd64.layers]).toEqual(["linux/amd64", digest(gzip(one.layer))]);
      const s390x = await pull(`${host}/multi${reference}`, plain, "linux/s390x");
      expect([s390x.platform, ...s390x.layers]).toEqual(["linux/s390x", digest(gzip(two.layer))]);
      await expect(pull(`${host}/multi${reference}`, plain, "linux/mips")).rejects.toThrow(
        /multi: .*nothing for platform linux\/mips; it has linux\//,
      );
    }
    expect((await pull(`${host}/multi:schema2`, plain, "linux/amd64")).layers).toEqual([
      digest(gzip(one.layer)),
    ]);
  });

  it("is fetched where the manifest says, if it is foreign, without a login", async () => {
    const { host } = await serveRegistry({ storage: "foreign" });
    const made = new Layout(place("foreign-layout"));
    const [layer, hidden] = [tar(file("a", "a")), tar(file("b", "b".repeat(9000)))];
    const bytes = gzip(hidden as Buffer);
    const elsewhere = createServer((incoming, outgoing) => {
      expect(incoming.headers.authorization).toBeUndefined();
      if (incoming.url === "/layer") outgoing.writeHead(200).end(bytes);
      else outgoing.writeHead(404).end();
    });
    elsewhere.listen(0, "127.0.0.1");
    await new Promise((listening) => elsewhere.once("listening", listening));
    closeLater(() => {
      elsewhere.closeAllConnections();
      return new Promise((closed) => elsewhere.close(closed));
    });
    const at = `http://127.0.0.1:${(elsewhere.address() as AddressInfo).port}`;
    const image = made.image([layer as Buffer, hidden as Buffer], {
      compress: gzip,
      manifest: (manifest) => {
        const [, second] = manifest["layers"] as Record<string, unknown>[];
        Object.assign(second as object, {
          mediaType: "application/vnd.docker.image.rootfs.foreign.diff.tar.gzip",
          urls: ["file:///etc/passwd", `${at}/gone`, `${at}/layer`],
        });
      },
    });
    made.tag(image, "latest");
    const proxy = await troubled(host, ({ path }) =>
      path.includes("/manifests/")
        ? {
            status: 200,
            headers: { "content-type": image.mediaType },
            body: readFileSync(made.path(image.digest)),
          }
        : undefined,
    );
    const rest = new Layout(place("foreign-rest"));
    rest.tag(rest.image([layer as Buffer, hidden as Buffer], { compress: gzip }), "other");
    await push(host, "f", rest);
    expect((await pull(`${proxy.host}/f`, { tlsVerify: false })).layers).toEqual([
      digest(gzip(layer as Buffer)),
      digest(bytes),
    ]);
    expect(proxy.asked.some(({ path }) => path.endsWith(digest(bytes)))).toBe(false);
  });
});
