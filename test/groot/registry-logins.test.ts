// Logins, certificates and mirrors of a real registry, through the store's commands under both names; and that no secret
// is kept or told anywhere.
import {
  chmodSync,
  existsSync,
  mkdirSync,
  readdirSync,
  readFileSync,
  statSync,
  writeFileSync,
} from "node:fs";
import { createServer } from "node:http";
import type { AddressInfo } from "node:net";
import { dirname, join } from "node:path";
import { request } from "undici";
import { beforeAll, describe, expect, it } from "vitest";
import { cannotMount, type Outcome, run, scratch, scratchDirectory, titleOf, until } from "../e2e/mounted.js";
import { gzip, Layout } from "../fixtures/oci.js";
import { dir, file, tar } from "../fixtures/tar.js";
import {
  ann,
  type Certificates,
  cannotServe,
  closeLater,
  freePort,
  htpasswd,
  makeCertificates,
  push,
  serveRegistry,
} from "../oci/registry/serve.js";
import { serveTokens } from "../oci/registry/token-server.js";
import { troubled } from "../oci/registry/trouble.js";
import { type CallOptions, madeStore, type Name, names, program, type TestStore, told } from "./kit.js";

const missing = cannotMount ?? cannotServe;
const inCi = process.env["CI"] !== undefined && process.env["CI"] !== "";
it.runIf(inCi)("the store's logins are tested in CI", () => expect(missing).toBeUndefined());

const auth = Buffer.from(`${ann.username}:${ann.password}`).toString("base64");

