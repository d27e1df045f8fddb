// What every image source gives: a config and a list of layers whose bytes lie somewhere. A source has checked the
// manifest and the config (digest, size, schema); the bytes of layers are checked by whoever reads them.
// Everything here is plain data, so that a layer can be handed to a worker thread.
import type { Name } from "../base/bytes.js";
import type { Digest, SourceDigest } from "../base/digest.js";
import type { RegistryOptions } from "./registry/options.js";

/** A layer that is a file, or a range of one. */
export interface FileBytes {
  readonly kind: "file";
  readonly path: string;
  /** First byte of the layer in the file. */
  readonly offset: number;
  /** Length in bytes, as the descriptor or the archive says. */
  readonly size: number;
}

/** A layer that its descriptor holds. */
export interface EmbeddedBytes {
  readonly kind: "embedded";
  readonly bytes: Uint8Array;
  readonly size: number;
}

/** A directory tree that becomes a layer; its bytes are made when it is read. */
export interface TreeBytes {
  readonly kind: "tree";
  readonly path: string;
  /** 0: not known before. */
  readonly size: 0;
}

/** A layer that comes over the network: {@link ImageSource.fetch} opens it. */
export interface RemoteBytes {
  readonly kind: "remote";
  /** Undefined where it is not known before: then the size is not either, and is 0. */
  readonly digest: SourceDigest | undefined;
  /** As the manifest says; exactly so many bytes come. */
  readonly size: number;
  /** Other places of a layer that may not be distributed with its image. */
  readonly urls: readonly string[];
  readonly isForeign: boolean;
}

/** Where the bytes of a layer are. */
export type LayerBytes = FileBytes | EmbeddedBytes | TreeBytes | RemoteBytes;

/** One layer as the image describes it. */
export interface LayerSource {
  readonly bytes: LayerBytes;
  /** For people only: the compression is told by the bytes. */
  readonly mediaType: string;
  /** Digest of the bytes as they lie there; undefined where the source names none. */
  readonly digest: SourceDigest | undefined;
  /** Digest of the uncompressed tar, from the config; undefined where there is no config. */
  readonly diffId: Digest | undefined;
  /** The directory under which its entries are placed, `a/b`; the root where there is none. */
  readonly baseDirectory?: Name | undefined;
  /** What the image says of a layer whose validation is skipped. Nobody believes it; digest and diffId are undefined. */
  readonly claim?: LayerClaim;
}

export interface LayerClaim {
  /** `algorithm:encoded`, perhaps of no algorithm that there is. */
  readonly digest: string;
  /** Bytes. */
  readonly size: number;
}

/** An image ready to be read. */
export interface ImageSource {
  /** The source as the user wrote it, for messages. */
  readonly name: string;
  /** `os/arch[/variant]` of the config, or of the request where there is none. */
  readonly platform: string;
  /** The config's bytes; undefined for a bare tar or tree, see config.ts. */
  readonly config: Uint8Array | undefined;
  /** Lowest layer first. */
  readonly layers: readonly LayerSource[];
  /** Of what the reference names in a registry, a manifest or an index: by it the same image is named for ever. */
  readonly digest?: SourceDigest;
  /** Registry and repository that the layers come from, for messages; undefined where nothing is remote. */
  readonly place?: string;
  /**
   * Opens a remote layer from byte `start` on; what comes ends where the manifest says, and is not checked otherwise. A piece
   * stays what it is until the next one is asked for.
   */
  readonly fetch?: (bytes: RemoteBytes, signal?: AbortSignal, start?: number) => AsyncIterable<Uint8Array>;
  /** Ends what the source holds open: connections. */
  readonly close?: () => Promise<void>;
}

/** How archives that are compressed as a whole are read; the builder knows the compressions. */
export interface Unpacking {
  /**
   * The bytes inside the file when it begins like a compressed one, undefined for any other. Throws an Error for a
   * compression that cannot be read; the iteration throws for damage.
   */
  readonly open: (
    path: string,
  ) => { readonly compression: string; readonly bytes: AsyncIterable<Uint8Array> } | undefined;
  /** A new path for a file that is removed when the build ends. */
  readonly temporary: () => string;
}

/** What may be asked of any source. */
export interface SourceOptions {
  /** `os/arch[/variant]`; this machine's when left out. */
  readonly platform?: string | undefined;
  /** Without it compressed archives are refused. */
  readonly unpacking?: Unpacking | undefined;
  /**
   * Sizes, digests and diffIDs of the layers of an `oci:` source are not compared with anything, and sizes of no object; it
   * means nothing to other sources.
   */
  readonly skipLayerValidation?: boolean | undefined;
  /** How registries are reached, and places of foreign layers. */
  readonly registry?: RegistryOptions | undefined;
  /** Ends requests that are under way. */
  readonly signal?: AbortSignal | undefined;
}
