// Layers that a layout says nothing true of, that are placed under a directory, and that lie on a server: what Garden makes of a
// preloaded+layer image, and what somebody who means harm might make of the same means.
import {
  existsSync,
  mkdirSync,
  readdirSync,
  readFileSync,
  rmSync,
  statSync,
  symlinkSync,
  utimesSync,
  writeFileSync,
} from "node:fs";
import type { IncomingMessage, RequestListener, Server } from "node:http";
import { createServer } from "node:http";
import { createServer as createTlsServer } from "node:https";
import type { AddressInfo } from "node:net";
import { join } from "node:path";
import { gzipSync } from "node:zlib";
import { beforeAll, describe, expect, it } from "vitest";
import { checkStore } from "../../src/store/check.js";
import { cannotMount, type Outcome, scratch, scratchDirectory, titleOf } from "../e2e/mounted.js";
import { editLayout, sha256 } from "../e2e/oci-writer.js";
import { layerTar } from "../e2e/tar-writer.js";
import { type Certificates, cannotServe, closeLater, makeCertificates } from "../oci/registry/serve.js";
import { guardianLayout, type PreloadedLayer } from "./guardian-layout.js";
import { file, folder, layoutOf, madeStore, names, type TestStore, tarOf } from "./kit.js";

const missing = cannotMount ?? cannotServe;
const inCi = process.env["CI"] !== undefined && process.env["CI"] !== "";
it.runIf(inCi)("preloaded+layer images are tested in CI", () => expect(missing).toBeUndefined());

const key = "org.cloudfoundry.experimental.image.base-directory";

/** A root filesystem as Cloud Foundry's: the app's directory is its user's alone. */
const rootfs = (): string =>
  tarOf(
    folder("etc/"),
    file("etc/motd", "hello\n"),
    file("etc/old", "older\n"),
    file("old", "oldest\n"),
    folder("home/", { mode: 0o711 }),
    folder("home/vcap/", { mode: 0o750, uid: 2000, gid: 2001 }),
    file("home/vcap/old", "old\n", { uid: 2000 }),
    file("home/vcap/gone", "gone\n"),
    { name: "link", type: "symlink", link: "home" },
  );

/** An app's layer, with what is said of its own paths, none of which may be those of the root. */
const app = layerTar([
  folder("app/", { uid: 2000, gid: 2000 }),
  file("app/run", "#!/bin/sh\n", { mode: 0o755 }),
  { name: "app/again", type: "link", link: "app/run" },
  { name: "kept", type: "link", link: "old" },
  file(".wh.gone", ""),
  file("../../../outside", "inside\n"),
  file("/etc/motd", "mine\n"),
]);
const appGz = gzipSync(app);

interface Served {
  readonly url: string;
  readonly asked: readonly IncomingMessage[];
}

/** A server of layers at /layer.tgz; anything else is not there. */
async function serve(
  answer: RequestListener = (_, response) => void response.end(appGz),
  certificates?: Certificates,
): Promise<Served> {
  const asked: IncomingMessage[] = [];
  const listener: RequestListener = (request, response) => {
    asked.push(request);
    if (request.url?.split("?")[0] === "/layer.tgz") answer(request, response);
    else response.writeHead(404).end();
  };
  const server: Server =
    certificates === undefined
      ? createServer(listener)
      : createTlsServer(
          {
            key: readFileSync(certificates.key),
            cert: readFileSync(certificates.cert),
            ca: readFileSync(join(certificates.folder, "ca.crt")),
            requestCert: true,
            rejectUnauthorized: true,
          },
          listener,
        );
  await new Promise<void>((listening) => server.listen(0, "127.0.0.1", listening));
  closeLater(() => {
    server.closeAllConnections();
    return new Promise((closed) => server.close(closed));
  });
  const scheme = certificates === undefined ? "http" : "https";
  return { url: `${scheme}://127.0.0.1:${(server.address() as AddressInfo).port}/layer.tgz`, asked };
}

function configFile(...create: readonly string[]): string {
  const path = scratch("config.yaml");
  writeFileSync(path, ["create:", ...create.map((line) => `  ${line}`), ""].join("\n"));
  return path;
}