describe.skipIf(missing)(titleOf("the store and a registry", missing), () => {
  let certificates: Certificates;
  /** Each `127.0.0.1:port`; all have a/b:1. */
  let plain: string;
  let login: string;
  let tls: string;
  let tlsLogin: string;
  let tlsClients: string;

  beforeAll(async () => {
    plain = (await serveRegistry()).host;
    const made = new Layout(scratch("layout"));
    const config = (of: Record<string, unknown>): void => {
      of["config"] = { Env: ["PATH=/usr/bin:/bin", "A=<1>"], Cmd: ["/bin/sh"] };
    };
    made.tag(made.image([tar(dir("etc"), file("etc/motd", "hello\n"))], { compress: gzip, config }), "1");
    await push(plain, "a/b", made);
    certificates = await makeCertificates();
    login = (await serveRegistry({ auth: htpasswd() })).host;
    tls = (await serveRegistry({ http: certificates.tls })).host;
    tlsLogin = (await serveRegistry({ http: certificates.tls, auth: htpasswd() })).host;
    tlsClients = (await serveRegistry({ http: certificates.tlsWithClients })).host;
  });

  /** What create prints of a/b:1. */
  const spec = (store: TestStore, id: string): string =>
    `{"ociVersion":"","process":{"user":{"uid":0,"gid":0},"env":["PATH=/usr/bin:/bin","A=\\u003c1\\u003e"],"cwd":""},"root":{"path":"${store.image(id, "rootfs")}"}}\n`;

  /** A home of its own with files in it. */
  function home(files: Readonly<Record<string, unknown>> = {}): { HOME: string; PATH: string } {
    const folder = scratchDirectory("home");
    for (const [name, content] of Object.entries(files)) {
      mkdirSync(dirname(join(folder, name)), { recursive: true });
      writeFileSync(join(folder, name), typeof content === "string" ? content : JSON.stringify(content));
      if (name.startsWith("bin/")) chmodSync(join(folder, name), 0o755);
    }
    return { HOME: folder, PATH: `${folder}/bin:${process.env["PATH"]}` };
  }
  const quiet = { REGISTRY_AUTH_FILE: "", DOCKER_CONFIG: "", XDG_RUNTIME_DIR: "/nonexistent" };

  /** Creates image x, and deletes it where that worked. */
  async function create(
    store: TestStore,
    name: Name,
    { env, ...options }: CallOptions,
    host: string,
    ...words: readonly string[]
  ): Promise<Outcome> {
    const given = { ...options, env: { ...quiet, ...home(), ...env } };
    const outcome = await store.callWith(given, name, ...words, `docker://${host}/a/b:1`, "x");
    if (outcome.code === 0) {
      expect(readFileSync(store.image("x", "rootfs/etc/motd"), "utf8")).toBe("hello\n");
      await store.say(name, "delete", "x");
    }
    return outcome;
  }

  describe.each(names)("as %s", (name) => {
    const made = (store: TestStore): object => ({ code: 0, stdout: spec(store, "x"), stderr: "" });
    const insecure = (host: string): string[] => ["create", "--insecure-registry", host];
    const needsLogin = (host: string): object =>
      name === "grootfs"
        ? told(name, `docker://${host}/a/b:1 does not exist or you do not have permissions to see it.`, 1)
        : {
            code: 12,
            stdout: "",
            stderr: `imgfs: create docker://${host}/a/b:1: ${host}/a/b: manifest 1: it does not exist, or needs a login (UNAUTHORIZED: authentication required)\nhint: log in by podman login or docker login, or give --username and --password-stdin\n`,
          };
    const notTrusted = (host: string): object =>
      name === "grootfs"
        ? told(
            name,
            "This registry is insecure. To pull images from this registry, please use the --insecure-registry option.",
            1,
          )
        : {
            code: 1,
            stdout: "",
            stderr: `imgfs: create docker://${host}/a/b:1: ${host}/a/b: manifest 1: the certificate of ${host} is signed by an authority that is not trusted here\nhint: --cert-dir names its authority; --tls-verify=false goes without any check\n`,
          };
    const isRefused =
      name === "grootfs"
        ? told(name, "unable to retrieve auth token: invalid username/password", 1)
        : {
            code: 12,
            stdout: "",
            stderr: expect.stringMatching(/^imgfs: [^\n]*the login is not accepted[^\n]*\n$/),
          };

    it("anonymous, on plain HTTP, by the option or the config file, for create and pull", async () => {
      const store = await madeStore();
      expect(await create(store, name, {}, plain, ...insecure(plain))).toMatchObject(made(store));
      const config = scratch("config.yaml");
      writeFileSync(config, `create: {insecure_registries: ["other:1", "${plain}"]}\n`);
      expect(await create(store, name, {}, plain, "--config", config, "create")).toMatchObject(made(store));
      const pulled = await store.call(name, "--config", config, "pull", `docker://${plain}/a/b:1`);
      expect(pulled).toMatchObject({ code: 0, stdout: "", stderr: "" });
      // Another registry that is called insecure does not make this one so, and the option is in place of the file.
      const other = await create(store, name, {}, plain, "--config", config, ...insecure("other:1"));
      if (name === "grootfs") {
        expect(other).toMatchObject(
          told(
            name,
            "This registry is insecure. To pull images from this registry, please use the --insecure-registry option.",
            1,
          ),
        );
      } else
        expect(other).toMatchObject({ code: 1, stderr: expect.stringContaining("does not speak TLS\n") });
    });

    it("with a login: --username and --password, docker's file, a credential helper, or none", async () => {
      const store = await madeStore();
      const words = insecure(login);
      const as = (username: string, password: string): string[] => [
        ...words,
        ...["--username", username, "--password", password],
      ];
      expect(await create(store, name, {}, login, ...words)).toMatchObject(needsLogin(login));
      expect(await create(store, name, {}, login, ...as("ann", "wrong"))).toMatchObject(isRefused);
      expect(await create(store, name, {}, login, ...as("ann", ann.password))).toMatchObject(made(store));
      const docker = home({ ".docker/config.json": { auths: { [login]: { auth } } } });
      expect(await create(store, name, { env: docker }, login, ...words)).toMatchObject(made(store));
      const answer = { ServerURL: login, Username: "ann", Secret: ann.password };
      const helped = home({
        ".docker/config.json": { credHelpers: { [login]: "test" } },
        "bin/docker-credential-test": `#!/bin/sh\nread server; [ "$1 $server" = 'get ${login}' ] && echo '${JSON.stringify(answer)}'\n`,
      });
      expect(await create(store, name, { env: helped }, login, ...words)).toMatchObject(made(store));
    });

    it("with a login at a token server", async () => {
      const tokens = await serveTokens(certificates);
      tokens.wantsLogin = true;
      const { host } = await serveRegistry({ auth: tokens.auth });
      const store = await madeStore();
      const as = (password: string): string[] => [
        ...insecure(host),
        ...["--username", "ann", "--password", password],
      ];
      expect(await create(store, name, {}, host, ...as("wrong"))).toMatchObject(isRefused);
      expect(await create(store, name, {}, host, ...as(ann.password))).toMatchObject(made(store));
    });

    it("by TLS with a private authority, and a certificate of ours where it asks for one", async () => {
      const store = await madeStore();
      expect(await create(store, name, {}, tls, "create")).toMatchObject(notTrusted(tls));
      expect(await create(store, name, {}, tls, ...insecure(tls))).toMatchObject(made(store));
      const trusting = (host: string, folder: string): CallOptions => {
        const files = readdirSync(folder).map((each) => [
          `.config/containers/certs.d/${host}/${each}`,
          readFileSync(join(folder, each), "utf8"),
        ]);
        return { env: { ...home(Object.fromEntries(files) as Record<string, string>), XDG_CONFIG_HOME: "" } };
      };
      const { caFolder, folder: withClient } = certificates;
      expect(await create(store, name, trusting(tls, caFolder), tls, "create")).toMatchObject(made(store));
      const client = trusting(tlsClients, withClient);
      expect(await create(store, name, client, tlsClients, "create")).toMatchObject(made(store));
      // As in GrootFS: that one is of layers at URLs of their own.
      const config = scratch("config.yaml");
      writeFileSync(config, `create: {remote_layer_client_certificates_path: ${caFolder}}\n`);
      expect(await create(store, name, {}, tls, "--config", config, "create")).toMatchObject(notTrusted(tls));
      if (name === "grootfs") return;
      expect(await create(store, name, {}, tls, "create", "--cert-dir", caFolder)).toMatchObject(made(store));
      // The option is in place of what is installed.
      const none = ["create", "--cert-dir", scratchDirectory("none")];
      expect(await create(store, name, trusting(tls, caFolder), tls, ...none)).toMatchObject(notTrusted(tls));
      expect(await create(store, name, {}, tls, "create", "--tls-verify=false")).toMatchObject(made(store));
    });

    it("through a mirror that registries.conf names, with no word to the place itself", async () => {
      const store = await madeStore();
      const mirror = await troubled(plain, () => undefined);
      const conf = scratch("registries.conf");
      const text = (...mirrors: readonly string[]): string =>
        [
          '[[registry]]\nlocation = "nowhere.invalid/a"\n',
          ...mirrors.map((each) => `[[registry.mirror]]\nlocation = "${each}/a"\ninsecure = true\n`),
        ].join("");
      const env = { CONTAINERS_REGISTRIES_CONF: conf };
      writeFileSync(conf, text(mirror.host));
      expect(await create(store, name, { env }, "nowhere.invalid", "create")).toMatchObject(made(store));
      expect(mirror.asked.some(({ path }) => path.startsWith("/v2/a/b/blobs/"))).toBe(true);
      writeFileSync(conf, `[[registry]]\nlocation = "${plain}"\nblocked = true\n`);
      const blocked = await create(store, name, { env }, plain, ...insecure(plain));
      expect(blocked.code).toBe(1);
      expect(blocked.stdout + blocked.stderr).toMatch(/^[^\n]*blocked[^\n]*\n$/);
    });

    it("through the proxy of the environment, but for hosts that NO_PROXY names", async () => {
      const store = await madeStore();
      const asked: string[] = [];
      const proxy = createServer(async (incoming, outgoing) => {
        const { url = "", headers } = incoming;
        asked.push(url);
        const path = url.replace(/^http:\/\/far\.invalid:5000/, "");
        const given = await request(`http://${plain}${path}`, {
          headers: { accept: String(headers.accept) },
        });
        outgoing.writeHead(given.statusCode, given.headers);
        given.body.pipe(outgoing);
      });
      proxy.listen(0, "127.0.0.1");
      await new Promise((listening) => proxy.once("listening", listening));
      closeLater(() => {
        proxy.closeAllConnections();
        proxy.close();
      });
      const env = {
        HTTP_PROXY: `http://127.0.0.1:${(proxy.address() as AddressInfo).port}`,
        HTTPS_PROXY: `http://127.0.0.1:${await freePort()}`,
        NO_PROXY: "127.0.0.1",
      };
      const conf = scratch("registries.conf");
      writeFileSync(conf, '[[registry]]\nlocation = "far.invalid:5000"\ninsecure = true\n');
      const { HTTPS_PROXY: _, ...plainOnly } = env;
      const far = { env: { ...plainOnly, HTTPS_PROXY: "", CONTAINERS_REGISTRIES_CONF: conf } };
      const viaProxy = await create(store, name, far, "far.invalid:5000", "create");
      expect(viaProxy.stdout + viaProxy.stderr).toBe(spec(store, "x"));
      expect(asked.some((url) => url.startsWith("http://far.invalid:5000/v2/a/b/"))).toBe(true);
      const before = asked.length;
      expect(await create(store, name, { env }, plain, ...insecure(plain))).toMatchObject(made(store));
      expect(asked).toHaveLength(before);
    });

    it("tells of half a login what is missing, or is anonymous as GrootFS is", async () => {
      const store = await madeStore();
      const half = [
        ["--username", "ann"],
        ["--password", "pw"],
      ] as const;
      const problems = ["--username needs --password-stdin or --password", "--password needs --username"];
      for (const [at, words] of half.entries()) {
        const outcome = await create(store, name, {}, plain, ...insecure(plain), ...words);
        if (name === "grootfs") expect(outcome).toMatchObject(made(store));
        else expect(outcome).toMatchObject(told(name, problems[at] as string, 2));
      }
    });

    it("never has a secret in its output, its logs, its metrics or the store, right or wrong", async () => {
      const store = await madeStore();
      const kept = scratchDirectory("kept");
      const at = (file: string): string => join(kept, file);
      const globals = [
        ...["--log-level", "debug", name === "imgfs" ? "--log" : "--log-file", at("log")],
        ...["--metrics-file", at("metrics"), "--metrics-log", at("metrics.jsonl")],
      ];
      const progress = name === "imgfs" ? ["--progress", "plain"] : [];
      const url = `docker://${login}/a/b:1`;
      const said: string[] = [];
      const call = async (code: number, ...words: readonly string[]): Promise<void> => {
        const outcome = await store.callWith({ env: { ...quiet, ...home() } }, name, ...globals, ...words);
        expect(outcome.code, outcome.stdout + outcome.stderr).toBe(code);
        said.push(outcome.stdout, outcome.stderr);
      };
      const as = (password: string): string[] => ["--username", "ann", "--password", password];
      const refused = name === "grootfs" ? 1 : 12;
      await call(refused, ...insecure(login), ...progress, ...as("wr0ng-s3cret"), url, "x");
      await call(0, ...insecure(login), ...progress, ...as(ann.password), "--with-clean", url, "x");
      const usageCode = name === "grootfs" ? 1 : 2;
      await call(usageCode, "create", `docker://ann:${ann.password}@${login}/a/b:1`, "y");
      await call(usageCode, "create", `docker://ann:${ann.password}@${login}/a/b:1`);
      await call(0, "stats", "x");
      const { pid } = JSON.parse(`{"pid":${readFileSync(store.image("x", "pid"), "utf8").trim()}}`) as {
        readonly pid: number;
      };
      for (const file of ["cmdline", "environ"]) said.push(readFileSync(`/proc/${pid}/${file}`, "latin1"));
      expect(readFileSync(at("log"), "utf8")).toContain("groot");
      expect(existsSync(at("metrics.jsonl"))).toBe(true);
      const all = [...textsIn(store.path), ...textsIn(kept), ...said];
      expect(all.length).toBeGreaterThan(10);
      const secrets = [
        ann.password,
        auth,
        "wr0ng-s3cret",
        Buffer.from("ann:wr0ng-s3cret").toString("base64"),
      ];
      for (const secret of secrets) {
        expect(all.filter((text) => text.includes(secret))).toEqual([]);
      }
      await store.say(name, "delete", "x");
    });

    it("takes a password from its command line out of the list of processes", async () => {
      const store = await madeStore();
      const slow = await troubled(login, () => ({ piece: 100, pause: 400 }));
      const words = [...insecure(slow.host), "--username", "ann", "--password", ann.password];
      const pid = scratch("pid");
      const script = `echo $$ > '${pid}'; exec "$@"`;
      const running = run("sh", [
        ...["-c", script, "sh", program(name), "--store", store.path],
        ...[...words, `docker://${slow.host}/a/b:1`, "x"],
      ]);
      await until("it asks", () => slow.asked.length > 0);
      const cmdline = readFileSync(`/proc/${readFileSync(pid, "utf8").trim()}/cmdline`, "latin1");
      expect(cmdline).toMatch(new RegExp(`^${name}`));
      expect(cmdline).not.toContain(ann.password);
      expect(await running).toMatchObject({ code: 0, stdout: spec(store, "x") });
    });
  });

  it("takes a password from stdin, and logins from a file, as imgfs", async () => {
    const store = await madeStore();
    const words = ["create", "--tls-verify=false", "--username", "ann"];
    const made = { code: 0, stdout: spec(store, "x"), stderr: "" };
    const stdin = [...words, "--password-stdin"];
    const call = (input: string, ...more: string[]): Promise<Outcome> =>
      create(store, "imgfs", { input }, login, ...more);
    expect(await call(`${ann.password}\n`, ...stdin)).toMatchObject(made);
    expect(await call("wrong", ...stdin)).toMatchObject({ code: 12, stdout: "" });
    expect(await call("", ...stdin)).toMatchObject(told("imgfs", "--password-stdin: no password came", 2));
    expect(await call("x", ...stdin, "--password", "x")).toMatchObject(
      told("imgfs", "--password and --password-stdin do not go together", 2),
    );
    expect(await call("x", "create", "--username", "a:b", "--password", "x")).toMatchObject(
      told("imgfs", "--username: not the name of a user", 2),
    );
    const file = scratch("auth.json");
    writeFileSync(file, JSON.stringify({ auths: { [tlsLogin]: { auth } } }));
    const certs = ["--cert-dir", certificates.caFolder];
    const byFile = await create(store, "imgfs", {}, tlsLogin, "create", "--authfile", file, ...certs);
    expect(byFile).toMatchObject(made);
    const none = scratch("none.json");
    const named = await create(store, "imgfs", {}, tlsLogin, "create", "--authfile", none, ...certs);
    expect(named).toMatchObject({
      code: 1,
      stdout: "",
      stderr: `imgfs: create docker://${tlsLogin}/a/b:1: ${tlsLogin}/a/b: manifest 1: ${none}: no such file or directory\n`,
    });
  });
});

/** The texts of all files below a folder, names included. */
function textsIn(folder: string): string[] {
  return readdirSync(folder, { recursive: true, encoding: "utf8" }).flatMap((name) => {
    const path = join(folder, name);
    const stat = statSync(path, { throwIfNoEntry: false });
    return stat?.isFile() === true ? [name, readFileSync(path, "latin1")] : [name];
  });
}
