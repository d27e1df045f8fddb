// The blobs of an image, found by digest wherever its layout keeps them: a folder, an archive, a skopeo folder, a
// registry, or the descriptor itself. Small ones are read and checked here by size and digest; of a layer only presence and length are
// looked at.
import { open, readFile, stat } from "node:fs/promises";
import { join } from "node:path";
import { type Digest, digestAlgorithm, digestHex, type SourceDigest } from "../base/digest.js";
import { baseDirectoryOf } from "./base-directory.js";
import { checkDigest } from "./config.js";
import { type ClaimedDescriptor, type Descriptor, maxJsonBytes } from "./schema.js";
import type { FileBytes, LayerBytes, LayerSource, RemoteBytes } from "./source.js";
import { displayUrl, followed } from "./urls.js";

/** Where blobs are. */
export interface Blobs {
  /** The folder or archive, for messages. */
  readonly place: string;
  /** Where a blob is: the range of a file or a remote place; undefined when there is none of that digest. */
  readonly find: (digest: SourceDigest, blob: Descriptor) => Promise<FileBytes | RemoteBytes | undefined>;
  /** The bytes of a small one, checked, where it is not in a file. */
  readonly fetch?: (kind: "manifest" | "config", subject: string, blob: Descriptor) => Promise<Uint8Array>;
  /** Layers that are not here come from the URLs of their descriptors. */
  readonly followsUrls?: boolean;
  /** Where a layer is by a digest that is not believed. Where there is this, sizes are not compared. */
  readonly findClaimed?: (digest: string) => Promise<FileBytes | undefined>;
}

/** A blob's path in a layout, image-layout.md#blobs. Made of a checked digest, so it cannot lead out of the layout. */
export function blobPath(digest: SourceDigest): string {
  return join("blobs", digestAlgorithm(digest), digestHex(digest));
}

/** The same of a digest that is not believed; its grammar has no slash and no dot after the colon (schema.ts). */
export function claimedPath(digest: string): string {
  const colon = digest.indexOf(":");
  return join("blobs", digest.slice(0, colon), digest.slice(colon + 1));
}

/** A whole file as bytes of a source; undefined when there is none at the path. */
export async function wholeFile(path: string): Promise<FileBytes | undefined> {
  const found = await stat(path).catch((cause: NodeJS.ErrnoException) => {
    if (cause.code === "ENOENT") return undefined;
    throw cause;
  });
  if (found === undefined) return undefined;
  if (!found.isFile()) throw new Error(`${path}: not a file`);
  return { kind: "file", path, offset: 0, size: found.size };
}

/** Where the object of a descriptor is: embedded data first. Throws an Error naming `subject` when it is nowhere. */
async function locate(
  blobs: Blobs,
  subject: string,
  blob: Descriptor,
  elsewhere?: RemoteBytes,
): Promise<LayerBytes> {
  const here = typeof blob.data === "string" ? embedded(blob.data) : await blobs.find(blob.digest, blob);
  const bytes = here ?? elsewhere;
  if (bytes === undefined) throw new Error(`${blobs.place}: ${subject}: ${missing(blobs, blob)}`);
  if (bytes.size !== blob.size && blobs.findClaimed === undefined) {
    throw new Error(
      `${blobs.place}: ${subject}: the blob has ${bytes.size} bytes, the descriptor says ${blob.size}`,
    );
  }
  return bytes;
}

function embedded(data: string): LayerBytes {
  const bytes = new Uint8Array(Buffer.from(data, "base64"));
  return { kind: "embedded", bytes, size: bytes.length };
}

/** A layer at the URLs of its descriptor; undefined where none is followed. */
function remote(
  { followsUrls }: Blobs,
  { urls }: Pick<Descriptor, "urls">,
  size: number,
  digest: SourceDigest | undefined,
): RemoteBytes | undefined {
  const places = followsUrls === true ? followed(urls).map(({ href }) => href) : [];
  return places.length === 0 ? undefined : { kind: "remote", digest, size, urls: places, isForeign: true };
}

function missing(
  { followsUrls }: Blobs,
  { mediaType, urls }: Pick<Descriptor, "mediaType" | "urls">,
): string {
  if (followsUrls === true && urls?.length) {
    return "the blob is missing, and none of its URLs is fetched: that needs http or https, and no login in it";
  }
  if (mediaType === undefined || !/foreign|nondistributable/.test(mediaType)) return "the blob is missing";
  const places = followed(urls).map(displayUrl);
  const from = places.length > 0 ? `; it comes from ${places.join(" or ")}` : "";
  return `a layer that is not distributed with its image (${mediaType}), and is not here${from}`;
}

