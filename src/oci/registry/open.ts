// `docker://NAME`: an image in a registry. Its manifest and config are fetched and checked when it is opened; its layers
// are bytes that come when they are read.

import { displayName } from "../../base/bytes.js";
import { type Digest, digestAlgorithm, digestBy } from "../../base/digest.js";
import { version } from "../../base/version.js";
import type { Blobs } from "../blobs.js";
import { checkDigest } from "../config.js";
import { openDocument } from "../manifest.js";
import type { Reference } from "../reference.js";
import { type Descriptor, maxJsonBytes } from "../schema.js";
import type { ImageSource, RemoteBytes, SourceOptions } from "../source.js";
import { followed } from "../urls.js";
import { findLogin } from "./credentials.js";
import { downloadBy } from "./download.js";
import { Endpoint } from "./endpoint.js";
import { RegistryError } from "./errors.js";
import { type ImageName, parseImageName } from "./name.js";
import type { RegistryOptions } from "./options.js";
import { pullSources, readRegistries } from "./registries-conf.js";
import { type HttpResponse, readBytes } from "./transport.js";

const manifestTypes = [
  "application/vnd.oci.image.manifest.v1+json",
  "application/vnd.oci.image.index.v1+json",
  "application/vnd.docker.distribution.manifest.v2+json",
  "application/vnd.docker.distribution.manifest.list.v2+json",
].join(", ");

/** Tries of a mirror before the next one is asked. */
const mirrorTries = 2;

/** Opens the image that `reference` names. Throws one-line RegistryErrors that name registry, repository and object. */
export async function openRegistry(reference: Reference, options: SourceOptions): Promise<ImageSource> {
  const name = parseImageName(reference.path);
  const { registry = {}, signal } = options;
  const endpoints = await endpointsOf(name, registry);
  const close = async (): Promise<void> => {
    await Promise.all(endpoints.map((endpoint) => endpoint.close()));
  };
  try {
    const { manifest, subject, from } = await findManifest(name, endpoints, signal);
    const sources = endpoints.slice(from);
    const place = (sources[0] as Endpoint).place;
    const blobs: Blobs = {
      place,
      find: async (_, { digest, size, urls, mediaType }) => ({
        kind: "remote",
        digest,
        size,
        urls: urls ?? [],
        isForeign: /foreign|nondistributable/.test(mediaType ?? ""),
      }),
      fetch: (kind, about, blob) => fetchSmall(sources, kind, about, blob, signal),
    };
    const image = await openDocument(blobs, { subject, bytes: manifest }, reference.text, options).catch(
      (cause: Error) => {
        if (cause instanceof RegistryError || signal?.aborted) throw cause;
        throw new RegistryError("damaged", displayName(Buffer.from(`${place}: ${cause.message}`)));
      },
    );
    const fetch: ImageSource["fetch"] = (bytes, stop, start = 0) => fetchLayer(sources, bytes, stop, start);
    return { ...image, digest: name.digest ?? digestBy("sha256", manifest), place, fetch, close };
  } catch (cause) {
    await close();
    throw cause;
  }
}

/** The servers for a name, each with the login that is for it. */
async function endpointsOf(name: ImageName, options: RegistryOptions): Promise<Endpoint[]> {
  const environment = options.environment ?? process.env;
  const sources = pullSources(name, await readRegistries(environment));
  const { login, tlsVerify } = options;
  return sources.map(
    ({ registry, repository, isInsecure, isMirror }) =>
      new Endpoint({
        ...options,
        registry,
        repository,
        isInsecure: tlsVerify === undefined ? isInsecure : !tlsVerify,
        findLogin: async () =>
          login !== undefined && !isMirror ? login : findLogin({ registry, repository }, options),
        userAgent: `imgfs/${version}`,
      }),
  );
}

interface Found {
  readonly manifest: Uint8Array;
  readonly subject: string;
  /** The endpoint that has it. */
  readonly from: number;
}

