// Logins: where they are found, whom they are shown to, and that they are shown to nobody else.
import { chmodSync, mkdirSync, readFileSync, writeFileSync } from "node:fs";
import { dirname, join } from "node:path";
import { beforeAll, beforeEach, describe, expect, it } from "vitest";
import { parseChallenges } from "../../../src/oci/registry/challenge.js";
import { findLogin, type Login } from "../../../src/oci/registry/credentials.js";
import { RegistryError } from "../../../src/oci/registry/errors.js";
import { parseImageName } from "../../../src/oci/registry/name.js";
import { titleOf } from "../../e2e/mounted.js";
import { digest, gzip, Layout } from "../../fixtures/oci.js";
import { file, tar } from "../../fixtures/tar.js";
import { environment, pull } from "./pull.js";
import {
  ann,
  type Certificates,
  cannotServe,
  htpasswd,
  makeCertificates,
  place,
  push,
  serveRegistry,
} from "./serve.js";
import { identityToken, serveTokens, type TokenServer } from "./token-server.js";
import { troubled } from "./trouble.js";

const layers = [tar(file("a", "a")), tar(file("b", "b".repeat(100_000)))];
const digests = layers.map((layer) => digest(gzip(layer)));
const base64 = (login: { username: string; password: string }): string =>
  Buffer.from(`${login.username}:${login.password}`).toString("base64");

let serial = 0;
/** A home of its own with files in it. */
function home(files: Record<string, unknown>, more: NodeJS.ProcessEnv = {}): NodeJS.ProcessEnv {
  const folder = place(`home-${serial++}`);
  for (const [name, content] of Object.entries(files)) {
    mkdirSync(dirname(join(folder, name)), { recursive: true });
    writeFileSync(join(folder, name), typeof content === "string" ? content : JSON.stringify(content));
    if (name.startsWith("bin/")) chmodSync(join(folder, name), 0o755);
  }
  return environment({
    HOME: folder,
    PATH: `${folder}/bin:${process.env["PATH"]}`,
    XDG_RUNTIME_DIR: join(folder, "run"),
    ...Object.fromEntries(Object.entries(more).map(([key, value]) => [key, value?.replace("HOME", folder)])),
  });
}

const find = (name: string, env: NodeJS.ProcessEnv): Promise<Login | undefined> =>
  findLogin(parseImageName(name), { environment: env });
const user = (username: string): object => ({ auth: base64({ username, password: "pw" }) });
const who = async (name: string, env: NodeJS.ProcessEnv): Promise<string | undefined> => {
  const login = await find(name, env);
  return login?.kind === "password" ? login.username : login?.kind;
};

