// The JSON objects of an image, as valibot schemas (image-spec: image-index.md, manifest.md, config.md, descriptor.md,
// image-layout.md; docker: image-spec v1.2 manifest.json). Only what is used is described; other fields are let by.
// Every object comes from outside: its size is bounded before it is parsed, and a fault is one line with its path.
import * as v from "valibot";
import { type Digest, parseDigest } from "../base/digest.js";

/** Bytes that an index, a manifest or a config may have: what registries accept (distribution-spec, manifests). */
export const maxJsonBytes = 4 << 20;

const digest = v.pipe(
  v.string(),
  v.rawTransform(({ dataset, addIssue, NEVER }): Digest => {
    try {
      return parseDigest(dataset.value);
    } catch (cause) {
      addIssue({ message: (cause as Error).message });
      return NEVER;
    }
  }),
);

const size = v.pipe(v.number(), v.safeInteger(), v.minValue(0));
const optionalText = v.optional(v.string());

const platform = v.object({ os: v.string(), architecture: v.string(), variant: optionalText });

export const Descriptor = v.object({
  mediaType: optionalText,
  digest,
  size,
  platform: v.nullish(platform),
  annotations: v.nullish(v.record(v.string(), v.string())),
});
export type Descriptor = v.InferOutput<typeof Descriptor>;

const schemaVersion = v.literal(2, (issue) => `schema version ${issue.received} is not supported, only 2 is`);

/** oci-layout, image-layout.md. */
export const LayoutMarker = v.object({
  imageLayoutVersion: v.pipe(
    v.string(),
    v.regex(/^1\./, (issue) => `layout version ${issue.received} is not supported, only 1.x is`),
  ),
});

/** An image index or a docker manifest list. */
export const Index = v.object({ schemaVersion, manifests: v.array(Descriptor) });

/** An image manifest, of OCI or docker's schema 2. */
export const Manifest = v.object({ schemaVersion, config: Descriptor, layers: v.array(Descriptor) });
export type Manifest = v.InferOutput<typeof Manifest>;

/** The part of an image config that a filesystem needs. */
export const Config = v.object({
  os: v.string(),
  architecture: v.string(),
  variant: optionalText,
  rootfs: v.object({ type: v.literal("layers"), diff_ids: v.array(digest) }),
});
export type Config = v.InferOutput<typeof Config>;

/** manifest.json of a docker archive. */
export const DockerManifest = v.array(
  v.object({
    Config: v.string(),
    RepoTags: v.nullish(v.array(v.string())),
    Layers: v.array(v.string()),
  }),
);

/** Media types of an index; those of a manifest follow. Nothing depends on the media type of a layer. */
export const indexTypes: readonly string[] = [
  "application/vnd.oci.image.index.v1+json",
  "application/vnd.docker.distribution.manifest.list.v2+json",
];
export const manifestTypes: readonly string[] = [
  "application/vnd.oci.image.manifest.v1+json",
  "application/vnd.docker.distribution.manifest.v2+json",
];
export const configTypes: readonly string[] = [
  "application/vnd.oci.image.config.v1+json",
  "application/vnd.docker.container.image.v1+json",
];

/**
 * Parses JSON bytes by a schema. `subject` names the object in the one-line Error that is thrown when the bytes are
 * too many, not UTF-8, not JSON or not of that schema.
 */
export function parseJson<T>(subject: string, bytes: Uint8Array, schema: v.GenericSchema<unknown, T>): T {
  if (bytes.length > maxJsonBytes) {
    throw new Error(`${subject}: ${bytes.length} bytes, at most ${maxJsonBytes} are accepted`);
  }
  let value: unknown;
  try {
    value = JSON.parse(new TextDecoder("utf-8", { fatal: true }).decode(bytes));
  } catch {
    throw new Error(`${subject}: not valid JSON`);
  }
  const result = v.safeParse(schema, value);
  if (result.success) return result.output;
  const issue = result.issues[0];
  const path = v.getDotPath(issue);
  const message = issue.message.replace(/^Invalid/, "invalid").replace(/\s+/g, " ");
  throw new Error(path === null ? `${subject}: ${message}` : `${subject}: ${path}: ${message}`);
}