/** The manifest of the first server that has it. Where none does the last one's failure counts, after the others'. */
async function findManifest(
  { tag, digest }: ImageName,
  endpoints: readonly Endpoint[],
  signal: AbortSignal | undefined,
): Promise<Found> {
  const reference = digest ?? (tag as string);
  const subject = `manifest ${reference}`;
  const failures: RegistryError[] = [];
  for (const [from, endpoint] of endpoints.entries()) {
    try {
      const isMirror = from < endpoints.length - 1;
      const tries = isMirror ? Math.min(mirrorTries, endpoint.limits.tries) : endpoint.limits.tries;
      const response = await endpoint.manifest(reference, manifestTypes, { signal, tries });
      const manifest = await readSmall(endpoint, response);
      checkManifest(manifest, digest, response);
      return { manifest, subject, from };
    } catch (cause) {
      signal?.throwIfAborted();
      const failure = endpoint.explain(cause);
      if (!(failure instanceof RegistryError)) throw cause;
      failures.push(failure.within(`${endpoint.place}: ${subject}`));
    }
  }
  const last = failures.at(-1) as RegistryError;
  if (failures.length === 1) throw last;
  throw new RegistryError(last.kind, failures.map(({ message }) => message).join("; "), { cause: last });
}

/** By digest the bytes must have it; by tag, they must have the one that the registry says. */
function checkManifest(bytes: Uint8Array, digest: ImageName["digest"], { headers }: HttpResponse): void {
  const told = headers["docker-content-digest"];
  const wanted =
    digest ?? (typeof told === "string" && /^sha(256|512):/.test(told) ? (told as Digest) : undefined);
  if (wanted === undefined) return;
  const actual = digestBy(digestAlgorithm(wanted), bytes);
  if (actual !== wanted) throw new RegistryError("damaged", `digest mismatch: the bytes are ${actual}`);
}

/** A manifest below the first one, or a config. */
async function fetchSmall(
  endpoints: readonly Endpoint[],
  kind: "manifest" | "config",
  subject: string,
  blob: Descriptor,
  signal: AbortSignal | undefined,
): Promise<Uint8Array> {
  return firstThatHas(endpoints, subject, async (endpoint) => {
    const { digest, size } = blob;
    const response =
      kind === "manifest"
        ? await endpoint.manifest(digest, manifestTypes, { signal })
        : await endpoint.blob(digest, 0, { signal });
    const bytes = await readSmall(endpoint, response);
    if (bytes.length !== size) {
      throw new RegistryError(
        "damaged",
        `size mismatch: it has ${bytes.length} bytes, the manifest says ${size}`,
      );
    }
    try {
      checkDigest("", bytes, digest);
    } catch (cause) {
      throw new RegistryError("damaged", (cause as Error).message.replace(/^: /, ""));
    }
    return bytes;
  });
}

async function readSmall(endpoint: Endpoint, response: HttpResponse): Promise<Uint8Array> {
  let bytes: Uint8Array | undefined;
  try {
    bytes = await readBytes(response, maxJsonBytes);
  } catch (cause) {
    throw endpoint.explain(cause);
  }
  if (bytes === undefined) throw new RegistryError("damaged", `more than ${maxJsonBytes} bytes`);
  return bytes;
}

/** Asks one server after another, as long as they say that they do not have it. */
async function firstThatHas<T>(
  endpoints: readonly Endpoint[],
  subject: string,
  ask: (endpoint: Endpoint) => Promise<T>,
): Promise<T> {
  for (const [i, endpoint] of endpoints.entries()) {
    try {
      return await ask(endpoint);
    } catch (cause) {
      if (!(cause instanceof RegistryError)) throw cause;
      if (cause.kind !== "absent" || i === endpoints.length - 1)
        throw cause.within(`${endpoint.place}: ${subject}`);
    }
  }
  throw new Error("no endpoint to ask");
}

/** The bytes of a layer. A foreign one comes from where its manifest says, if it can, else from the registry. */
async function* fetchLayer(
  endpoints: readonly Endpoint[],
  { digest, size, urls, isForeign }: RemoteBytes,
  signal: AbortSignal | undefined,
  start: number,
): AsyncGenerator<Uint8Array> {
  if (size === 0 || digest === undefined) return;
  const last = endpoints.at(-1) as Endpoint;
  const ways = endpoints.map((endpoint) => ({
    endpoint,
    open: (from: number) => endpoint.blob(digest, from, { signal }),
  }));
  const elsewhere = followed(urls).map((url) => ({
    endpoint: last,
    open: (from: number) => last.foreign(url, from, { signal }),
  }));
  const all = isForeign ? [...elsewhere, ...ways] : [...ways, ...elsewhere];
  yield* downloadBy(all, ({ kind }) => kind === "absent" || elsewhere.length > 0, size, signal, start);
}
