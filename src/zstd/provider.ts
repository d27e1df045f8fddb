// Who decodes zstd here, in order of preference: Node's own zlib (22.15, 23.8 and later), the system's libzstd.so.1, the
// package zstd-napi where somebody has installed it, and the package fzstd, which is JavaScript and reads only.
// Each is looked for when it is first asked for, once for every thread.
// Never: an answer that depends on the provider. What data is accepted is decided in frame.ts, before a provider sees it.
import { createRequire } from "node:module";
import * as zlib from "node:zlib";
import { type Libzstd, nodeLibzstd, systemLibzstd } from "../sys/libzstd.js";
import { ZstdError } from "./frame.js";

export type ProviderName = "node" | "libzstd" | "zstd-napi" | "fzstd";

/** In order of preference. */
export const providerNames: readonly ProviderName[] = ["node", "libzstd", "zstd-napi", "fzstd"];

const require = createRequire(import.meta.url);

/** What is used of Node's zlib where it has zstd; the types are those of Node 20, which has not. */
export interface NodeZstd {
  readonly zstdCompressSync: (raw: Uint8Array, options: object) => Buffer;
  readonly zstdDecompressSync: (frame: Uint8Array, options: object) => Buffer;
  readonly createZstdDecompress: (options: object) => import("node:stream").Transform;
  readonly constants: { readonly ZSTD_c_compressionLevel: number; readonly ZSTD_d_windowLogMax: number };
}

/** What is used of `zstd-napi/binding`. */
export interface NapiZstd {
  readonly versionString: () => string;
  readonly compressBound: (size: number) => number;
  readonly CCtx: new () => {
    compress(into: Uint8Array, raw: Uint8Array, level: number): number;
  };
  readonly DCtx: new () => {
    decompress(into: Uint8Array, frame: Uint8Array): number;
    /** Bytes wanted or still to be flushed, bytes written, bytes consumed. */
    decompressStream(into: Uint8Array, from: Uint8Array): [number, number, number];
    setParameter(parameter: number, value: number): void;
  };
  readonly DParameter: { readonly windowLogMax: number };
}

export type Fzstd = typeof import("fzstd");

/** A provider, and in which form it is used: the C library itself, Node's zlib, zstd-napi, or JavaScript. */
export type Provider = { readonly name: ProviderName; readonly version: string } & (
  | { readonly form: "c"; readonly library: Libzstd }
  | { readonly form: "zlib"; readonly library: NodeZstd }
  | { readonly form: "napi"; readonly library: NapiZstd }
  | { readonly form: "js"; readonly library: Fzstd }
);

const finders: Readonly<Record<ProviderName, () => Provider | undefined>> = {
  /** A call of the C library costs less than the stream that zlib makes for each frame. */
  node() {
    if (!("zstdDecompressSync" in zlib)) return undefined;
    const library = nodeLibzstd();
    if (library !== undefined) return { name: "node", version: library.version, form: "c", library };
    return nodeZlibProvider();
  },
  libzstd() {
    const library = systemLibzstd();
    return library && { name: "libzstd", version: library.version, form: "c", library };
  },
  "zstd-napi"() {
    try {
      const library = require("zstd-napi/binding") as NapiZstd;
      return { name: "zstd-napi", version: library.versionString(), form: "napi", library };
    } catch {
      return undefined;
    }
  },
  fzstd() {
    return { name: "fzstd", version: "none", form: "js", library: require("fzstd") as Fzstd };
  },
};

/** Node's zlib where it has zstd, for a Node that does not export its C library; undefined otherwise. */
export function nodeZlibProvider(): Provider | undefined {
  if (!("zstdDecompressSync" in zlib)) return undefined;
  const version = process.versions["zstd"] ?? "unknown";
  return { name: "node", version, form: "zlib", library: zlib as unknown as NodeZstd };
}

const found = new Map<ProviderName, Provider | undefined>();

/** The provider of that name; undefined where it is not available. */
export function findProvider(name: ProviderName): Provider | undefined {
  if (!found.has(name)) found.set(name, finders[name]());
  return found.get(name);
}

/**
 * The first provider that is available and of which `isUsable` holds; fzstd is always there. The environment variable
 * IMGFS_ZSTD names one to use instead, whatever the order; a ZstdError says so when that one is not available.
 */
export function chooseProvider(isUsable: (provider: Provider) => boolean = () => true): Provider {
  const forced = process.env["IMGFS_ZSTD"];
  const isForced = forced !== undefined && forced !== "";
  const names = isForced ? providerNames.filter((name) => name === forced) : providerNames;
  if (names.length === 0)
    throw new ZstdError(`IMGFS_ZSTD is ${forced}, not one of ${providerNames.join(", ")}`);
  for (const name of names) {
    const provider = findProvider(name);
    if (provider !== undefined && isUsable(provider)) return provider;
  }
  throw new ZstdError(`IMGFS_ZSTD is ${forced}, which is not available here`);
}
