// Small files of a store: each appears whole, or not.
import { renameSync } from "node:fs";
import { basename, dirname, join } from "node:path";
import { writeSynced } from "../base/durable.js";

/** Writes a file of that name, synced before it has it; one that is there is replaced. */
export function writeWhole(path: string, content: string | Uint8Array): void {
  const temporary = join(dirname(path), `.new-${process.pid}-${basename(path)}`);
  writeSynced(temporary, typeof content === "string" ? Buffer.from(content) : content, "w", 0o600);
  renameSync(temporary, path);
}
