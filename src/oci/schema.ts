// The JSON objects of an image, as valibot schemas (image-spec: image-index.md, manifest.md, config.md, descriptor.md,
// image-layout.md; docker: image-spec v1.2 manifest.json). Only what is used is described; other fields are let by.
// Every object comes from outside: its size is bounded before it is parsed, and a fault is one line with its path.
import * as v from "valibot";
import { type Digest, parseDigest, parseSourceDigest, type SourceDigest } from "../base/digest.js";

/** Bytes that an index, a manifest or a config may have: what registries accept (distribution-spec, manifests). */
export const maxJsonBytes = 4 << 20;

function digestSchema<T extends SourceDigest>(parse: (text: string) => T): v.GenericSchema<string, T> {
  return v.pipe(
    v.string(),
    v.rawTransform(({ dataset, addIssue, NEVER }): T => {
      try {
        return parse(dataset.value);
      } catch (cause) {
        addIssue({ message: (cause as Error).message });
        return NEVER;
      }
    }),
  );
}

/** A diffID becomes the name of a blob, so it is a sha256; what merely lies in the source may have a sha512. */
const diffId: v.GenericSchema<string, Digest> = digestSchema(parseDigest);
const digest: v.GenericSchema<string, SourceDigest> = digestSchema(parseSourceDigest);

/** Chars of a message that may quote what stands in an object. */
const maxWords = 300;

const size = v.pipe(v.number(), v.safeInteger(), v.minValue(0));
const optionalText = v.optional(v.string());

const platform = v.object({ os: v.string(), architecture: v.string(), variant: optionalText });

export const Descriptor = v.object({
  mediaType: optionalText,
  digest,
  size,
  platform: v.nullish(platform),
  annotations: v.nullish(v.record(v.string(), v.string())),
  /** The object itself, in base64 (descriptor.md#properties). */
  data: v.nullish(v.string()),
  /** Where a foreign layer can be fetched. */
  urls: v.nullish(v.array(v.string())),
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

/**
 * A digest that is not believed: of the grammar of descriptor.md#digests, so that no path out of a layout can be made of it.
 * Guardian writes `sha256:<hex>-<nanoseconds>`, and `sha256:` for one that nobody has told it.
 */
const claimed = v.pipe(
  v.string(),
  v.regex(/^[a-z0-9]{1,64}(?:[+._-][a-z0-9]{1,64}){0,3}:[A-Za-z0-9=_-]{0,200}$/, "not a digest"),
);

/** -1 says in Go that it is not known. */
const claimedSize = v.pipe(
  v.number(),
  v.transform((told) => (Number.isSafeInteger(told) && told > 0 ? told : 0)),
);

/** The same whose layers' descriptors are not believed. */
export const ClaimedManifest = v.object({
  schemaVersion,
  config: Descriptor,
  layers: v.array(v.object({ ...Descriptor.entries, digest: claimed, size: v.optional(claimedSize, 0) })),
});
export type ClaimedDescriptor = v.InferOutput<typeof ClaimedManifest>["layers"][number];

/** The part of an image config that a filesystem needs. */
export const Config = v.object({
  os: v.string(),
  architecture: v.string(),
  variant: optionalText,
  rootfs: v.object({ type: v.literal("layers"), diff_ids: v.array(diffId) }),
});
export type Config = v.InferOutput<typeof Config>;

/** The same whose diffIDs are not believed. */
export const ClaimedConfig = v.object({
  ...Config.entries,
  rootfs: v.object({ type: v.literal("layers"), diff_ids: v.array(v.string()) }),
});

/** manifest.json of a docker archive. */
export const DockerManifest = v.array(
  v.object({
    Config: v.string(),
    RepoTags: v.nullish(v.array(v.string())),
    Layers: v.array(v.string()),
  }),
);

/** Either of the two; which one is told by what it has, for media types are wrong in real layouts. */
export const IndexOrManifest = v.object({
  manifests: v.optional(v.unknown()),
  layers: v.optional(v.unknown()),
});

/** Media types of a config. Nothing depends on the media type of a layer. */
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
  const message = issue.received === "undefined" ? "missing" : wordsOf(issue.message);
  throw new Error(path === null ? `${subject}: ${message}` : `${subject}: ${path}: ${message}`);
}

/** A library's message on one line, and not as long as what it quotes. */
function wordsOf(message: string): string {
  const line = message.replace(/^Invalid/, "invalid").replace(/\s+/g, " ");
  return line.length <= maxWords ? line : `${line.slice(0, maxWords)}...`;
}
