// `docker-archive:FILE[:REF]`: what `docker save`, `podman save` and skopeo write (docker image-spec v1.2). Layers stay
// where they are in the archive; an old archive's layer may be a symlink to another member, a new one's a blob under
// blobs/sha256/. Names that hold a sha256 are checked against the bytes like any digest.
import { type Digest, parseDigest } from "../base/digest.js";
import { type ArchiveIndex, findMember, indexArchive, readMember } from "./archive-index.js";
import { checkConfig, checkDigest } from "./config.js";
import { fullName, parseSelector } from "./names.js";
import { parsePlatform } from "./platform.js";
import type { Reference } from "./reference.js";
import { DockerManifest, parseJson } from "./schema.js";
import type { FileBytes, ImageSource, LayerSource, SourceOptions } from "./source.js";
import { plainArchive } from "./unpack.js";

type Entry = ReturnType<typeof parseManifest>[number];

/** Opens the image that `reference` names in a docker archive. Errors name the archive and the object. */
export async function openDockerArchive(reference: Reference, options: SourceOptions): Promise<ImageSource> {
  const path = reference.path;
  const asked = options.platform === undefined ? undefined : parsePlatform(options.platform);
  const index = await indexArchive(await plainArchive(path, options), path);
  const read = (name: string): Promise<Uint8Array> => readMember(index, name, "not a docker archive");
  const entry = chooseEntry(reference, parseManifest(path, await read("manifest.json")));
  const config = await read(entry.Config);
  const subject = `${path}: config ${entry.Config}`;
  const configDigest = digestInName(entry.Config);
  if (configDigest !== undefined) checkDigest(subject, config, configDigest);
  const { platform, diffIds } = checkConfig(subject, config, entry.Layers.length, asked);
  const layers = entry.Layers.map(
    (name, i): LayerSource => ({
      bytes: layerRange(index, name, i),
      mediaType: "application/vnd.docker.image.rootfs.diff.tar",
      digest: name.startsWith("blobs/") ? digestInName(name) : undefined,
      diffId: diffIds[i] as Digest,
    }),
  );
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
  const { name, position, digest } = parseSelector(selector);
  const at = position === undefined ? entries : entries.slice(position, position + 1);
  const wanted = name === undefined ? undefined : fullName(name);
  const chosen = at.find(
    ({ RepoTags, Config }) =>
      (wanted === undefined || RepoTags?.some((tag) => fullName(tag) === wanted)) &&
      (digest === undefined || digestInName(Config) === digest),
  );
  if (chosen === undefined) throw new Error(`${path}: no image ${JSON.stringify(selector)}; ${list}`);
  return chosen;
}

/** The digest in `<hex>.json`, `<hex>.tar` or `blobs/sha256/<hex>`. */
function digestInName(name: string): Digest | undefined {
  const match = /^(?:blobs\/sha256\/)?([0-9a-f]{64})(?:\.json|\.tar)?$/.exec(name);
  return match ? parseDigest(`sha256:${match[1]}`) : undefined;
}

function layerRange(index: ArchiveIndex, name: string, i: number): FileBytes {
  const range = findMember(index, name);
  if (range !== undefined) return range;
  throw new Error(`${index.name}: layer ${i + 1}: the archive has no ${JSON.stringify(name)}`);
}
