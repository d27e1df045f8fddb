// Makes the digests of a changed file fit again, as one who forges a file would. Written from FORMAT.md's tables and
// not from the writer, so that the two can disagree.
import { createHash } from "node:crypto";
import { crc32 } from "node:zlib";
import { Section, type SectionName } from "../../src/imgfs/layout.js";

const sha256 = (...parts: Uint8Array[]): Buffer => {
  const hash = createHash("sha256");
  for (const part of parts) hash.update(part);
  return hash.digest();
};

interface Entry {
  readonly id: number;
  readonly offset: number;
  readonly length: number;
}

function entries(bytes: Buffer): Entry[] {
  return Array.from({ length: bytes.readUInt32LE(0x58) }, (_, i) => {
    const at = 0x100 + i * 32;
    return {
      id: bytes.readUInt16LE(at),
      offset: Number(bytes.readBigUInt64LE(at + 8)),
      length: Number(bytes.readBigUInt64LE(at + 16)),
    };
  });
}

export function sectionOf(bytes: Buffer, name: SectionName): Entry {
  return entries(bytes).find(({ id }) => id === Section[name].id) as Entry;
}

/** `bytes` with page digests, roots and checksum recomputed in place. */
export function reseal(bytes: Buffer): Buffer {
  const sections = entries(bytes);
  const pages = sections.at(-1) as Entry;
  const treeEnd = Number(bytes.readBigUInt64LE(0x60));
  if (treeEnd > bytes.length || pages.offset > bytes.length) throw new Error("sections outside the file");
  const digests: Buffer[] = [];
  let treePages = 0;
  for (const [start, end] of [
    [4096, treeEnd],
    [treeEnd, pages.offset],
  ] as const) {
    for (let at = start; at < end; at += 65536)
      digests.push(sha256(bytes.subarray(at, Math.min(at + 65536, end))));
    if (end === treeEnd) treePages = digests.length;
  }
  Buffer.concat(digests).copy(bytes, pages.offset);
  sha256(...digests).copy(bytes, 0xa0);
  const treeSections = sections.filter(({ id }) => id < 32).length;
  const treeTable = bytes.subarray(0x100, 0x100 + treeSections * 32);
  sha256(Buffer.from("imgfs tree 1\n"), treeTable, ...digests.slice(0, treePages)).copy(bytes, 0xe0);
  bytes.writeUInt32LE(crc32(bytes.subarray(0, 0xffc)), 0xffc);
  return bytes;
}
