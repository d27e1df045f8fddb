// Fuzzing what names an image: the JSON of OCI layouts and docker archives, and the archives they come in. An input is
// right when it is opened, with every layer inside its file, or refused by an error of one line.
import { createHash } from "node:crypto";
import { mkdirSync, rmSync, statSync, writeFileSync } from "node:fs";
import { dirname, join } from "node:path";
import { openSource } from "../../src/oci/open.js";
import * as t from "../fixtures/tar.js";
import { type Input, type Kind, must, mustBeMessage, Wrong } from "./kind.js";
import { mutateBytes } from "./mutate.js";
import { Random } from "./random.js";
import { mutateTar } from "./tar-mutate.js";

type Json = null | boolean | number | string | Json[] | { [key: string]: Json };

const digest = (bytes: Buffer): string => `sha256:${createHash("sha256").update(bytes).digest("hex")}`;

const values: readonly Json[] = [
  null,
  true,
  0,
  -1,
  1.5,
  1e300,
  2 ** 53,
  2 ** 32,
  "",
  "x",
  "sha256:",
  "sha256:zz",
  `sha256:${"0".repeat(64)}`,
  `sha512:${"0".repeat(128)}`,
  `sha256:../../${"0".repeat(58)}`,
  "../../etc/passwd",
  "a\nb",
  "\u001b[31m",
  "\u0000",
  "layers",
  "linux",
  "amd64",
  "windows",
  [],
  {},
  [[]],
  [{}],
  [null],
  { __proto__: null },
  "x".repeat(5000),
  "blobs/sha256/x",
  "application/vnd.oci.image.index.v1+json",
  "application/vnd.oci.image.manifest.v1+json",
];

/** Every place in a value, as the object or array that holds it and the key in it. */
function placesOf(
  value: Json,
  found: [Record<string, Json>, string][] = [],
): [Record<string, Json>, string][] {
  if (typeof value !== "object" || value === null) return found;
  const holder = value as Record<string, Json>;
  for (const key of Object.keys(holder)) {
    found.push([holder, key]);
    placesOf(holder[key] as Json, found);
  }
  return found;
}

function mutateJson(random: Random, value: Json): Json {
  const root: Json = { root: structuredClone(value) };
  for (let i = random.pick([1, 1, 2, 3]); i > 0; i--) {
    const [holder, key]: [Record<string, Json>, string] = random.pick(placesOf(root));
    const old = holder[key] as Json;
    switch (random.below(7)) {
      case 0:
        if (Array.isArray(holder)) holder.splice(Number(key), 1);
        else if (holder !== root) delete holder[key];
        break;
      case 1:
        if (Array.isArray(old)) old.push(structuredClone(old[0] ?? random.pick(values)));
        else holder[`${key}2`] = structuredClone(old);
        break;
      case 2:
        holder[key] = [structuredClone(old)];
        break;
      case 3: {
        const [other, name] = random.pick(placesOf(root));
        holder[key] = structuredClone(other[name] as Json);
        break;
      }
      default:
        holder[key] = structuredClone(random.pick(values));
    }
  }
  return (root as { root: Json }).root ?? null;
}

/** JSON as bytes; now and then damaged, or nested out of all reason. */
function text(random: Random, value: Json, isVictim: boolean): Buffer {
  if (!isVictim) return Buffer.from(JSON.stringify(value));
  if (random.once(30)) return Buffer.from(`${"[".repeat(20_000)}${"]".repeat(20_000)}`);
  const bytes = Buffer.from(JSON.stringify(mutateJson(random, value)));
  return random.once(6) ? mutateBytes(random, bytes) : bytes;
}

const layer = t.tar(t.file("a", "content"));
const manifestType = "application/vnd.oci.image.manifest.v1+json";

