// `imgfs build docker://...` against real registries, as people use it.
import { createHash } from "node:crypto";
import { existsSync, mkdirSync, readdirSync, readFileSync, writeFileSync } from "node:fs";
import { dirname, join } from "node:path";
import { beforeAll, describe, expect, it } from "vitest";
import { gzip, Layout } from "../fixtures/oci.js";
import { dir, file, tar, whiteout } from "../fixtures/tar.js";
import {
  ann,
  type Certificates,
  cannotServe,
  freePort,
  htpasswd,
  makeCertificates,
  place,
  push,
  type Served,
  serveRegistry,
} from "../oci/registry/serve.js";
import { serveTokens } from "../oci/registry/token-server.js";
import { type Asked, troubled } from "../oci/registry/trouble.js";
import { noise } from "./make-image.js";
import {
  build,
  command,
  hasCommand,
  noCommand,
  type Outcome,
  type RunOptions,
  run,
  scratch,
  shell,
  titleOf,
} from "./mounted.js";

const missing = noCommand ?? cannotServe;
const inCi = process.env["CI"] !== undefined && process.env["CI"] !== "";
it.runIf(inCi)("builds from registries are tested in CI", () => expect(missing).toBeUndefined());

const layers = [
  tar(dir("etc"), file("etc/a", "a"), file("etc/b", "b"), file("big", noise(6 << 20))),
  tar(whiteout("etc/b"), file("etc/c", "c")),
  tar(...Array.from({ length: 500 }, (_, i) => file(`many/f${i}`, `${i}`))),
  tar(file("other", noise(5 << 20))),
];

function filesOf(image: string): Record<string, string> {
  return Object.fromEntries(
    readdirSync(image)
      .sort()
      .map((name) => [
        name,
        createHash("sha256")
          .update(readFileSync(join(image, name)))
          .digest("hex"),
      ]),
  );
}

let home = 0;
/** The command as a user with files of its own and no others. */
function imgfs(
  files: Record<string, string>,
  args: readonly string[],
  { env, ...options }: RunOptions = {},
): Promise<Outcome> {
  const folder = place(`user-${home++}`);
  mkdirSync(folder);
  for (const [name, text] of Object.entries(files)) {
    mkdirSync(dirname(join(folder, name)), { recursive: true });
    writeFileSync(join(folder, name), text);
  }
  const own = { HOME: folder, XDG_RUNTIME_DIR: folder, XDG_CONFIG_HOME: join(folder, ".config") };
  return run(command, args, { ...options, env: { ...own, ...env } });
}

