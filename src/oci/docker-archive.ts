// `docker-archive:FILE[:REF]`: what `docker save`, `podman save` and skopeo write (docker image-spec v1.2). Layers stay
// where they are in the archive; an old archive's layer may be a symlink to another member, a new one's a blob under
// blobs/sha256/. Names that hold a sha256 are checked against the bytes like any digest.
import { open } from "node:fs/promises";
import { type Digest, parseDigest } from "../base/digest.js";
import { type ArchiveIndex, findMember, indexArchive, type MemberRange } from "./archive-index.js";
import { checkConfig, checkDigest } from "./config.js";
import { parsePlatform } from "./platform.js";
import type { Reference } from "./reference.js";
import { DockerManifest, maxJsonBytes, parseJson } from "./schema.js";
import type { ImageSource, LayerSource, SourceOptions } from "./source.js";

type Entry = ReturnType<typeof parseManifest>[number];

/** Opens the image that `reference` names in a docker archive. Errors name the archive and the object. */
export async function openDockerArchive(reference: Reference, options: SourceOptions): Promise<ImageSource> {
  const path = reference.path;
  const asked = options.platform === undefined ? undefined : parsePlatform(options.platform);
  const index = await indexArchive(path);
  const entry = chooseEntry(reference, parseManifest(path, await readMember(path, index, "manifest.json")));
  const config = await readMember(path, index, entry.Config);
  const subject = `${path}: config ${entry.Config}`;
  const configDigest = digestInName(entry.Config);
  if (configDigest !== undefined) checkDigest(subject, config, configDigest);
  const { platform, diffIds } = checkConfig(subject, config, entry.Layers.length, asked);
  const layers = entry.Layers.map((name, i): LayerSource => {
    const range = member(path, index, name, `layer ${i + 1}`);
    return {
      bytes: { kind: "file", path, ...range },
      mediaType: "application/vnd.docker.image.rootfs.diff.tar",
      digest: name.startsWith("blobs/") ? digestInName(name) : undefined,
      diffId: diffIds[i] as Digest,
    };
  });
  return { name: reference.text, platform, config, layers };
}

function parseManifest(path: string, bytes: Uint8Array) {
  return parseJson(`${path}: manifest.json`, bytes, DockerManifest);
}

function chooseEntry(reference: Reference, entries: readonly Entry[]): Entry {
  const { path, selector } = reference;
  const tags = entries.flatMap((entry) => entry.RepoTags ?? []);
  const list = tags.length === 0 ? "it has no tags" : `it has ${tags.join(", ")}`;
  if (selector === undefined) {
    const only = entries[0];
    if (only === undefined) throw new Error(`${path}: manifest.json lists no image`);
    if (entries.length > 1) {
      throw new Error(`${path}: several images, choose one by docker-archive:FILE:REF; ${list}`);
    }
    return only;
  }
  const position = /^@(\d+)$/.exec(selector);
  const wanted = fullName(selector);
  const chosen = position
    ? entries[Number(position[1])]
    : entries.find((entry) => entry.RepoTags?.some((tag) => fullName(tag) === wanted));
  if (chosen === undefined) throw new Error(`${path}: no image ${JSON.stringify(selector)}; ${list}`);
  return chosen;
}

/** A docker reference with everything that may be left out: `debian` is `docker.io/library/debian:latest`. */
function fullName(reference: string): string {
  const slash = reference.indexOf("/");
  const first = slash < 0 ? "" : reference.slice(0, slash);
  const isHost = /[.:]/.test(first) || first === "localhost";
  const path = isHost ? reference : `docker.io/${reference}`;
  const full = /^docker\.io\/[^/]+$/.test(path) ? path.replace("/", "/library/") : path;
  return /:[^/]*$/.test(full) ? full : `${full}:latest`;
}

/** The digest in `<hex>.json`, `<hex>.tar` or `blobs/sha256/<hex>`. */
function digestInName(name: string): Digest | undefined {
  const match = /^(?:blobs\/sha256\/)?([0-9a-f]{64})(?:\.json|\.tar)?$/.exec(name);
  return match ? parseDigest(`sha256:${match[1]}`) : undefined;
}

function member(path: string, index: ArchiveIndex, name: string, subject: string): MemberRange {
  const range = findMember(index, name);
  if (range === undefined) throw new Error(`${path}: ${subject}: the archive has no ${JSON.stringify(name)}`);
  return { offset: range.offset, size: range.size };
}

async function readMember(path: string, index: ArchiveIndex, name: string): Promise<Uint8Array> {
  const { offset, size } = member(path, index, name, "not a docker archive");
  if (size > maxJsonBytes) {
    throw new Error(`${path}: ${name}: ${size} bytes, at most ${maxJsonBytes} are accepted`);
  }
  const file = await open(path, "r");
  try {
    const bytes = new Uint8Array(size);
    const { bytesRead } = await file.read(bytes, 0, size, offset);
    if (bytesRead !== size) throw new Error(`${path}: ${name}: the archive ends inside it`);
    return bytes;
  } finally {
    await file.close();
  }
}