describe("the files with logins", () => {
  it("are asked in podman's order, and the first that knows the registry decides", async () => {
    const files = {
      "run/containers/auth.json": { auths: { "one.io": user("run") } },
      ".config/containers/auth.json": { auths: { "one.io": user("config"), "two.io": user("config") } },
      ".docker/config.json": { auths: { "two.io": user("docker"), "three.io": user("docker") } },
      ".dockercfg": { "three.io": user("old"), "four.io": user("old") },
      "elsewhere/config.json": { auths: { "three.io": user("elsewhere") } },
      "mine.json": { auths: { "four.io": user("mine") } },
    };
    const env = home(files);
    const names = ["one.io/a", "two.io/a", "three.io/a", "four.io/a", "five.io/a"];
    const all = (e: NodeJS.ProcessEnv) => Promise.all(names.map((name) => who(name, e)));
    expect(await all(env)).toEqual(["run", "config", "docker", "old", undefined]);
    expect(await all(home(files, { DOCKER_CONFIG: "HOME/elsewhere" }))).toEqual([
      "run",
      "config",
      "elsewhere",
      "old",
      undefined,
    ]);
    const only = home(files, { REGISTRY_AUTH_FILE: "HOME/mine.json" });
    expect(await all(only)).toEqual([undefined, undefined, undefined, "mine", undefined]);
    const named = await findLogin(parseImageName("one.io/a"), {
      environment: only,
      authFile: `${env["HOME"]}/.docker/config.json`,
    });
    expect(named).toBeUndefined();
  });

  it("know namespaces, docker's hub by all its names, and URLs", async () => {
    const env = home({
      ".docker/config.json": {
        auths: {
          "h.io": user("host"),
          "h.io/ns": user("namespace"),
          "h.io/ns/repo": user("repository"),
          "https://index.docker.io/v1/": user("hub"),
          "https://url.io/v2/": user("url"),
          "empty.io": {},
          "h.io:5000": user("port"),
        },
      },
    });
    expect(await who("h.io/ns/repo:1", env)).toBe("repository");
    expect(await who("h.io/ns/other", env)).toBe("namespace");
    expect(await who("h.io/nsx/other", env)).toBe("host");
    expect(await who("h.io:5000/ns/repo", env)).toBe("port");
    expect(await who("debian", env)).toBe("hub");
    expect(await who("url.io/x", env)).toBe("url");
    expect(await who("empty.io/x", env)).toBeUndefined();
  });

  it("hold passwords with colons and NUL padding, and tokens", async () => {
    const auth = Buffer.from("ann:a:b\0\0").toString("base64");
    const env = home({
      ".docker/config.json": {
        auths: {
          "p.io": { auth },
          "i.io": { auth: Buffer.from("ann:").toString("base64"), identitytoken: "it" },
          "r.io": { registrytoken: "rt" },
          "u.io": { username: "ann", password: "pw" },
        },
      },
    });
    expect(await find("p.io/a", env)).toEqual({ kind: "password", username: "ann", password: "a:b" });
    expect(await find("i.io/a", env)).toEqual({ kind: "identity", username: "ann", token: "it" });
    expect(await find("r.io/a", env)).toEqual({ kind: "bearer", token: "rt" });
    expect(await find("u.io/a", env)).toEqual({ kind: "password", username: "ann", password: "pw" });
  });

  it("that are wrong are named, and not quoted", async () => {
    const cases: [Record<string, unknown>, RegExp, NodeJS.ProcessEnv?][] = [
      [{ ".docker/config.json": "{s3cret" }, /\.docker\/config\.json: not valid JSON$/],
      [
        { ".docker/config.json": { auths: { "h.io": { auth: 5, password: "s3cret" } } } },
        /config\.json: auths\.h\.io\.auth: not what it should be$/,
      ],
      [
        { ".docker/config.json": { auths: { "h.io": { auth: "s3cretwithoutcolon" } } } },
        /auths "h\.io": auth is not base64 of USER:PASSWORD$/,
      ],
      [{}, /\/none\.json: no such file or directory$/i, { REGISTRY_AUTH_FILE: "HOME/none.json" }],
    ];
    for (const [files, message, more] of cases) {
      const cause = await find("h.io/a", home(files, more)).catch(
        (reason: unknown) => reason as RegistryError,
      );
      expect(cause).toBeInstanceOf(RegistryError);
      expect(cause).toMatchObject({ kind: "configuration", message: expect.stringMatching(message) });
      expect((cause as RegistryError).message).not.toContain("s3cret");
    }
  });
});

