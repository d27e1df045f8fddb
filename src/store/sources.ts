// What the store remembers of sources: the diffID of a local tar, so that it need not be read again, that of what was fetched
// and had the digest that it was promised to have, and the content that a reference led to, for `clean` to keep where it is
// asked to.
// Invariant: a diffID is noted of bytes that were read, never because an image says so.
import { createHash } from "node:crypto";
import { realpathSync, statSync } from "node:fs";
import { join } from "node:path";
import type { Digest, SourceDigest } from "../base/digest.js";
import { readPlain } from "../base/plain.js";
import type { LayerSource } from "../oci/source.js";
import { clearPlace } from "./aside.js";
import { fault } from "./fault.js";
import { writeWhole } from "./files.js";
import type { Lease } from "./lease.js";
import type { Store } from "./store.js";

function keyOf(text: string): string {
  return createHash("sha256").update(text).digest("hex");
}

/** What of a layer is known before it is read. */
interface Identity {
  readonly text: string;
  /** What the bytes must turn out to be for the identity to be theirs. */
  readonly digest?: string;
}

/**
 * A file is known by where it really is, whatever symlinks lead there, and by what any change of it changes; what is fetched by
 * its digest. Undefined for anything else.
 */
export function identityOf({ bytes, claim }: LayerSource): Identity | undefined {
  if (bytes.kind === "remote") {
    return claim !== undefined && /^sha256:[0-9a-f]{64}$/.test(claim.digest)
      ? { text: claim.digest, digest: claim.digest }
      : undefined;
  }
  if (bytes.kind !== "file") return undefined;
  try {
    const path = realpathSync(bytes.path);
    const stat = statSync(path, { bigint: true });
    return {
      text: `${path}-${stat.mtimeNs}-${stat.ctimeNs}-${stat.ino}-${stat.size}-${bytes.offset}`,
    };
  } catch {
    return undefined;
  }
}

function noteOf(store: Store, key: string): string {
  return join(store.path, "sources", key);
}

function readNote(store: Store, key: string): unknown {
  try {
    return JSON.parse(readPlain(noteOf(store, key)));
  } catch {
    return undefined;
  }
}

/** The diffID that the bytes of a layer had when they were last converted; undefined where it is not known. */
export function knownSource(store: Store, identity: Identity | undefined): Digest | undefined {
  const note =
    identity === undefined
      ? undefined
      : (readNote(store, `tar-${keyOf(identity.text)}`) as { diffId?: Digest } | undefined);
  return typeof note?.diffId === "string" && /^sha256:[0-9a-f]{64}$/.test(note.diffId)
    ? note.diffId
    : undefined;
}

/** Notes what a layer was when it was read, unless it is another one since then, or never was what it was called. */
export function noteSource(
  store: Store,
  lease: Lease,
  layer: LayerSource,
  identity: Identity | undefined,
  { diffId, digest }: { readonly diffId: Digest; readonly digest: SourceDigest | undefined },
): void {
  if (identity === undefined || identityOf(layer)?.text !== identity.text) return;
  if (identity.digest !== undefined && identity.digest !== digest) return;
  writeNote(store, lease, `tar-${keyOf(identity.text)}`, { diffId });
}

function writeNote(store: Store, lease: Lease, key: string, note: object): void {
  fault("source.note");
  const path = noteOf(store, key);
  clearPlace(store, path);
  writeWhole(path, JSON.stringify(note), lease.path(key));
}

/** Notes the files of STORE/content that a reference led to. */
export function noteContent(store: Store, lease: Lease, source: string, content: readonly string[]): void {
  writeNote(store, lease, `ref-${keyOf(source)}`, { source, content });
}

/** The files that a reference last led to; none where it was never asked for. */
export function contentOf(store: Store, source: string): readonly string[] {
  const note = readNote(store, `ref-${keyOf(source)}`) as { content?: unknown } | undefined;
  return Array.isArray(note?.content) ? (note.content as string[]) : [];
}
