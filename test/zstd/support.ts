// Contents that compress in different ways, frames put together by hand, and the zstd tool.
import { spawnSync } from "node:child_process";
import { mkdtempSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";

/** Bytes that do not compress; the same every time. */
export function noise(length: number, seed = 1): Buffer {
  const bytes = Buffer.alloc(length);
  let state = seed >>> 0;
  for (let i = 0; i < length; i++) {
    state = (Math.imul(state, 1664525) + 1013904223) >>> 0;
    bytes[i] = state >>> 24;
  }
  return bytes;
}

/** Lines of words: literals, matches near and far. */
export function text(length: number, seed = 1): Buffer {
  const words = noise(4096, seed);
  const parts: string[] = [];
  let size = 0;
  for (let i = 0; size < length; i++) {
    const part = `${i % 7 === 0 ? "\n" : " "}word${(words[i % 4096] as number) % 97}-${i % 1009}`;
    parts.push(part);
    size += part.length;
  }
  return Buffer.from(parts.join("").slice(0, length), "latin1");
}

/** What the zstd tool makes of `content` when it lies in a file: frames that tell their size. */
export function zstdTool(content: Uint8Array, ...args: readonly string[]): Buffer {
  const folder = mkdtempSync(join(tmpdir(), "imgfs-zstd-"));
  try {
    const file = join(folder, "content");
    writeFileSync(file, content);
    return runZstd([...args, "-q", "-c", file]);
  } finally {
    rmSync(folder, { recursive: true });
  }
}

/** What the zstd tool makes of its standard input: frames that do not tell their size. */
export function zstdPipe(input: Uint8Array, ...args: readonly string[]): Buffer {
  return runZstd([...args, "-q", "-c"], input);
}

function runZstd(args: readonly string[], input?: Uint8Array): Buffer {
  const run = spawnSync("zstd", args, { input, maxBuffer: 1 << 30 });
  if (run.status !== 0) throw new Error(`zstd: ${run.error?.message ?? run.stderr.toString()}`);
  return run.stdout;
}

/** A frame of one raw block. `descriptor` and what follows it up to the blocks are the caller's. */
export function rawFrame(head: readonly number[], content: Uint8Array): Buffer {
  const block = Buffer.alloc(3);
  block.writeUIntLE((content.length << 3) | 1, 0, 3);
  return Buffer.concat([Buffer.from([0x28, 0xb5, 0x2f, 0xfd, ...head]), block, content]);
}

/** A skippable frame (RFC 8878, 3.1.2). */
export function skippable(content: Uint8Array, nibble = 0): Buffer {
  const head = Buffer.alloc(8);
  head.writeUInt32LE(0x184d2a50 + nibble, 0);
  head.writeUInt32LE(content.length, 4);
  return Buffer.concat([head, content]);
}