describe("credential helpers", () => {
  const helper = (script: string): string =>
    `#!/bin/sh\nread server; echo "$1 $server" >> "$HOME/asked"\n${script}\n`;
  const answer = (username: string, secret: string): string =>
    helper(`echo '${JSON.stringify({ ServerURL: "x", Username: username, Secret: secret })}'`);

  it("are asked for their registry, the store for every other one", async () => {
    const env = home({
      ".docker/config.json": {
        credHelpers: { "h.io": "one" },
        credsStore: "all",
        auths: { "h.io": user("file"), "s.io": {} },
      },
      "bin/docker-credential-one": answer("helped", "pw"),
      "bin/docker-credential-all": answer("<token>", "identity"),
    });
    expect(await find("h.io/a", env)).toEqual({ kind: "password", username: "helped", password: "pw" });
    expect(await find("s.io/a", env)).toEqual({ kind: "identity", username: "", token: "identity" });
    expect(await find("debian", env)).toMatchObject({ kind: "identity" });
    expect(readFileSync(`${env["HOME"]}/asked`, "utf8")).toBe(
      "get h.io\nget s.io\nget https://index.docker.io/v1/\n",
    );
  });

  it("that have nothing leave it to the file", async () => {
    const env = home({
      ".docker/config.json": { credsStore: "all", auths: { "h.io": user("file") } },
      "bin/docker-credential-all": helper('echo "credentials not found in native keychain"; exit 1'),
    });
    expect(await who("h.io/a", env)).toBe("file");
    expect(await who("other.io/a", env)).toBeUndefined();
  });

  it("that fail are named, and nothing they print is", async () => {
    const cases: [Record<string, unknown>, string][] = [
      [
        { "bin/docker-credential-all": helper("echo s3cret; echo s3cret >&2; exit 3") },
        "it ended with exit code 3",
      ],
      [{ "bin/docker-credential-all": helper("echo s3cret") }, "its answer is not JSON"],
      [
        { "bin/docker-credential-all": helper(`echo '{"Username":"s3cret"}'`) },
        "its answer has no Username and Secret",
      ],
      [{}, "there is no such program"],
    ];
    for (const [files, why] of cases) {
      const env = home({ ".docker/config.json": { credsStore: "all" }, ...files });
      await expect(find("h.io/a", env)).rejects.toThrow(
        new RegistryError("configuration", `credential helper docker-credential-all for h.io: ${why}`),
      );
    }
    const outside = home({ ".docker/config.json": { credsStore: "../../bin/sh" } });
    await expect(find("h.io/a", outside)).rejects.toThrow(
      '"../../bin/sh" is not the name of a credential helper',
    );
  });
});

describe("a challenge", () => {
  it.each([
    [
      'Bearer realm="https://auth.io/token",service="registry.io",scope="repository:a/b:pull,push"',
      [
        {
          scheme: "bearer",
          parameters: {
            realm: "https://auth.io/token",
            service: "registry.io",
            scope: "repository:a/b:pull,push",
          },
        },
      ],
    ],
    ['Basic realm="a \\"quoted\\" one"', [{ scheme: "basic", parameters: { realm: 'a "quoted" one' } }]],
    [
      'Negotiate, Basic realm=x, Bearer realm = "y" , service=z',
      [
        { scheme: "negotiate", parameters: {} },
        { scheme: "basic", parameters: { realm: "x" } },
        { scheme: "bearer", parameters: { realm: "y", service: "z" } },
      ],
    ],
    [
      "NTLM TlRMTVNTUAAC==, Basic realm=x",
      [
        { scheme: "ntlm", parameters: {} },
        { scheme: "basic", parameters: { realm: "x" } },
      ],
    ],
    ["", []],
    ['"', []],
  ])("%s", (header, challenges) => {
    expect(parseChallenges(header)).toEqual(challenges);
  });
});

