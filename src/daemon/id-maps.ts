// Id maps as people write them, and what the kernel says of ids here. The meaning is src/overlay/id-map.ts; this file
// loads nothing of it, for the command line reads maps before there is a mount.
import { readFileSync } from "node:fs";
import type { IdRange, NamespaceIds } from "../overlay/id-map.js";

export type { IdRange } from "../overlay/id-map.js";

/** Ids are below this: 2^32 - 1 says "none" to the kernel. */
const ID_END = 0xffff_ffff;

/** A map that is none; the message names the part that is wrong. */
export class IdMapError extends Error {
  constructor(message: string) {
    super(message);
    this.name = "IdMapError";
  }
}

/**
 * Reads `C:H:S`, or several in a row divided by `:` or `,`: S ids from C on in the image are H and up at the mount.
 * Returns them behind `earlier`. Throws IdMapError for what is no map, and for ranges that overlap on either side.
 */
export function parseIdMap(text: string, earlier: readonly IdRange[] = []): IdRange[] {
  const fields = text.split(/[:,]/);
  const ranges = [...earlier];
  if (fields.length % 3 !== 0) throw notAMap(text);
  for (let i = 0; i < fields.length; i += 3) {
    const part = fields.slice(i, i + 3);
    if (!part.every((field) => /^[0-9]{1,10}$/.test(field))) throw notAMap(text);
    const [image, host, count] = part.map(Number) as [number, number, number];
    const range = { image, host, count };
    if (count === 0) throw new IdMapError(`${textOf(range)} maps no ids`);
    if (image + count > ID_END || host + count > ID_END) {
      throw new IdMapError(`${textOf(range)} goes beyond the largest id, ${ID_END - 1}`);
    }
    for (const other of ranges) checkDisjoint(other, range);
    ranges.push(range);
  }
  return ranges;
}

/** True when the map has an id for root: without one there is nothing to squash to. */
export function mapsRoot(map: readonly IdRange[] | undefined): boolean {
  return map === undefined || map.some(({ image }) => image === 0);
}

function notAMap(text: string): IdMapError {
  return new IdMapError(`${JSON.stringify(text)} is not IMAGE-ID:HOST-ID:COUNT, in whole numbers`);
}

function checkDisjoint(a: IdRange, b: IdRange): void {
  const meet = (from: number, to: number): boolean => from < to + b.count && to < from + a.count;
  if (meet(a.image, b.image)) throw new IdMapError(`${textOf(a)} and ${textOf(b)} overlap in the image`);
  if (meet(a.host, b.host)) throw new IdMapError(`${textOf(a)} and ${textOf(b)} overlap on the host`);
}

function textOf({ image, host, count }: IdRange): string {
  return `${image}:${host}:${count}`;
}

/** The ids that this process's user namespace has, and those shown for ids there are not. */
export function readNamespaceIds(): NamespaceIds {
  return {
    uids: namespaceRanges("/proc/self/uid_map"),
    gids: namespaceRanges("/proc/self/gid_map"),
    overflowUid: readNumber("/proc/sys/kernel/overflowuid"),
    overflowGid: readNumber("/proc/sys/kernel/overflowgid"),
  };
}

/** First and count of each range, by user_namespaces(7); undefined for all ids. */
function namespaceRanges(file: string): Uint32Array | undefined {
  const lines = readProc(file)?.trim().split("\n");
  if (lines === undefined) return undefined;
  const ranges = lines.map((line) => line.trim().split(/\s+/).map(Number) as [number, number, number]);
  if (ranges.some(([first, , count]) => first === 0 && count === ID_END)) return undefined;
  return Uint32Array.from(ranges.flatMap(([first, , count]) => [first, count]));
}

function readNumber(file: string): number {
  return Number(readProc(file) ?? 65534);
}

function readProc(file: string): string | undefined {
  try {
    return readFileSync(file, "latin1");
  } catch {
    return undefined;
  }
}