const content = (store: TestStore): string[] =>
  readdirSync(join(store.path, "content"))
    .sort()
    .map((name) => {
      const { ino, mtimeMs } = statSync(join(store.path, "content", name));
      return `${name} ${ino} ${mtimeMs}`;
    });

const sound = (store: TestStore): void => {
  expect(checkStore(store.path, { data: true }).findings).toEqual([]);
  for (const left of ["tmp", "leases", "ingests"])
    if (existsSync(join(store.path, left))) {
      expect(readdirSync(join(store.path, left)).filter((name) => name !== "lock")).toEqual([]);
    }
};

describe.skipIf(missing).each(names)(titleOf("a preloaded+layer image, as %s", missing), (name) => {
  let certificates: Certificates;
  beforeAll(async () => {
    certificates = await makeCertificates();
  });

  const preloaded = (layer: string, more: Partial<PreloadedLayer> = {}): string =>
    guardianLayout(scratchDirectory("depot"), "handle", {
      rootfs: rootfs(),
      layer,
      layerPath: "/home/vcap",
      layerDigest: sha256(appGz),
      ...more,
    });
  const create = (store: TestStore, ...words: string[]): Promise<Outcome> =>
    store.call(name, "create", ...words);
  /** A create that must fail with one line that ends like `text`, and leave nothing. */
  const refused = async (store: TestStore, text: string | RegExp, ...words: string[]): Promise<void> => {
    const outcome = await create(store, ...words);
    expect(outcome.code).not.toBe(0);
    const [line = ""] = (name === "grootfs" ? outcome.stdout : outcome.stderr).split("\n");
    if (typeof text === "string") expect(line.slice(-text.length)).toBe(text);
    else expect(line).toMatch(text);
    expect(name === "grootfs" ? outcome.stderr : outcome.stdout).toBe("");
    expect(readdirSync(join(store.path, "images"))).toEqual([]);
    sound(store);
  };

  it("is the tar that a symlink leads to, and the app's layer below its directory, from a server that wants a certificate", async () => {
    const server = await serve(undefined, certificates);
    // As Garden's store of containers without privileges: root is the host's largest id.
    const maps = ["0:4294967294:1", "1:1:4294967293"];
    const store = await madeStore(...maps.flatMap((map) => ["--uid-mapping", map, "--gid-mapping", map]));
    const config = configFile(
      "skip_layer_validation: true",
      `remote_layer_client_certificates_path: ${certificates.folder}`,
    );
    const tar = rootfs();
    const depot = scratchDirectory("depot");
    const image: PreloadedLayer = {
      rootfs: tar,
      layer: `${server.url}?signature=s3cret`,
      layerPath: "/home/vcap",
      layerDigest: sha256(appGz),
    };
    await store.say(name, "--config", config, "create", guardianLayout(depot, "one", image), "one");
    const shown = (path: string): string => readFileSync(store.image("one", "rootfs", path), "utf8");
    expect(shown("etc/motd")).toBe("hello\n");
    expect(shown("home/vcap/app/run")).toBe("#!/bin/sh\n");
    expect(shown("home/vcap/app/again")).toBe("#!/bin/sh\n");
    expect(statSync(store.image("one", "rootfs/home/vcap/app/again")).nlink).toBe(2);
    expect(shown("home/vcap/kept")).toBe("old\n");
    expect(statSync(store.image("one", "rootfs/home/vcap/kept"))).toMatchObject({ nlink: 2, uid: 2000 });
    expect(shown("home/vcap/outside")).toBe("inside\n");
    expect(shown("home/vcap/etc/motd")).toBe("mine\n");
    expect(existsSync(store.image("one", "rootfs/home/vcap/gone"))).toBe(false);
    expect(readdirSync(store.image("one", "rootfs")).sort()).toEqual(["etc", "home", "link", "old"]);
    const owned = (path: string): object => {
      const { mode, uid, gid } = statSync(store.image("one", "rootfs", path));
      return { mode: mode & 0o7777, uid, gid };
    };
    expect(owned("home")).toEqual({ mode: 0o711, uid: 4294967294, gid: 4294967294 });
    expect(owned("home/vcap")).toEqual({ mode: 0o750, uid: 2000, gid: 2001 });
    expect(server.asked.map(({ url }) => url)).toEqual(["/layer.tgz?signature=s3cret"]);
    sound(store);

    // Another container's layout is other files; the tar and the app are the same.
    const before = content(store);
    await store.say(name, "--config", config, "create", guardianLayout(depot, "two", image), "two");
    expect(readFileSync(store.image("two", "rootfs/home/vcap/app/run"), "utf8")).toBe("#!/bin/sh\n");
    expect(content(store)).toEqual(before);
    expect(server.asked.length).toBe(1);

    // The plain image of the tar shares its layer; the app's layer elsewhere is another one.
    await store.say(name, "create", `tar:${tar}`, "plain");
    expect(content(store).filter((each) => !before.includes(each))).toHaveLength(1);
    const elsewhere = guardianLayout(depot, "three", { ...image, layerPath: "/etc" });
    await store.say(name, "--config", config, "create", elsewhere, "three");
    expect(readFileSync(store.image("three", "rootfs/etc/etc/motd"), "utf8")).toBe("mine\n");
    expect(existsSync(store.image("three", "rootfs/home/vcap/app"))).toBe(false);
    sound(store);
  });

  it("without the flag is refused, and without a certificate of the client's too", async () => {
    const server = await serve(undefined, certificates);
    const store = await madeStore();
    const url = preloaded(server.url);
    await refused(store, /not .*OCI layout: there is no oci-layout|digest/, url, "x");
    writeFileSync(join(url.slice("oci://".length), "oci-layout"), '{"imageLayoutVersion": "1.0.0"}');
    await refused(store, /blob has \d+ bytes, the descriptor says 0|layer size is different/, url, "x");
    expect(server.asked).toEqual([]);
    await refused(
      store,
      new RegExp(`layer 2 \\(sha256:${sha256(appGz)}\\): ${server.url}: the certificate of 127`),
      "--skip-layer-validation",
      url,
      "x",
    );
    // Each of the tries to reach the server takes its time: once is enough.
    if (name === "grootfs") return;
    const config = configFile(`remote_layer_client_certificates_path: ${certificates.caFolder}`);
    const outcome = await store.call(name, "--config", config, "create", "--skip-layer-validation", url, "x");
    expect(outcome.code).not.toBe(0);
    expect(outcome.stdout + outcome.stderr).toContain("layer 2 (sha256:");
    expect(server.asked).toEqual([]);
  });

  it("is fetched again where its digest is none or another's, and its tar read again when it changes", async () => {
    const server = await serve();
    const store = await madeStore();
    const tar = rootfs();
    const flag = "--skip-layer-validation";
    for (const [i, layerDigest] of ["", "some-digest", "0".repeat(64)].entries()) {
      await store.say(name, "create", flag, preloaded(server.url, { rootfs: tar, layerDigest }), `id-${i}`);
      expect(server.asked.length).toBe(i + 1);
      expect(readFileSync(store.image(`id-${i}`, "rootfs/home/vcap/app/run"), "utf8")).toBe("#!/bin/sh\n");
    }
    const changed = (path: string): Buffer => layerTar([file("home/vcap/old", ""), file(path, "new\n")]);
    writeFileSync(tar, changed("new"));
    utimesSync(tar, 1, 1);
    await store.say(name, "create", flag, preloaded(server.url, { rootfs: tar }), "changed");
    expect(readdirSync(store.image("changed", "rootfs")).sort()).toEqual(["home", "new"]);
    // A compressed tar is told by its bytes, whatever its type says.
    writeFileSync(tar, gzipSync(changed("packed")));
    const packed = preloaded(server.url, { rootfs: tar });
    const path = packed.slice("oci://".length);
    editLayout(path, ({ manifest }) => {
      for (const layer of manifest.layers) layer.size = -1;
    });
    await store.say(name, "pull", flag, packed);
    await store.say(name, "create", flag, packed, "packed");
    expect(readdirSync(store.image("packed", "rootfs")).sort()).toEqual(["home", "packed"]);
    sound(store);
  });

  it("goes on where a server cuts, unless it has another one then", async () => {
    const noise = Buffer.alloc(900_000, 0);
    for (let i = 0; i < noise.length; i++) noise[i] = (i * 2654435761) >>> 13;
    const large = layerTar([file("large", noise)]);
    const half = large.length >> 1;
    const cutting = (tag: (request: number) => string): Promise<Served> => {
      let count = 0;
      return serve((request, response) => {
        count++;
        const range = /^bytes=(\d+)-$/.exec(request.headers.range ?? "");
        const start = Number(range?.[1] ?? 0);
        const headers = { etag: tag(count), "content-length": large.length - start };
        if (range === null) response.writeHead(200, headers);
        else {
          const of = `bytes ${start}-${large.length - 1}/${large.length}`;
          response.writeHead(206, { ...headers, "content-range": of });
        }
        if (count > 1) response.end(large.subarray(start));
        else response.write(large.subarray(0, half), () => setTimeout(() => response.destroy(), 100));
      });
    };
    const steady = await cutting(() => '"one"');
    const store = await madeStore();
    const flag = "--skip-layer-validation";
    expect(await create(store, flag, preloaded(steady.url, { layerDigest: "" }), "x")).toMatchObject({
      code: 0,
      stderr:
        name === "grootfs"
          ? ""
          : expect.stringMatching(/^imgfs: \S+: .* at \d+ of 90\d+ bytes; trying again/),
    });
    expect(readFileSync(store.image("x", "rootfs/home/vcap/large")).equals(noise)).toBe(true);
    expect(steady.asked.length).toBe(2);
    await store.say(name, "delete", "x");
    const fickle = await cutting((count) => `"${count}"`);
    const other = await create(store, flag, preloaded(fickle.url, { layerDigest: "" }), "y");
    expect(other.code).not.toBe(0);
    expect(other.stdout + other.stderr).toMatch(
      /: it was cut, and what there is now is another one, or may be\n/,
    );
    sound(store);
  });

  it("never makes a false digest or diffID another image's", async () => {
    const [good, evil] = [layerTar([file("who", "good\n")]), layerTar([file("who", "evil\n")])];
    const goodGz = gzipSync(good);
    const server = await serve((_, response) => void response.end(gzipSync(evil)));
    const store = await madeStore();
    const flag = "--skip-layer-validation";
    const who = (id: string): string => readFileSync(store.image(id, "rootfs/who"), "utf8");
    // One layout has other bytes under the good one's names, another leaves them to a server.
    const lying = layoutOf(good);
    const digest = `sha256:${sha256(goodGz)}`;
    editLayout(lying, ({ manifest, put }) => {
      const { size } = put("", goodGz);
      Object.assign(manifest.layers[0] as object, { digest, size });
    });
    writeFileSync(join(lying, "blobs/sha256", sha256(goodGz)), gzipSync(evil));
    const leaving = layoutOf(good);
    editLayout(leaving, ({ manifest }) => {
      Object.assign(manifest.layers[0] as object, { digest, urls: [server.url] });
    });
    for (const each of readdirSync(join(leaving, "blobs/sha256"))) {
      const path = join(leaving, "blobs/sha256", each);
      if (
        readFileSync(path)
          .subarray(0, 2)
          .equals(Buffer.from([0x1f, 0x8b]))
      )
        rmSync(path);
    }
    await store.say(name, "create", flag, `oci://${lying}`, "lying");
    await store.say(name, "create", flag, `oci://${leaving}`, "leaving");
    expect([who("lying"), who("leaving")]).toEqual(["evil\n", "evil\n"]);
    expect(readdirSync(join(store.path, "content"))).not.toContain(`${sha256(good)}.imgfs`);
    const asked = server.asked.length;
    const honest = layoutOf(good);
    await store.say(name, "create", `oci://${honest}`, "good");
    await store.say(name, "create", flag, `oci://${honest}`, "skipped");
    expect([who("good"), who("skipped")]).toEqual(["good\n", "good\n"]);
    expect(server.asked.length).toBe(asked);
    // A layer below a directory is not the plain one of the same bytes, whichever comes first.
    const placed = layoutOf(layerTar([folder("a/")]), good);
    editLayout(placed, ({ manifest }) => {
      Object.assign(manifest.layers[1] as object, { annotations: { [key]: "a" } });
    });
    await store.say(name, "create", `oci://${placed}`, "placed");
    expect(readFileSync(store.image("placed", "rootfs/a/who"), "utf8")).toBe("good\n");
    expect(existsSync(store.image("placed", "rootfs/who"))).toBe(false);
    sound(store);
    const fresh = await madeStore();
    await fresh.say(name, "create", `oci://${placed}`, "placed");
    await fresh.say(name, "create", `oci://${honest}`, "good");
    expect(readFileSync(fresh.image("good", "rootfs/who"), "utf8")).toBe("good\n");
    sound(fresh);
  });

  it("is refused where its directory is not there, or is a symlink or a file, and cannot be outside", async () => {
    const server = await serve();
    const store = await madeStore();
    const flag = "--skip-layer-validation";
    const layer = `layer 2 (sha256:${sha256(appGz)}): `;
    const at = (layerPath: string): string => preloaded(server.url, { layerPath });
    const notFound = `${layer}base directory not found in parent layer: `;
    await refused(store, `${notFound}home/nobody`, flag, at("/home/nobody"), "x");
    await refused(store, `${notFound}home/vcap/a/b`, flag, at("/home/vcap/a/b"), "x");
    await refused(store, `${notFound}link/vcap`, flag, at("/link/vcap"), "x");
    await refused(store, `${notFound}etc/motd`, flag, at("/etc/motd"), "x");
    const long = "x".repeat(256);
    await refused(store, `name of 256 bytes, at most 255 are accepted`, flag, at(`/${long}`), "x");
    await refused(store, "the name of a whiteout is that of no directory", flag, at("/home/.wh.vcap"), "x");
    await refused(store, "a name with a NUL", flag, at("/home/a\0b"), "x");
    await store.say(name, "create", flag, at("../../..//./home/../etc/"), "odd");
    expect(readFileSync(store.image("odd", "rootfs/etc/etc/motd"), "utf8")).toBe("mine\n");
    await store.say(name, "create", flag, at("/.."), "root");
    expect(readFileSync(store.image("root", "rootfs/etc/motd"), "utf8")).toBe("mine\n");
  });

  it("stops coming where it is more than its limit, however much there is", async () => {
    let isGone = false;
    const server = await serve((_, response) => {
      const more = (): void => void (isGone || response.write(Buffer.alloc(100_000), more));
      response.on("close", () => {
        isGone = true;
      });
      response.write(layerTar([{ name: "endless", data: Buffer.alloc(10_240) }]).subarray(0, 10_240), more);
    });
    const store = await madeStore();
    const limit = ["--skip-layer-validation", "--disk-limit-size-bytes", String(1 << 20)];
    const url = preloaded(server.url, { layerDigest: "" });
    await refused(store, "uncompressed layer size exceeds quota", ...limit, url, "x");
    expect(server.asked.length).toBe(1);
  });

  it("is refused where the layer cannot be had, without telling a login or a signature", async () => {
    const server = await serve();
    const store = await madeStore();
    const flag = "--skip-layer-validation";
    const layer = `layer 2 (sha256:${sha256(appGz)}): `;
    const place = server.url.replace("/layer.tgz", "/none");
    await refused(store, `${layer}${place}: not found`, flag, preloaded(`${place}?secret`), "x");
    const none = "none of its URLs is fetched: that needs http or https, and no login in it";
    for (const url of [`file://${rootfs()}`, server.url.replace("//", "//ann:s3cret@"), "nonsense"]) {
      await refused(store, `${layer}the blob is missing, and ${none}`, flag, preloaded(url), "x");
    }
    expect(server.asked.length).toBe(1);
    // No digest leads out of the layout.
    const outside = preloaded(server.url, { layerDigest: "../../../../../etc/passwd" });
    await refused(store, "not a digest", flag, outside, "x");
    const depot = scratchDirectory("depot");
    mkdirSync(join(depot, "folder"));
    const image = { rootfs: rootfs(), layer: server.url, layerPath: "/", layerDigest: "folder" };
    const url = guardianLayout(depot, "a", image);
    symlinkSync(join(depot, "folder"), join(url.slice("oci://".length), "blobs/sha256/folder"));
    await refused(store, "blobs/sha256/folder: not a file", flag, url, "x");
  });
});