describe.skipIf(cannotServe)(titleOf("a registry that wants a login", cannotServe), () => {
  let certificates: Certificates;
  let plain: string;

  beforeAll(async () => {
    plain = (await serveRegistry()).host;
    const made = new Layout(place("layout"));
    made.tag(made.image(layers, { compress: gzip }), "latest");
    await push(plain, "a/b", made);
    certificates = await makeCertificates();
  });

  const failure = (pulling: Promise<unknown>): Promise<{ kind: string; message: string }> =>
    pulling.then(
      () => expect.unreachable("the pull succeeded"),
      ({ kind, message }: RegistryError) => ({ kind, message }),
    );

  it("by htpasswd takes the right one, from an option or a file", async () => {
    const { host } = await serveRegistry({ auth: htpasswd() });
    const name = `${host}/a/b`;
    expect((await pull(name, { tlsVerify: false, login: ann })).layers).toEqual(digests);
    const env = home({ ".docker/config.json": { auths: { [host]: { auth: base64(ann) } } } });
    expect((await pull(name, { tlsVerify: false, environment: env })).layers).toEqual(digests);
    expect(await failure(pull(name, { tlsVerify: false }))).toEqual({
      kind: "unauthorized",
      message: expect.stringMatching(
        /a\/b: manifest latest: it does not exist, or needs a login \(UNAUTHORIZED/,
      ),
    });
    const wrong = { ...ann, password: "another-s3cret" };
    const refused = await failure(pull(name, { tlsVerify: false, login: wrong }));
    expect(refused).toMatchObject({
      kind: "refused",
      message: expect.stringMatching(/the login is not accepted/),
    });
    expect(refused.message).not.toContain("another-s3cret");
  });

  it("asks no helper where no login is wanted, and is told which one fails where it is", async () => {
    const env = home({ ".docker/config.json": { credsStore: "missing" } });
    expect((await pull(`${plain}/a/b`, { tlsVerify: false, environment: env })).layers).toEqual(digests);
    const { host } = await serveRegistry({ auth: htpasswd() });
    expect(await failure(pull(`${host}/a/b`, { tlsVerify: false, environment: env }))).toEqual({
      kind: "configuration",
      message: `${host}/a/b: manifest latest: credential helper docker-credential-missing for ${host}: there is no such program`,
    });
  });

  it("by TLS is trusted through --cert-dir or certs.d alone, and given our certificate where it asks", async () => {
    const { host } = await serveRegistry({ http: certificates.tls });
    const name = `${host}/a/b`;
    expect((await pull(name, { certDir: certificates.caFolder })).layers).toEqual(digests);
    expect((await pull(name, { tlsVerify: false })).layers).toEqual(digests);
    expect(await failure(pull(name))).toEqual({
      kind: "insecure",
      message: `${host}/a/b: manifest latest: the certificate of ${host} is signed by an authority that is not trusted here`,
    });
    const env = home({
      [`.config/containers/certs.d/${host}/ca.crt`]: readFileSync(`${certificates.caFolder}/ca.crt`, "utf8"),
    });
    expect((await pull(name, { environment: env })).layers).toEqual(digests);
    const system = environment({ SSL_CERT_FILE: `${certificates.caFolder}/ca.crt` });
    expect((await pull(name, { environment: system })).layers).toEqual(digests);
    const other = await failure(
      pull(`${host.replace("127.0.0.1", "127.0.0.2")}/a/b`, { environment: system }),
    );
    expect(other.message).toMatch(/is for another host$|connection refused$/);

    const clients = (await serveRegistry({ http: certificates.tlsWithClients })).host;
    expect((await pull(`${clients}/a/b`, { certDir: certificates.folder })).layers).toEqual(digests);
    const without = await failure(pull(`${clients}/a/b`, { certDir: certificates.caFolder }));
    expect(without.message).toMatch(
      /: (the connection was closed without an answer; the server may want a certificate of ours|connection reset)$/,
    );
  });

  it("with half a pair of certificates, or none that can be read, says which", async () => {
    const folder = place("half");
    mkdirSync(folder);
    writeFileSync(join(folder, "client.cert"), "no certificate");
    const name = `${plain}/a/b`;
    expect(await failure(pull(name, { certDir: folder }))).toEqual({
      kind: "configuration",
      message: expect.stringContaining(`${folder}/client.cert: its key ${folder}/client.key is missing`),
    });
    writeFileSync(join(folder, "client.key"), "no key");
    expect((await failure(pull(name, { certDir: folder }))).message).toContain(
      `${folder}: certificates that cannot be used`,
    );
    expect((await failure(pull(name, { certDir: place("none") }))).message).toContain(
      `${place("none")}: no such folder`,
    );
  });

  describe("by tokens", () => {
    let tokens: TokenServer;
    let host: string;

    beforeAll(async () => {
      tokens = await serveTokens(certificates);
      ({ host } = await serveRegistry({ auth: tokens.auth }));
    });
    beforeEach(() => {
      tokens.requests.length = 0;
      tokens.wantsLogin = false;
      tokens.stale = 0;
    });

    it("gives one token to everybody, which serves the whole pull", async () => {
      expect((await pull(`${host}/a/b`, { tlsVerify: false })).layers).toEqual(digests);
      expect(tokens.requests).toHaveLength(1);
      const [{ query, authorization, method } = expect.unreachable()] = tokens.requests;
      expect([method, query.get("service"), query.getAll("scope"), authorization]).toEqual([
        "GET",
        "registry.test",
        ["repository:a/b:pull"],
        undefined,
      ]);
    });

    it("renews one that the registry does not take any more, once", async () => {
      tokens.stale = 1;
      expect((await pull(`${host}/a/b`, { tlsVerify: false })).layers).toEqual(digests);
      expect(tokens.requests).toHaveLength(2);
      tokens.stale = 10;
      expect((await failure(pull(`${host}/a/b`, { tlsVerify: false }))).kind).toBe("unauthorized");
      expect(tokens.requests.length).toBeLessThan(6);
    });

    it("for a login, by password or by identity token", async () => {
      tokens.wantsLogin = true;
      expect((await pull(`${host}/a/b`, { tlsVerify: false, login: ann })).layers).toEqual(digests);
      expect(tokens.requests[0]?.query.get("account")).toBe("ann");
      const identity: Login = { kind: "identity", username: "", token: identityToken };
      expect((await pull(`${host}/a/b`, { tlsVerify: false, login: identity })).layers).toEqual(digests);
      const last = tokens.requests.at(-1);
      expect([last?.method, last?.query.get("grant_type"), last?.query.get("scope")]).toEqual([
        "POST",
        "refresh_token",
        "repository:a/b:pull",
      ]);
    });

    it("refuses a wrong one, in words that give nothing away", async () => {
      tokens.wantsLogin = true;
      const realm = new URL(tokens.realm).host;
      const wrong = { ...ann, password: "another-s3cret" };
      const refused = await failure(pull(`${host}/a/b`, { tlsVerify: false, login: wrong }));
      // The server repeats what it was sent.
      expect(refused).toEqual({
        kind: "refused",
        message: `${host}/a/b: manifest latest: token server ${realm}: the login is not accepted: status 401: incorrect login Basic [redacted]`,
      });
      const none = await failure(pull(`${host}/a/b`, { tlsVerify: false }));
      expect(none).toMatchObject({
        kind: "unauthorized",
        message: expect.stringContaining(`token server ${realm}: status 401`),
      });
    });

    it("is asked through TLS alone, unless the registry itself is without", async () => {
      const secure = (await serveRegistry({ http: certificates.tls, auth: tokens.auth })).host;
      const message = `its token server http://${new URL(tokens.realm).host} is not reached by TLS`;
      expect(await failure(pull(`${secure}/a/b`, { certDir: certificates.caFolder, login: ann }))).toEqual({
        kind: "insecure",
        message: `${secure}/a/b: manifest latest: ${message}`,
      });
      expect(tokens.requests).toEqual([]);
    });
  });

  it("sends the login to no host that it redirects to, nor a mirror", async () => {
    const { host } = await serveRegistry({ auth: htpasswd() });
    const elsewhere = await troubled(plain, () => undefined);
    const front = await troubled(host, ({ path, headers }) =>
      path.includes("/blobs/") && headers.authorization !== undefined
        ? { status: 307, headers: { location: `http://${elsewhere.host}${path}` } }
        : undefined,
    );
    expect((await pull(`${front.host}/a/b`, { tlsVerify: false, login: ann })).layers).toEqual(digests);
    expect(elsewhere.asked.length).toBeGreaterThan(1);
    expect(elsewhere.asked.map(({ headers }) => headers.authorization).filter(Boolean)).toEqual([]);

    const mirror = await troubled(host, () => undefined);
    const conf = place("login-mirror.conf");
    writeFileSync(
      conf,
      `[[registry]]\nlocation = "${front.host}"\n[[registry.mirror]]\nlocation = "${mirror.host}"\n`,
    );
    const env = environment({ CONTAINERS_REGISTRIES_CONF: conf });
    const pulled = await pull(`${front.host}/a/b`, { tlsVerify: false, login: ann, environment: env });
    expect(pulled.place).toBe(`${front.host}/a/b`);
    expect(mirror.asked.length).toBeGreaterThan(0);
    expect(mirror.asked.map(({ headers }) => headers.authorization).filter(Boolean)).toEqual([]);
  });
});
