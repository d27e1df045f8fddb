// Reads the bytes of a layer where its source says they are.
import { readFileSync } from "node:fs";
import type { LayerSource } from "../../src/oci/source.js";

export function readLayer({ bytes }: LayerSource): Uint8Array {
  if (bytes.kind === "embedded") return bytes.bytes;
  if (bytes.kind === "remote") throw new Error("a remote layer is fetched");
  if (bytes.kind === "tree") throw new Error("a tree has no bytes before it is read");
  return readFileSync(bytes.path).subarray(bytes.offset, bytes.offset + bytes.size);
}
