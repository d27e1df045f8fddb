// The ids that an ordinary user may give to a user namespace: its own, and those that root has set aside for it in
// /etc/subuid and /etc/subgid (subuid(5)).
import { readFileSync } from "node:fs";
import { userInfo } from "node:os";
import type { MapLine, NamespaceMaps } from "./request.js";

/** Ranges of a file in the form of subuid(5) that are a user's, by name or by number, in the file's order. */
export function subordinateRanges(
  text: string,
  name: string | undefined,
  uid: number,
): (readonly [first: number, count: number])[] {
  return text.split("\n").flatMap((line) => {
    const [owner, first, count] = line.trim().split(":");
    if (owner === undefined || owner === "" || (owner !== name && owner !== String(uid))) return [];
    if (!/^\d{1,10}$/.test(first ?? "") || !/^[1-9]\d{0,9}$/.test(count ?? "")) return [];
    return [[Number(first), Number(count)] as const];
  });
}

/** Ranges of a file in that form that are this user's; none where it cannot be read. */
export function ownSubordinateRanges(file: string): (readonly [first: number, count: number])[] {
  return subordinateRanges(read(file), userName(), own().uid);
}

/** A map in which root is `own`, and the ids from 1 on are the ranges, one after the other. */
export function mapOf(own: number, ranges: readonly (readonly [number, number])[]): MapLine[] {
  const lines: MapLine[] = [[0, own, 1]];
  let inside = 1;
  for (const [first, count] of ranges) {
    lines.push([inside, first, count]);
    inside += count;
  }
  return lines;
}

/** Root alone, as this user. */
export function singleMaps(): NamespaceMaps {
  const { uid, gid } = own();
  return { uids: mapOf(uid, []), gids: mapOf(gid, []) };
}

/** Root as this user, and the subordinate ids; undefined where this user has none of either kind. */
export function subordinateMaps(): NamespaceMaps | undefined {
  const { uid, gid } = own();
  const uids = ownSubordinateRanges("/etc/subuid");
  const gids = ownSubordinateRanges("/etc/subgid");
  if (uids.length === 0 || gids.length === 0) return undefined;
  return { uids: mapOf(uid, uids), gids: mapOf(gid, gids) };
}

function own(): { uid: number; gid: number } {
  return { uid: process.geteuid?.() ?? 0, gid: process.getegid?.() ?? 0 };
}

function userName(): string | undefined {
  try {
    return userInfo().username;
  } catch {
    return undefined;
  }
}

function read(file: string): string {
  try {
    return readFileSync(file, "latin1");
  } catch {
    return "";
  }
}
