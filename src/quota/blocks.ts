// The unit of bytes: 4 KiB blocks, whatever the filesystem below uses.

/** Bytes of a block. */
export const BLOCK = 4096;

/** Blocks that hold the first `size` bytes. */
export function blocksOf(size: number): number {
  return Math.ceil(size / BLOCK);
}
