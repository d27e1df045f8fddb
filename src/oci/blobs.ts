// The blobs of an image, found by digest wherever its layout keeps them: a folder, an archive, a skopeo folder, a
// registry, or the descriptor itself. Small ones are read and checked here by size and digest; of a layer only presence and length are
// looked at.
import { open, readFile, stat } from "node:fs/promises";
import { join } from "node:path";
import { type Digest, digestAlgorithm, digestHex, type SourceDigest } from "../base/digest.js";
import { checkDigest } from "./config.js";
import { type Descriptor, maxJsonBytes } from "./schema.js";
import type { FileBytes, LayerBytes, LayerSource, RemoteBytes } from "./source.js";

/** Where blobs are. */
export interface Blobs {
  /** The folder or archive, for messages. */
  readonly place: string;
  /** Where a blob is: the range of a file or a remote place; undefined when there is none of that digest. */
  readonly find: (digest: SourceDigest, blob: Descriptor) => Promise<FileBytes | RemoteBytes | undefined>;
  /** The bytes of a small one, checked, where it is not in a file. */
  readonly fetch?: (kind: "manifest" | "config", subject: string, blob: Descriptor) => Promise<Uint8Array>;
}

/** A blob's path in a layout, image-layout.md#blobs. Made of a checked digest, so it cannot lead out of the layout. */
export function blobPath(digest: SourceDigest): string {
  return join("blobs", digestAlgorithm(digest), digestHex(digest));
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
async function locate(blobs: Blobs, subject: string, blob: Descriptor): Promise<LayerBytes> {
  const bytes = typeof blob.data === "string" ? embedded(blob.data) : await blobs.find(blob.digest, blob);
  if (bytes === undefined) throw new Error(`${blobs.place}: ${subject}: ${missing(blob)}`);
  if (bytes.size !== blob.size) {
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

function missing({ mediaType, urls }: Descriptor): string {
  if (mediaType === undefined || !/foreign|nondistributable/.test(mediaType)) return "the blob is missing";
  const from = urls?.length ? `; it comes from ${urls.join(" or ")}` : "";
  return `a layer that is not distributed with its image (${mediaType}), and is not here${from}`;
}

/** A manifest (an index is one, too) or config: its bytes, checked. */
export async function readBlob(
  blobs: Blobs,
  kind: "manifest" | "config",
  subject: string,
  blob: Descriptor,
): Promise<Uint8Array> {
  if (blob.size > maxJsonBytes) {
    throw new Error(`${blobs.place}: ${subject}: ${blob.size} bytes, at most ${maxJsonBytes} are accepted`);
  }
  if (blobs.fetch !== undefined && typeof blob.data !== "string") return blobs.fetch(kind, subject, blob);
  const found = await locate(blobs, subject, blob);
  const bytes = found.kind === "embedded" ? found.bytes : await readRange(found as FileBytes);
  checkDigest(`${blobs.place}: ${subject}`, bytes, blob.digest);
  return bytes;
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
  const subject = `layer ${index + 1} (${layer.digest})`;
  const mediaType = layer.mediaType ?? "application/vnd.oci.image.layer.v1.tar";
  if (mediaType.includes("encrypted")) throw new Error(`${subject}: encrypted layers are not supported`);
  return { bytes: await locate(blobs, subject, layer), mediaType, digest: layer.digest, diffId };
}
