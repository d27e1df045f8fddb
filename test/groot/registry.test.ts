// Images of a real registry, with a login and a certificate of nobody's authority, through GrootFS's flags.
import { existsSync, readFileSync, writeFileSync } from "node:fs";
import { beforeAll, describe, expect, it } from "vitest";
import { cannotMount, type Outcome, scratch, titleOf } from "../e2e/mounted.js";
import { gzip, Layout } from "../fixtures/oci.js";
import { dir, file, tar } from "../fixtures/tar.js";
import { cannotServe, htpasswd, makeCertificates, push, serveRegistry } from "../oci/registry/serve.js";
import { madeStore, names, type TestStore, told } from "./kit.js";

const missing = cannotMount ?? cannotServe;
const inCi = process.env["CI"] !== undefined && process.env["CI"] !== "";
it.runIf(inCi)("the store's images of registries are tested in CI", () => expect(missing).toBeUndefined());

describe.skipIf(missing).each(names)(titleOf("create of a registry's image, as %s", missing), (name) => {
  let host: string;

  beforeAll(async () => {
    const plain = await serveRegistry();
    const made = new Layout(scratch("layout"));
    made.tag(made.image([tar(dir("etc"), file("etc/motd", "hello\n"))], { compress: gzip }), "1.26");
    made.tag(made.image(["a", "b", "c"].map((each) => tar(file(each, each)))), "three");
    await push(plain.host, "a/b", made);
    const { tls } = await makeCertificates();
    ({ host } = await serveRegistry({ auth: htpasswd(), http: tls }));
  });

  const login = ["--username", "ann", "--password", "s3cret:word"];
  const create = (store: TestStore, ...words: string[]): Promise<Outcome> =>
    store.call(name, "create", ...words);

  it("needs its certificate to be one, or the registry to be called insecure, and a login", async () => {
    const store = await madeStore();
    const url = `docker://${host}/a/b:1.26`;
    const insecure = ["--insecure-registry", host];
    const asGroot = async (text: string, ...words: string[]): Promise<void> => {
      const outcome = await create(store, ...words, url, "x");
      if (name === "grootfs") expect(outcome).toMatchObject(told(name, text, 1));
      else
        expect(outcome).toMatchObject({
          stdout: "",
          stderr: expect.stringMatching(/^imgfs: create docker:[^\n]+\nhint: /),
        });
      expect(outcome.code).not.toBe(0);
      expect(outcome.stdout + outcome.stderr).not.toContain("s3cret");
    };
    await asGroot(
      "This registry is insecure. To pull images from this registry, please use the --insecure-registry option.",
      ...login,
    );
    await asGroot(`${url} does not exist or you do not have permissions to see it.`, ...insecure);
    const wrong = await create(store, ...insecure, "--username", "ann", "--password", "wrong", url, "x");
    if (name === "imgfs") expect(wrong).toMatchObject({ code: 12, stdout: "" });
    else
      expect(wrong).toMatchObject(told(name, "unable to retrieve auth token: invalid username/password", 1));
    expect(await store.say(name, "list")).toBe("Store empty\n");
    const log = scratch("log");
    const words = ["--log-level", "debug", name === "imgfs" ? "--log" : "--log-file", log];
    const made = await store.call(name, ...words, "create", ...insecure, ...login, url, "x");
    expect(made).toMatchObject({ code: 0, stderr: "" });
    expect(readFileSync(store.image("x", "rootfs/etc/motd"), "utf8")).toBe("hello\n");
    if (existsSync(log)) expect(readFileSync(log, "utf8")).not.toContain("s3cret");
  });

  it("has the registries of the config file for insecure, and names an image that is not there", async () => {
    const store = await madeStore();
    const config = scratch("config.yaml");
    writeFileSync(config, `create:\n  insecure_registries: ["${host}"]\n`);
    const url = `docker://${host}/a/none:1`;
    const outcome = await store.call(name, "--config", config, "create", ...login, url, "x");
    if (name === "imgfs") expect(outcome).toMatchObject({ code: 10, stdout: "" });
    else
      expect(outcome).toMatchObject(
        told(name, `${url} does not exist or you do not have permissions to see it.`, 1),
      );
    await store.say(name, "--config", config, "pull", ...login, `docker://${host}/a/b:1.26`);
  });

  it("measures how long each of its layers took to come", async () => {
    const store = await madeStore();
    const log = scratch("metrics");
    const pull = ["--metrics-log", log, "pull", "--insecure-registry", host, ...login];
    const measured = (): string[] =>
      readFileSync(log, "utf8")
        .trimEnd()
        .split("\n")
        .map((line) => (JSON.parse(line) as { name: string }).name)
        .filter((each) => each === "DownloadTime" || each === "UnpackTime");
    await store.say(name, ...pull, `docker://${host}/a/b:three`);
    expect(measured().sort()).toEqual([...Array(3).fill("DownloadTime"), ...Array(3).fill("UnpackTime")]);
    await store.say(name, ...pull, `docker://${host}/a/b:three`);
    expect(measured()).toHaveLength(6);
  });
});