function layoutFiles(random: Random): Map<string, Buffer> {
  const files = new Map<string, Buffer>();
  const victim = random.below(5);
  const blob = (bytes: Buffer, mediaType: string): { [key: string]: Json } => {
    files.set(`blobs/sha256/${digest(bytes).slice("sha256:".length)}`, bytes);
    return { mediaType, digest: digest(bytes), size: bytes.length };
  };
  const config = text(
    random,
    {
      architecture: "amd64",
      os: "linux",
      variant: "v1",
      rootfs: { type: "layers", diff_ids: [digest(layer)] },
    },
    victim === 0,
  );
  const manifest = text(
    random,
    {
      schemaVersion: 2,
      mediaType: manifestType,
      config: blob(config, "application/vnd.oci.image.config.v1+json"),
      layers: [blob(layer, "application/vnd.oci.image.layer.v1.tar")],
    },
    victim === 1,
  );
  const platform = { os: "linux", architecture: "amd64" };
  const one: Json = { ...blob(manifest, manifestType), platform };
  const inner = text(random, { schemaVersion: 2, manifests: [one] }, victim === 2);
  const entry = random.once(2) ? one : blob(inner, "application/vnd.oci.image.index.v1+json");
  const tagged: Json = { ...entry, annotations: { "org.opencontainers.image.ref.name": "latest" } };
  files.set("index.json", text(random, { schemaVersion: 2, manifests: [tagged] }, victim === 3));
  files.set("oci-layout", text(random, { imageLayoutVersion: "1.0.0" }, victim === 4));
  return files;
}

function dockerFiles(random: Random): Map<string, Buffer> {
  const victim = random.below(2);
  const config = text(
    random,
    { architecture: "amd64", os: "linux", rootfs: { type: "layers", diff_ids: [digest(layer)] } },
    victim === 0,
  );
  const name = random.once(2) ? "config.json" : `${digest(config).slice("sha256:".length)}.json`;
  const manifest = [{ Config: name, RepoTags: ["docker.io/library/test:latest"], Layers: ["id/layer.tar"] }];
  return new Map([
    ["id/layer.tar", layer],
    [name, config],
    ["manifest.json", text(random, manifest, victim === 1)],
  ]);
}

const archive = (files: ReadonlyMap<string, Buffer>): Buffer =>
  t.tar(...[...files].map(([name, bytes]) => t.file(name, bytes)));

export function sourceKind(folder: string): Kind {
  return {
    name: "sources",
    make(seed) {
      const random = new Random(seed);
      const label = random.pick(["oci", "oci", "docker-archive", "oci-archive"]);
      const files = label === "docker-archive" ? dockerFiles(random) : layoutFiles(random);
      if (label === "oci") {
        const entries = [...files].map(([name, bytes]) => [name, bytes.toString("base64")]);
        return { label, bytes: Buffer.from(JSON.stringify(Object.fromEntries(entries))) };
      }
      const whole = archive(files);
      return { label, bytes: random.once(2) ? whole : mutateTar(random, whole, whole) };
    },
    async run({ label, bytes }: Input) {
      const path = join(folder, "source");
      rmSync(path, { recursive: true, force: true });
      if (label === "oci") {
        const files = JSON.parse(bytes.toString()) as Record<string, string>;
        for (const [name, content] of Object.entries(files)) {
          mkdirSync(dirname(join(path, name)), { recursive: true });
          writeFileSync(join(path, name), Buffer.from(content, "base64"));
        }
      } else writeFileSync(path, bytes);
      for (const reference of [`${label}:${path}`, path]) {
        try {
          const source = await openSource(reference);
          for (const { bytes: place } of source.layers) {
            if (place.kind !== "file") continue;
            must(place.path.startsWith(path), `a layer outside of the source: ${place.path}`);
            const { size } = statSync(place.path);
            must(
              Number.isSafeInteger(place.offset) &&
                place.offset >= 0 &&
                place.size >= 0 &&
                place.offset + place.size <= size,
              `a layer of ${place.size} bytes at ${place.offset} of ${size}`,
            );
          }
        } catch (cause) {
          if (cause instanceof Wrong) throw cause;
          if ((cause as Error).constructor !== Error) throw new Wrong("no way to refuse a source", cause);
          mustBeMessage((cause as Error).message);
        }
      }
    },
  };
}
