// Who decodes zstd here, in order of preference: Node's own zlib (22.15, 23.8 and later), the system's libzstd.so.1, the
// package zstd-napi where somebody has installed it, and the package fzstd, which is JavaScript and reads only.
// Each is looked for when it is first asked for, once for every thread.
// Never: an answer that depends on the provider. What data is accepted is decided in frame.ts, before a provider sees it.
import { createRequire } from "node:module";
import * as zlib from "node:zlib";
import { type Libzstd, libzstd } from "../sys/libzstd.js";
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

export type Provider =
  | { readonly name: "node"; readonly version: string; readonly library: NodeZstd }
  | { readonly name: "libzstd"; readonly version: string; readonly library: Libzstd }
  | { readonly name: "zstd-napi"; readonly version: string; readonly library: NapiZstd }
  | { readonly name: "fzstd"; readonly version: string; readonly library: Fzstd };

const finders: { readonly [N in ProviderName]: () => Extract<Provider, { name: N }> | undefined } = {
  node() {
    if (!("zstdDecompressSync" in zlib)) return undefined;
    const version = process.versions["zstd"] ?? "unknown";
    return { name: "node", version, library: zlib as unknown as NodeZstd };
  },
  libzstd() {
    const library = libzstd();
    return library === undefined ? undefined : { name: "libzstd", version: library.version, library };
  },
  "zstd-napi"() {
    try {
      const library = require("zstd-napi/binding") as NapiZstd;
      return { name: "zstd-napi", version: library.versionString(), library };
    } catch {
      return undefined;
    }
  },
  fzstd() {
    return { name: "fzstd", version: "0", library: require("fzstd") as Fzstd };
  },
};

const found = new Map<ProviderName, Provider | undefined>();

/** The provider of that name; undefined where it is not available. */
export function findProvider(name: ProviderName): Provider | undefined {
  if (!found.has(name)) found.set(name, finders[name]());
  return found.get(name);
}

/**
 * The first of `names` that is available. The environment variable IMGFS_ZSTD names one to use instead, whatever the
 * order; a ZstdError says so when that one is not available.
 */
export function chooseProvider(names: readonly ProviderName[] = providerNames): Provider {
  const forced = process.env["IMGFS_ZSTD"];
  if (forced !== undefined && forced !== "") {
    if (!providerNames.includes(forced as ProviderName)) {
      throw new ZstdError(`IMGFS_ZSTD is ${forced}, not one of ${providerNames.join(", ")}`);
    }
    const provider = findProvider(forced as ProviderName);
    if (provider === undefined) throw new ZstdError(`IMGFS_ZSTD is ${forced}, which is not available here`);
    return provider;
  }
  for (const name of names) {
    const provider = findProvider(name);
    if (provider !== undefined) return provider;
  }
  throw new ZstdError("nothing that decodes it is available here");
}