describe.skipIf(missing)(titleOf("a build from a registry", missing), () => {
  let plain: Served;
  let made: Layout;
  let certificates: Certificates;
  let expected: Record<string, string>;

  beforeAll(async () => {
    plain = await serveRegistry();
    made = new Layout(scratch("layout"));
    made.tag(made.image(layers, { compress: gzip }), "latest");
    await push(plain.host, "a/b", made);
    certificates = await makeCertificates();
    expected = filesOf(await build(`oci:${made.folder}`));
  });

  it("gives the files of a build from a layout, and takes layers again that are there", async () => {
    const dest = scratch("image");
    const args = ["build", `docker://${plain.host}/a/b`, dest, "--tls-verify=false"];
    expect(await imgfs({}, args)).toMatchObject({
      code: 0,
      stdout: expect.stringMatching(/: 4 layers, 50\d entries/),
    });
    expect(filesOf(dest)).toEqual(expected);
    const before = plain.log().split("/blobs/").length;
    expect((await imgfs({}, args)).stdout).toMatch(/4 layers \(4 already there\)/);
    // The config alone is fetched again.
    expect(plain.log().split("/blobs/").length - before).toBeLessThan(3);
    const flat = scratch("flat.imgfs");
    expect(
      (await imgfs({}, ["build", "--flatten", `docker:///${plain.host}/a/b`, flat, "--tls-verify=false"]))
        .code,
    ).toBe(0);
    expect(await shell(`'${command}' cat '${flat}' /etc/c`)).toBe("c");
  });

  it("takes plain and zstd layers, and foreign codecs of the blobs, in every way there is to decode", async () => {
    const zstd = new Layout(scratch("zstd"));
    const packed = new Map(
      await Promise.all(
        layers.map(async (layer) => {
          const path = scratch("layer");
          writeFileSync(path, layer);
          await shell(`zstd -q '${path}'`);
          return [layer, readFileSync(`${path}.zst`)] as const;
        }),
      ),
    );
    zstd.tag(zstd.image(layers, { compress: (layer) => packed.get(layer) as Buffer }), "zstd");
    await push(plain.host, "forms", zstd);
    const bare = new Layout(scratch("plain"));
    bare.tag(bare.image(layers), "plain");
    await push(plain.host, "forms", bare);
    const index = expected["index.imgfs"];
    for (const [tag, provider] of [
      ["plain", "node"],
      ["zstd", "libzstd"],
      ["zstd", "fzstd"],
    ] as const) {
      const dest = scratch("image");
      const args = ["build", `docker://${plain.host}/forms:${tag}`, dest, "--tls-verify=false"];
      expect((await imgfs({}, args, { env: { IMGFS_ZSTD: provider } })).code).toBe(0);
      expect(filesOf(dest)["index.imgfs"]).toBe(index);
    }
  });

  it("is the user's by --json, and names the digests", async () => {
    const { stdout } = await imgfs({}, [
      "build",
      `docker://${plain.host}/a/b`,
      scratch("image"),
      "--tls-verify=false",
      "--json",
    ]);
    const { layers: built, sourceDigest } = JSON.parse(stdout) as {
      layers: { digest: string; diffId: string }[];
      sourceDigest: string;
    };
    expect(sourceDigest).toBe(made.manifests[0]?.digest);
    expect(built.map(({ digest }) => digest)).toEqual(
      layers.map((layer) => `sha256:${createHash("sha256").update(gzip(layer)).digest("hex")}`),
    );
  });

  it("logs in by --username and --password-stdin, or by what podman and docker have stored", async () => {
    const { host } = await serveRegistry({ auth: htpasswd(), http: certificates.tls });
    const args = (dest: string, ...more: string[]) => [
      "build",
      `docker://${host}/a/b:latest`,
      dest,
      "--cert-dir",
      certificates.caFolder,
      ...more,
    ];
    const login = ["--username", ann.username, "--password-stdin"];
    for (const input of [ann.password, `${ann.password}\n`]) {
      const dest = scratch("image");
      expect((await imgfs({}, args(dest, ...login), { input })).code).toBe(0);
      expect(filesOf(dest)).toEqual(expected);
      // Nothing of the login is in what was made.
      for (const name of readdirSync(dest)) {
        const bytes = readFileSync(join(dest, name));
        for (const secret of [
          ann.password,
          Buffer.from(`${ann.username}:${ann.password}`).toString("base64"),
        ]) {
          expect(bytes.includes(secret)).toBe(false);
        }
      }
    }
    const stored = JSON.stringify({
      auths: { [host]: { auth: Buffer.from(`${ann.username}:${ann.password}`).toString("base64") } },
    });
    expect((await imgfs({ ".docker/config.json": stored }, args(scratch("image")))).code).toBe(0);
    expect((await imgfs({ "containers/auth.json": stored }, args(scratch("image")))).code).toBe(0);
    expect((await imgfs({}, args(scratch("image"), "--authfile", "/dev/null"))).code).toBe(12);

    const dest = scratch("image");
    expect(await imgfs({}, args(dest))).toMatchObject({
      code: 12,
      stdout: "",
      stderr: expect.stringMatching(
        /^imgfs: build docker:\/\/\S+: \S+\/a\/b: manifest latest: it does not exist, or needs a login[^\n]*\nhint: log in by [^\n]*\n$/,
      ),
    });
    const wrong = await imgfs({}, args(dest, ...login, "--debug", "--log-level", "trace"), {
      input: "wr0ng-s3cret",
    });
    expect(wrong.code).toBe(12);
    expect(wrong.stderr).toContain("the login is not accepted");
    expect(wrong.stdout + wrong.stderr).not.toMatch(/wr0ng-s3cret|d3Iwbmc|YW5uOn/);
    expect(existsSync(dest)).toBe(false);
  });

  it.skipIf(!hasCommand("skopeo"))("takes the login that skopeo has stored", async () => {
    const { host } = await serveRegistry({ auth: htpasswd() });
    const authfile = scratch("auth.json");
    const login = [
      "login",
      "--tls-verify=false",
      "--authfile",
      authfile,
      "--username",
      ann.username,
      "--password-stdin",
      host,
    ];
    expect(await run("skopeo", login, { input: ann.password })).toMatchObject({ code: 0 });
    const args = ["build", `docker://${host}/a/b`, scratch("image"), "--tls-verify=false"];
    expect(await imgfs({}, args, { env: { REGISTRY_AUTH_FILE: authfile } })).toMatchObject({ code: 0 });
  });

  it("gets a token, and shows our certificate where one is wanted", async () => {
    const tokens = await serveTokens(certificates);
    const { host } = await serveRegistry({ auth: tokens.auth });
    const dest = scratch("image");
    expect((await imgfs({}, ["build", `docker://${host}/a/b`, dest, "--tls-verify=false"])).code).toBe(0);
    expect(filesOf(dest)).toEqual(expected);
    expect(tokens.requests).toHaveLength(1);

    const clients = (await serveRegistry({ http: certificates.tlsWithClients })).host;
    const ours = scratch("image");
    const source = `docker://${clients}/a/b`;
    expect((await imgfs({}, ["build", source, ours, "--cert-dir", certificates.folder])).code).toBe(0);
    expect(filesOf(ours)).toEqual(expected);
  });

  it("goes to a mirror of registries.conf", async () => {
    const nobody = `127.0.0.1:${await freePort()}`;
    const conf = `[[registry]]
      location = "docker.io"
      [[registry.mirror]]
      location = "${nobody}"
      [[registry.mirror]]
      location = "${plain.host}/a"
      insecure = true
      [[registry]]
      location = "never.lan"
      blocked = true`;
    await push(plain.host, "a/library/image", made);
    const files = { ".config/containers/registries.conf": conf };
    const dest = scratch("image");
    const { code, stderr } = await imgfs(files, ["build", "docker://image", dest, "--progress", "none"]);
    expect([code, stderr]).toEqual([
      0,
      expect.stringMatching(/^imgfs: \S+: connection refused; trying again in \S+ s\n$/),
    ]);
    expect(filesOf(dest)).toEqual(expected);
    expect((await imgfs(files, ["build", "docker://never.lan/x", scratch("image")])).stderr).toMatch(
      /^imgfs: build docker:\/\/never\.lan\/x: never\.lan\/x: never\.lan is blocked by \S+registries\.conf\n$/,
    );
  });

  it("goes on where layers are cut, and says so", async () => {
    const proxy = await troubled(plain.host, ({ path }: Asked) =>
      path.includes("/blobs/") ? { cutAfter: 3_000_000 } : undefined,
    );
    const dest = scratch("image");
    const { code, stderr } = await imgfs({}, [
      "build",
      `docker://${proxy.host}/a/b`,
      dest,
      "--tls-verify=false",
    ]);
    expect(code).toBe(0);
    expect(stderr).toMatch(
      /^imgfs: \S+\/a\/b: the connection was closed at \d+ of \d+ bytes; trying again in \S+ s$/m,
    );
    expect(filesOf(dest)).toEqual(expected);
  });

  it("leaves nothing where a layer is damaged, and names registry, repository and layer", async () => {
    const big = JSON.parse(readFileSync(made.path(made.manifests[0]?.digest as string), "utf8")).layers[3]
      .digest as string;
    const cases: [(bytes: Buffer) => Buffer, RegExp][] = [
      [
        (bytes) => Buffer.from(bytes).fill(0x55, 4_000_000, 4_000_100),
        /layer 4 \(sha256:[0-9a-f]{64}\): (digest mismatch|damaged gzip data)/,
      ],
      [
        (bytes) => bytes.subarray(0, 1_000_000),
        /layer 4 \(sha256:[0-9a-f]{64}\): size mismatch: it has 1000000 bytes, the manifest says \d+$/,
      ],
    ];
    for (const [change, message] of cases) {
      const proxy = await troubled(plain.host, ({ path }) => (path.endsWith(big) ? { change } : undefined));
      const dest = scratch("image");
      const { code, stderr } = await imgfs({}, [
        "build",
        `docker://${proxy.host}/a/b`,
        dest,
        "--tls-verify=false",
        "--progress",
        "none",
      ]);
      expect(code).toBe(1);
      expect(stderr).toMatch(/^[^\n]+\n$/);
      expect(stderr.startsWith(`imgfs: build docker://${proxy.host}/a/b: ${proxy.host}/a/b: `)).toBe(true);
      expect(stderr.trimEnd()).toMatch(message);
      expect(existsSync(dest)).toBe(false);
    }
  });

  it("is stopped at once, in the middle of a layer, and leaves nothing", async () => {
    let isWaiting = false;
    const proxy = await troubled(plain.host, ({ path }) => {
      if (!path.includes("/blobs/")) return undefined;
      isWaiting = true;
      return { silentAfter: 100 };
    });
    const dest = scratch("image");
    const script = `'${command}' build docker://${proxy.host}/a/b '${dest}' --tls-verify=false & pid=$!; read go; kill -TERM $pid; wait $pid`;
    const { spawn } = await import("node:child_process");
    const child = spawn("sh", ["-c", script], { stdio: ["pipe", "ignore", "pipe"] });
    let said = "";
    child.stderr.on("data", (text) => {
      said += String(text);
    });
    while (!isWaiting) await new Promise((resolve) => setTimeout(resolve, 20));
    child.stdin.end("\n");
    const code = await new Promise((done) => child.on("close", done));
    expect([code, said]).toEqual([
      143,
      expect.stringMatching(/stopped by SIGTERM, nothing was left behind\n$/),
    ]);
    expect(existsSync(dest)).toBe(false);
  });

  it("tells wrong usage, what is absent, and who is no secret's friend", async () => {
    const at = `docker://${plain.host}`;
    const dest = scratch("image");
    const cases: [readonly string[], number, RegExp][] = [
      [
        ["build", `${at}/no/such`, dest, "--tls-verify=false"],
        10,
        /no\/such: manifest latest: not found \(MANIFEST_UNKNOWN/,
      ],
      [["build", `${at}/a/b:none`, dest, "--tls-verify=false"], 10, /a\/b: manifest none: not found/],
      [
        ["build", `${at}/a/b@sha256:${"0".repeat(64)}`, dest, "--tls-verify=false"],
        10,
        /manifest sha256:0{64}: not found/,
      ],
      [["build", `${at}/a/b`, dest], 1, /does not speak TLS\nhint: --cert-dir/],
      [
        ["build", `${at}/a/b`, dest, "--tls-verify=false", "--platform", "linux/mips"],
        1,
        /the image is for linux\/\w+, not for linux\/mips/,
      ],
      [
        ["build", "docker://UPPER/x y", dest],
        2,
        /"x y": not the name of a repository; the form is docker:\/\/NAME/,
      ],
      [["build", "docker://ann:pw-s3cret@h.io/x", dest], 2, /a login has no place in a reference/],
      [["build", `${at}/a/b`, dest, "--username", "ann"], 2, /--username and --password-stdin go together/],
      [
        ["build", `${at}/a/b`, dest, "--username", "ann", "--password-stdin"],
        2,
        /--password-stdin: no password came/,
      ],
      [
        ["build", made.folder, dest, "--tls-verify=false"],
        2,
        /--tls-verify: only a docker:\/\/ source is in a registry/,
      ],
    ];
    for (const [args, code, message] of cases) {
      const outcome = await imgfs({}, args, { input: "" });
      expect([args.join(" "), outcome.code, outcome.stderr]).toEqual([
        args.join(" "),
        code,
        expect.stringMatching(message),
      ]);
      expect(outcome.stderr).not.toContain("pw-s3cret");
      expect(existsSync(dest)).toBe(false);
    }
  });
});
