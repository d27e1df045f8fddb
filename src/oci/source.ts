// What every image source gives: a config and a list of layers whose bytes lie somewhere. A source has checked the
// manifest and the config (digest, size, schema); the bytes of layers are checked by whoever reads them.
// Everything here is plain data, so that a layer can be handed to a worker thread.
import type { Digest } from "../base/digest.js";

/**
 * Where the bytes of a layer are. One kind today; a registry becomes a second one.
 */
export interface LayerBytes {
  readonly kind: "file";
  readonly path: string;
  /** First byte of the layer in the file. */
  readonly offset: number;
  /** Length in bytes, as the descriptor or the archive says. */
  readonly size: number;
}

/** One layer as the image describes it. */
export interface LayerSource {
  readonly bytes: LayerBytes;
  /** For people only: the compression is told by the bytes. */
  readonly mediaType: string;
  /** Digest of the bytes as they lie there; undefined where the source names none. */
  readonly digest: Digest | undefined;
  /** Digest of the uncompressed tar, from the config; undefined where there is no config. */
  readonly diffId: Digest | undefined;
}

/** An image ready to be read. */
export interface ImageSource {
  /** The source as the user wrote it, for messages. */
  readonly name: string;
  /** `os/arch[/variant]` of the config, or of the request where there is none. */
  readonly platform: string;
  /** The config's bytes; undefined for a bare tar, see config.ts. */
  readonly config: Uint8Array | undefined;
  /** Lowest layer first. */
  readonly layers: readonly LayerSource[];
}

/** What may be asked of any source. */
export interface SourceOptions {
  /** `os/arch[/variant]`; this machine's when left out. */
  readonly platform?: string | undefined;
}