/** A manifest (an index is one, too) or config: its bytes, checked. */
export async function readBlob(
  blobs: Blobs,
  kind: "manifest" | "config",
  subject: string,
  blob: Descriptor,
): Promise<Uint8Array> {
  refuseLarge(blobs, subject, blob);
  if (blobs.fetch !== undefined && typeof blob.data !== "string") return blobs.fetch(kind, subject, blob);
  const found = await locate(blobs, subject, blob);
  refuseLarge(blobs, subject, found);
  const bytes = found.kind === "embedded" ? found.bytes : await readRange(found as FileBytes);
  checkDigest(`${blobs.place}: ${subject}`, bytes, blob.digest);
  return bytes;
}

function refuseLarge({ place }: Blobs, subject: string, { size }: { readonly size: number }): void {
  if (size <= maxJsonBytes) return;
  throw new Error(`${place}: ${subject}: ${size} bytes, at most ${maxJsonBytes} are accepted`);
}

/** The bytes of a range, all of them. The caller has bounded its size. */
export async function readRange(range: FileBytes): Promise<Uint8Array> {
  const file = await open(range.path, "r");
  try {
    const bytes = new Uint8Array(range.size);
    for (let done = 0; done < bytes.length; ) {
      const { bytesRead } = await file.read(bytes, done, bytes.length - done, range.offset + done);
      if (bytesRead === 0) throw new Error(`${range.path}: it ends at ${range.offset + done} bytes`);
      done += bytesRead;
    }
    return bytes;
  } finally {
    await file.close();
  }
}

/** A small file of a layout's folder. `kind` is what the folder is not when the file is missing. */
export async function readSmall(folder: string, name: string, kind: string): Promise<Uint8Array> {
  const path = join(folder, name);
  const found = await stat(path).catch((cause: NodeJS.ErrnoException) => {
    if (cause.code !== "ENOENT" && cause.code !== "ENOTDIR") throw cause;
    throw new Error(`${folder}: not ${kind}: there is no ${name}`);
  });
  if (found.size > maxJsonBytes) {
    throw new Error(`${path}: ${found.size} bytes, at most ${maxJsonBytes} are accepted`);
  }
  return readFile(path);
}

/** A layer as its manifest and config describe it; `index` counts from 0. */
export async function layerSource(
  blobs: Blobs,
  layer: Descriptor,
  index: number,
  diffId: Digest,
): Promise<LayerSource> {
  const { digest } = layer;
  const subject = subjectOf(layer, index);
  const about = describe(subject, layer);
  const bytes = await locate(blobs, subject, layer, remote(blobs, layer, layer.size, digest));
  return { ...about, bytes, digest, diffId };
}

/** A layer whose descriptor is not believed: where its bytes are, and nothing of what they should be. */
export async function claimedLayer(
  blobs: Blobs,
  layer: ClaimedDescriptor,
  index: number,
): Promise<LayerSource> {
  const { data, digest, size } = layer;
  const subject = subjectOf(layer, index);
  const about = describe(subject, layer);
  const bytes =
    (typeof data === "string" ? embedded(data) : await blobs.findClaimed?.(digest)) ??
    remote(blobs, layer, 0, undefined);
  if (bytes === undefined) throw new Error(`${blobs.place}: ${subject}: ${missing(blobs, layer)}`);
  return { ...about, bytes, digest: undefined, diffId: undefined, claim: { digest, size } };
}

function subjectOf({ digest }: ClaimedDescriptor, index: number): string {
  return `layer ${index + 1} (${digest})`;
}

function describe(
  subject: string,
  layer: ClaimedDescriptor,
): Pick<LayerSource, "mediaType" | "baseDirectory"> {
  const mediaType = layer.mediaType ?? "application/vnd.oci.image.layer.v1.tar";
  if (mediaType.includes("encrypted")) throw new Error(`${subject}: encrypted layers are not supported`);
  try {
    return { mediaType, baseDirectory: baseDirectoryOf(layer) };
  } catch (cause) {
    throw new Error(`${subject}: ${(cause as Error).message}`);
  }
}
