// Real registries for tests: Debian's docker-registry on 127.0.0.1, one process for each way of asking for a login, all
// on one storage folder, so that what is pushed to the plain one is in every other.
import { type ChildProcess, spawn } from "node:child_process";
import { mkdtempSync, readFileSync, rmSync, writeFileSync } from "node:fs";
import { createServer } from "node:net";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { setTimeout as sleep } from "node:timers/promises";
import { request } from "undici";
import { afterAll } from "vitest";
import { hasCommand, shell } from "../../e2e/mounted.js";
import type { Layout } from "../../fixtures/oci.js";

export const cannotServe: string | undefined = ["docker-registry", "openssl"]
  .map((command) => (hasCommand(command) ? undefined : `${command} is missing`))
  .find(Boolean);

/** A user that the registry with htpasswd knows. The hash is bcrypt's, the only one that it takes. */
export const ann = { kind: "password", username: "ann", password: "s3cret:word" } as const;
const annHash = "$2y$05$fYfTrQIg7Ayi7P3FOzmglerafACS9tZFOeW3Sze2n7PMinBpxJMqy";

const folder = mkdtempSync(join(tmpdir(), "imgfs-registry-"));
const children: ChildProcess[] = [];
const closers: (() => Promise<unknown> | unknown)[] = [];

afterAll(async () => {
  await Promise.all(closers.map((close) => close()));
  await Promise.all(
    children.map((child) => {
      if (child.exitCode !== null || child.signalCode !== null) return undefined;
      const gone = new Promise((done) => child.once("exit", done));
      child.kill("SIGKILL");
      return gone;
    }),
  );
  rmSync(folder, { recursive: true, force: true });
});

/** Runs `close` when the tests of the file are over. */
export function closeLater(close: () => Promise<unknown> | unknown): void {
  closers.push(close);
}

export const place = (name: string): string => join(folder, name);

/** A port that nothing listened on a moment ago. */
export function freePort(): Promise<number> {
  return new Promise((resolve, reject) => {
    const server = createServer().on("error", reject);
    server.listen(0, "127.0.0.1", () => {
      const { port } = server.address() as { port: number };
      server.close(() => resolve(port));
    });
  });
}

export interface Served {
  /** `127.0.0.1:port`. */
  readonly host: string;
  /** What its log says so far. */
  readonly log: () => string;
}

let serial = 0;

/** Starts a registry; `http` and `auth` are lines of its configuration. `storage` names its storage folder. */
export async function serveRegistry(
  options: { readonly http?: string; readonly auth?: string; readonly storage?: string } = {},
): Promise<Served> {
  const { http = "", auth = "", storage = "store" } = options;
  for (let attempt = 0; ; attempt++) {
    const port = await freePort();
    const host = `127.0.0.1:${port}`;
    const name = place(`registry-${serial++}`);
    writeFileSync(
      `${name}.yml`,
      [
        "version: 0.1",
        "log: {level: info, accesslog: {disabled: false}}",
        `storage: {filesystem: {rootdirectory: ${place(storage)}}, delete: {enabled: true}}`,
        "http:",
        `  addr: ${host}`,
        "  secret: not-one",
        ...http.split("\n").map((line) => `  ${line}`),
        auth,
        "",
      ].join("\n"),
    );
    const child = spawn("docker-registry", ["serve", `${name}.yml`], { stdio: ["ignore", "pipe", "pipe"] });
    children.push(child);
    let log = "";
    for (const stream of [child.stdout, child.stderr]) {
      stream.setEncoding("utf8").on("data", (text: string) => {
        log += text;
      });
    }
    for (let waited = 0; child.exitCode === null && waited < 30_000; waited += 50) {
      if (await isListening(port)) return { host, log: () => log };
      await sleep(50);
    }
    child.kill("SIGKILL");
    if (attempt === 3) throw new Error(`no registry: ${log}`);
  }
}

async function isListening(port: number): Promise<boolean> {
  const { Socket } = await import("node:net");
  return new Promise((resolve) => {
    const socket = new Socket();
    const end = (is: boolean) => {
      socket.destroy();
      resolve(is);
    };
    socket.on("connect", () => end(true)).on("error", () => end(false));
    socket.connect(port, "127.0.0.1");
  });
}

export const htpasswd = (): string => {
  const path = place("htpasswd");
  writeFileSync(path, `ann:${annHash}\n`);
  return `auth: {htpasswd: {realm: tests, path: ${path}}}`;
};

