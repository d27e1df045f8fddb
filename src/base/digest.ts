// Digests in OCI's form, `sha256:<64 hex>` (image-spec, descriptor.md#digests).
import { createHash } from "node:crypto";

/** A content digest, `algorithm:hex`; only sha256 is accepted. */
export type Digest = string & { readonly __brand: "Digest" };

/** A digest that only says what bytes in a source are: there sha512 occurs, too. */
export type SourceDigest = Digest | (string & { readonly __brand: "Sha512Digest" });

const pattern = /^sha256:[0-9a-f]{64}$/;
const sourcePattern = /^(?:sha256:[0-9a-f]{64}|sha512:[0-9a-f]{128})$/;

/** Parses a digest. Throws an Error naming the text when it is not a sha256 digest in lower-case hex. */
export function parseDigest(text: string): Digest {
  if (!pattern.test(text)) throw new Error(`not a sha256 digest: ${JSON.stringify(text)}`);
  return text as Digest;
}

/** Parses a digest of sha256 or sha512. Throws an Error naming the text when it is neither. */
export function parseSourceDigest(text: string): SourceDigest {
  if (!sourcePattern.test(text)) throw new Error(`not a sha256 or sha512 digest: ${JSON.stringify(text)}`);
  return text as SourceDigest;
}

/** The algorithm's name, as node:crypto has it. */
export function digestAlgorithm(digest: SourceDigest): "sha256" | "sha512" {
  return digest.startsWith("sha512:") ? "sha512" : "sha256";
}

/** The digest of bytes in memory by an algorithm of {@link digestAlgorithm}. */
export function digestBy(algorithm: "sha256" | "sha512", bytes: Uint8Array): SourceDigest {
  return `${algorithm}:${createHash(algorithm).update(bytes).digest("hex")}` as SourceDigest;
}

/** The Digest of a raw 32-byte hash. */
export function digestOf(hash: Uint8Array): Digest {
  return `sha256:${Buffer.from(hash.buffer, hash.byteOffset, hash.length).toString("hex")}` as Digest;
}

/** The hex part. */
export function digestHex(digest: SourceDigest): string {
  return digest.slice("sha256:".length);
}

/** The raw 32 bytes. */
export function digestBytes(digest: Digest): Buffer {
  return Buffer.from(digestHex(digest), "hex");
}

/** The digest of bytes in memory. */
export function sha256(...parts: Uint8Array[]): Digest {
  const hash = createHash("sha256");
  for (const part of parts) hash.update(part);
  return digestOf(hash.digest());
}
