// `oci:DIR[:TAG]` and `oci-archive:FILE[:TAG]`: an OCI image layout (image-spec, image-layout.md), as a folder or in a
// tar archive; in the latter layers stay where they are.
import { existsSync } from "node:fs";
import { join } from "node:path";
import { findMember, indexArchive, readMember } from "./archive-index.js";
import { type Blobs, blobPath, claimedPath, readSmall, wholeFile } from "./blobs.js";
import { openDescriptors } from "./manifest.js";
import { fullName, parseSelector } from "./names.js";
import type { Reference } from "./reference.js";
import { type Descriptor, Index, LayoutMarker, parseJson } from "./schema.js";
import type { ImageSource, SourceOptions } from "./source.js";
import { plainArchive } from "./unpack.js";

const refName = "org.opencontainers.image.ref.name";
/** The full reference, where containerd and docker save put it; their ref.name is the tag alone. */
const fullRefName = "io.containerd.image.name";

/** Opens the image that `reference` names in an OCI layout. Errors name the layout and the object. */
export async function openLayout(reference: Reference, options: SourceOptions): Promise<ImageSource> {
  const { path } = reference;
  const read = (name: string): Promise<Uint8Array> => readSmall(path, name, "an OCI layout");
  const find: Blobs["find"] = (digest) => wholeFile(join(path, blobPath(digest)));
  const findClaimed: Blobs["findClaimed"] = async (digest) =>
    digest.endsWith(":") ? undefined : wholeFile(join(path, claimedPath(digest)));
  const blobs = { place: path, find, ...(options.skipLayerValidation === true ? { findClaimed } : {}) };
  return openIndex(reference, read, blobs, options);
}

/** The same for a layout in a tar archive, which may be compressed as a whole. */
export async function openOciArchive(reference: Reference, options: SourceOptions): Promise<ImageSource> {
  const { path } = reference;
  const archive = await plainArchive(path, options);
  const index = await indexArchive(archive, path);
  const read = (name: string): Promise<Uint8Array> => readMember(index, name, "not an OCI archive");
  const find: Blobs["find"] = async (digest) => findMember(index, blobPath(digest));
  return openIndex(reference, read, { place: path, find }, options);
}

async function openIndex(
  reference: Reference,
  read: (name: string) => Promise<Uint8Array>,
  blobs: Blobs,
  options: SourceOptions,
): Promise<ImageSource> {
  const { path, text } = reference;
  // Guardian's has no marker.
  if (blobs.findClaimed === undefined || existsSync(join(path, "oci-layout"))) {
    parseJson(`${path}/oci-layout`, await read("oci-layout"), LayoutMarker);
  }
  const index = parseJson(`${path}/index.json`, await read("index.json"), Index);
  const chosen = chooseTag(reference, index.manifests);
  const from = { ...blobs, followsUrls: true };
  const image = await openDescriptors(from, `${path}/index.json`, chosen, text, options);
  if (!image.layers.some(({ bytes }) => bytes.kind === "remote")) return image;
  // Loaded where it is asked for: nothing else here needs a client of HTTP.
  const { openForeign } = await import("./registry/foreign.js");
  return { ...image, ...openForeign(options.registry ?? {}) };
}

/** The descriptors that the selector chooses: one, or several that differ by platform only. */
function chooseTag(reference: Reference, descriptors: readonly Descriptor[]): readonly Descriptor[] {
  const { path, selector, transport } = reference;
  const tagOf = ({ annotations }: Descriptor): string | undefined => annotations?.[refName];
  const tags = [...new Set(descriptors.map(tagOf).filter((tag) => tag !== undefined))];
  const list = tags.length === 0 ? "it has none" : `it has ${tags.join(", ")}`;
  if (selector !== undefined) {
    const chosen = select(selector, descriptors);
    if (chosen.length > 0) return chosen;
    throw new Error(`${path}: no tag ${JSON.stringify(selector)}; ${list}`);
  }
  if (descriptors.length === 0) throw new Error(`${path}: the layout has no image`);
  if (tags.length > 1 || (tags.length === 1 && descriptors.some((d) => tagOf(d) === undefined))) {
    const form = transport === "oci" ? "oci:DIR:TAG" : "oci-archive:FILE:TAG";
    throw new Error(`${path}: several images, choose one by ${form}; ${list}`);
  }
  return descriptors;
}

/** By the tag as it is written there; else by any way to write the same docker reference. */
function select(text: string, descriptors: readonly Descriptor[]): readonly Descriptor[] {
  const { name, digest, position } = parseSelector(text);
  const at = position === undefined ? descriptors : descriptors.slice(position, position + 1);
  const candidates = digest === undefined ? at : at.filter((descriptor) => descriptor.digest === digest);
  if (name === undefined) return digest === undefined ? candidates : candidates.slice(0, 1);
  const exact = candidates.filter(({ annotations }) => annotations?.[refName] === name);
  if (exact.length > 0) return exact;
  const wanted = fullName(name);
  return candidates.filter(({ annotations }) =>
    [annotations?.[fullRefName], annotations?.[refName]].some(
      (known) => known !== undefined && fullName(known) === wanted,
    ),
  );
}