/** Pushes the images of a layout, each under its tag; images without one are pushed as what an index lists. */
export async function push(host: string, repository: string, layout: Layout): Promise<void> {
  const put = async (descriptor: { digest: string; mediaType: string; size: number }): Promise<void> => {
    const bytes = readFileSync(layout.path(descriptor.digest));
    const document = /manifest|index/.test(descriptor.mediaType)
      ? (JSON.parse(bytes.toString()) as Record<string, never[]>)
      : undefined;
    if (document === undefined) return putBlob(host, repository, descriptor.digest, bytes);
    const parts = [document["config"], ...(document["layers"] ?? []), ...(document["manifests"] ?? [])];
    for (const part of parts as unknown as {
      digest: string;
      mediaType: string;
      size: number;
      urls?: string[];
    }[]) {
      if (part !== undefined && part.urls === undefined) await put(part);
    }
    await putManifest(host, repository, descriptor.digest, bytes, descriptor.mediaType);
  };
  for (const descriptor of layout.manifests) {
    await put(descriptor);
    const tag = descriptor.annotations?.["org.opencontainers.image.ref.name"];
    if (tag === undefined) continue;
    await putManifest(
      host,
      repository,
      tag,
      readFileSync(layout.path(descriptor.digest)),
      descriptor.mediaType,
    );
  }
}

async function expectStatus(what: string, wanted: number, sent: ReturnType<typeof request>) {
  const response = await sent;
  const text = await response.body.text();
  if (response.statusCode !== wanted) throw new Error(`${what}: ${response.statusCode}: ${text}`);
  return response.headers;
}

export async function putBlob(
  host: string,
  repository: string,
  digest: string,
  bytes: Buffer,
): Promise<void> {
  const start = `http://${host}/v2/${repository}/blobs/uploads/`;
  const { location } = await expectStatus("upload", 202, request(start, { method: "POST" }));
  const url = new URL(String(location), start);
  url.searchParams.set("digest", digest);
  const headers = { "content-type": "application/octet-stream" };
  await expectStatus("blob", 201, request(url, { method: "PUT", body: bytes, headers }));
}

export async function putManifest(
  host: string,
  repository: string,
  reference: string,
  bytes: Buffer,
  mediaType: string,
): Promise<void> {
  const url = `http://${host}/v2/${repository}/manifests/${reference}`;
  const headers = { "content-type": mediaType };
  await expectStatus("manifest", 201, request(url, { method: "PUT", body: bytes, headers }));
}

/** Where a registry keeps the bytes of a blob. */
export function storedBlob(digest: string, storage = "store"): string {
  const hex = digest.replace("sha256:", "");
  return join(place(storage), `docker/registry/v2/blobs/sha256/${hex.slice(0, 2)}/${hex}/data`);
}

export interface Certificates {
  /** Folder as certs.d has one: ca.crt, client.cert, client.key. */
  readonly folder: string;
  /** Only ca.crt. */
  readonly caFolder: string;
  /** Lines for a registry's http section. */
  readonly tls: string;
  readonly tlsWithClients: string;
  readonly key: string;
  readonly cert: string;
}

/** A private authority, a certificate of it for 127.0.0.1 and localhost, and one for a client. */
export async function makeCertificates(): Promise<Certificates> {
  const at = place("tls");
  await shell(`
    mkdir -p '${at}/client' '${at}/only-ca'; cd '${at}'
    openssl req -x509 -newkey rsa:2048 -nodes -days 2 -subj /CN=imgfs-test-ca -keyout ca.key -out ca.crt 2>/dev/null
    sign() {
      openssl req -newkey rsa:2048 -nodes -subj "/CN=$1" -keyout $1.key -out $1.csr 2>/dev/null
      printf '%s' "$2" > $1.ext
      openssl x509 -req -in $1.csr -CA ca.crt -CAkey ca.key -CAcreateserial -days 2 -extfile $1.ext -out $1.crt 2>/dev/null
    }
    sign server 'subjectAltName=IP:127.0.0.1,DNS:localhost'
    sign client 'extendedKeyUsage=clientAuth'
    cp ca.crt client/; cp ca.crt only-ca/; cp client.crt client/client.cert; cp client.key client/client.key`);
  const tls = `tls: {certificate: ${at}/server.crt, key: ${at}/server.key}`;
  return {
    folder: join(at, "client"),
    caFolder: join(at, "only-ca"),
    tls,
    tlsWithClients: tls.replace("}", `, clientcas: [${at}/ca.crt]}`),
    key: join(at, "server.key"),
    cert: join(at, "server.crt"),
  };
}
