// Archives that are compressed as a whole: unpacked once, into a file of the build's, because layers are read from
// them at random.
import { open, stat } from "node:fs/promises";
import type { SourceOptions } from "./source.js";

/** An archive's file as it can be read at random: `path` itself, or a temporary with what it holds. */
export async function plainArchive(path: string, options: SourceOptions): Promise<string> {
  const { unpacking } = options;
  // Opening a FIFO would wait for ever.
  if (!(await stat(path)).isFile()) throw new Error(`${path}: not a file`);
  const packed = unpacking?.open(path);
  if (unpacking === undefined || packed === undefined) return path;
  const plain = unpacking.temporary();
  const file = await open(plain, "wx", 0o600);
  try {
    for await (const chunk of packed.bytes) {
      for (let at = 0; at < chunk.length; ) at += (await file.write(chunk, at)).bytesWritten;
    }
  } catch (cause) {
    const { code, message } = cause as NodeJS.ErrnoException;
    throw new Error(`${path}: cannot be unpacked: ${code === "ENOSPC" ? "no space left" : message}`);
  } finally {
    await file.close();
  }
  return plain;
}
