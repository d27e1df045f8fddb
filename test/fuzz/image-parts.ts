// A blob taken apart into header, sections and data, and put together again with offsets, sizes and digests that fit.
// Written from FORMAT.md's tables and not from the writer, so that the two can disagree.
import { createHash } from "node:crypto";
import { crc32 } from "node:zlib";
import { reseal } from "../imgfs/reseal.js";

export interface Part {
  id: number;
  flags: number;
  recordSize: number;
  bytes: Buffer;
}

export interface Parts {
  header: Buffer;
  /** In the order of the file, PAGES left out. */
  sections: Part[];
  data: Buffer;
}

export const PAGES = 63;
export const FRAME = 35;
export const FRAME_DIGEST = 36;

export function takeApart(file: Buffer): Parts {
  const count = file.readUInt32LE(0x58);
  const sections = Array.from({ length: count }, (_, i) => {
    const at = 0x100 + i * 32;
    const offset = Number(file.readBigUInt64LE(at + 8));
    const length = Number(file.readBigUInt64LE(at + 16));
    return {
      id: file.readUInt16LE(at),
      flags: file.readUInt16LE(at + 2),
      recordSize: file.readUInt32LE(at + 4),
      bytes: Buffer.from(file.subarray(offset, offset + length)),
    };
  }).filter(({ id }) => id !== PAGES);
  const dataOffset = Number(file.readBigUInt64LE(0x30));
  return {
    header: Buffer.from(file.subarray(0, 4096)),
    sections,
    data: Buffer.from(dataOffset === 0 ? [] : file.subarray(dataOffset)),
  };
}

const align = (value: number, unit: number): number => Math.ceil(value / unit) * unit;

/** The file of these parts, sealed. Sizes that follow from the parts are put into the header, others are left. */
export function putTogether({ header: given, sections, data }: Parts): Buffer {
  const header = Buffer.from(given);
  header.fill(0, 0x100, 0x900);
  let at = 4096;
  let treeEnd = at;
  const offsets = sections.map(({ id, bytes }) => {
    const offset = at;
    at = align(at + bytes.length, 64);
    if (id < 32) treeEnd = at;
    return offset;
  });
  const pages = Math.ceil((treeEnd - 4096) / 65536) + Math.ceil((at - treeEnd) / 65536);
  const metaEnd = at + pages * 32;
  const all = [...sections, { id: PAGES, flags: 0, recordSize: 32, bytes: Buffer.alloc(pages * 32) }];
  offsets.push(at);
  all.forEach(({ id, flags, recordSize, bytes }, i) => {
    const entry = 0x100 + i * 32;
    header.writeUInt16LE(id & 0xffff, entry);
    header.writeUInt16LE(flags & 0xffff, entry + 2);
    header.writeUInt32LE(recordSize >>> 0, entry + 4);
    header.writeBigUInt64LE(BigInt(offsets[i] as number), entry + 8);
    header.writeBigUInt64LE(BigInt(bytes.length), entry + 16);
  });
  const dataOffset = data.length === 0 ? 0 : align(metaEnd, 4096);
  const fileSize = data.length === 0 ? metaEnd : dataOffset + data.length;
  const put = (offset: number, value: number): void => void header.writeBigUInt64LE(BigInt(value), offset);
  put(0x20, fileSize);
  put(0x28, metaEnd);
  put(0x30, dataOffset);
  put(0x38, data.length);
  if (header[0x54] === 0) put(0x40, data.length);
  put(0x48, metaEnd);
  header.writeUInt32LE(all.length, 0x58);
  put(0x60, treeEnd);
  const file = Buffer.alloc(fileSize);
  header.copy(file);
  all.forEach(({ bytes }, i) => void bytes.copy(file, offsets[i] as number));
  data.copy(file, dataOffset);
  return sealed(file);
}

/** Digests made to fit as far as the section table lets them; the checksum always. */
export function sealed(file: Buffer): Buffer {
  try {
    return reseal(file);
  } catch {
    if (file.length >= 4096) file.writeUInt32LE(crc32(file.subarray(0, 0xffc)), 0xffc);
    return file;
  }
}

/** The stored bytes of each frame; none without a codec. */
export function framesOf({ sections, data }: Parts): Buffer[] {
  const places = sections.find(({ id }) => id === FRAME)?.bytes ?? Buffer.alloc(0);
  const count = Math.max(0, places.length / 8 - 1);
  return Array.from({ length: count }, (_, i) =>
    Buffer.from(
      data.subarray(Number(places.readBigUInt64LE(i * 8)), Number(places.readBigUInt64LE(i * 8 + 8))),
    ),
  );
}

/** Puts frames in place of those there are, with places and digests that fit. */
export function setFrames(parts: Parts, frames: readonly Buffer[]): void {
  const places = Buffer.alloc((frames.length + 1) * 8);
  let at = 0;
  frames.forEach((frame, i) => {
    places.writeBigUInt64LE(BigInt(at), i * 8);
    at += frame.length;
  });
  places.writeBigUInt64LE(BigInt(at), frames.length * 8);
  const digests = frames.map((frame) => createHash("sha256").update(frame).digest());
  for (const part of parts.sections) {
    if (part.id === FRAME) part.bytes = places;
    if (part.id === FRAME_DIGEST) part.bytes = Buffer.concat(digests);
  }
  parts.data = Buffer.concat(frames);
}
