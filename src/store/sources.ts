// What the store remembers of sources: the diffID of a local tar, so that it need not be read again, and the content that a
// reference led to, for `clean` to keep where it is asked to.
import { createHash } from "node:crypto";
import { readFileSync, statSync } from "node:fs";
import { join, resolve } from "node:path";
import type { Digest } from "../base/digest.js";
import type { LayerSource } from "../oci/source.js";
import { fault } from "./fault.js";
import { writeWhole } from "./files.js";
import type { Store } from "./store.js";

function keyOf(text: string): string {
  return createHash("sha256").update(text).digest("hex");
}

/** What a tar is known by: any change of it changes one of these. */
function identityOf({ bytes }: LayerSource): string | undefined {
  if (bytes.kind !== "file") return undefined;
  const path = resolve(bytes.path);
  const stat = statSync(path, { throwIfNoEntry: false, bigint: true });
  if (stat === undefined) return undefined;
  return `${path}-${stat.mtimeNs}-${stat.ctimeNs}-${stat.ino}-${stat.size}-${bytes.offset}`;
}

function noteOf(store: Store, key: string): string {
  return join(store.path, "sources", key);
}

function readNote(store: Store, key: string): unknown {
  try {
    return JSON.parse(readFileSync(noteOf(store, key), "utf8"));
  } catch {
    return undefined;
  }
}

/** The diffID that a local tar had when it was last converted; undefined where it is not known. */
export function knownSource(store: Store, layer: LayerSource): Digest | undefined {
  const identity = identityOf(layer);
  const note =
    identity === undefined ? undefined : (readNote(store, `tar-${keyOf(identity)}`) as { diffId?: Digest });
  return typeof note?.diffId === "string" && /^sha256:[0-9a-f]{64}$/.test(note.diffId)
    ? note.diffId
    : undefined;
}

export function noteSource(store: Store, layer: LayerSource, diffId: Digest): void {
  const identity = identityOf(layer);
  if (identity === undefined) return;
  fault("source.note");
  writeWhole(noteOf(store, `tar-${keyOf(identity)}`), JSON.stringify({ diffId }));
}

/** Notes the files of STORE/content that a reference led to. */
export function noteContent(store: Store, source: string, content: readonly string[]): void {
  fault("source.note");
  writeWhole(noteOf(store, `ref-${keyOf(source)}`), JSON.stringify({ source, content }));
}

/** The files that a reference last led to; none where it was never asked for. */
export function contentOf(store: Store, source: string): readonly string[] {
  const note = readNote(store, `ref-${keyOf(source)}`) as { content?: unknown } | undefined;
  return Array.isArray(note?.content) ? (note.content as string[]) : [];
}
