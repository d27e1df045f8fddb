// What a quota is told: its limits, what they are meant of, and the words that people write them in.
import { BLOCK } from "./blocks.js";

/** exclusive: of what the upper costs. inclusive: of that and the bytes of the image's layers. */
export type QuotaMode = "exclusive" | "inclusive";

/** A number of inodes, Infinity for no limit, or what {@link inodeLimitFor} makes of the limit in bytes. */
export type InodeLimit = number | "derived";

/** What a mount is told; as it may travel, in JSON, which knows no Infinity. */
export interface QuotaSettings {
  readonly mode: QuotaMode;
  /** Limit in bytes. */
  readonly bytes: number | "unlimited";
  readonly inodes: number | "unlimited" | "derived";
  /** What a request that would pass a limit fails with. */
  readonly errno: "EDQUOT" | "ENOSPC";
}

/** A limit as a number. Throws an Error of one line for what is none. */
export function limitOf(limit: number | "unlimited", what: string): number {
  if (limit === "unlimited") return Infinity;
  if (!Number.isSafeInteger(limit) || limit < 0) throw new Error(`quota: ${limit} is no number of ${what}`);
  return limit;
}

/** The fewest inodes that a limit in bytes gives. */
const FEWEST_INODES = 1024;

/**
 * Inodes for a limit in bytes that came without one of inodes: one for each block, so that no tree of files with content
 * and directories meets this limit before that of bytes; 1,024 at least.
 */
export function inodeLimitFor(bytes: number): number {
  return Math.max(FEWEST_INODES, Math.ceil(bytes / BLOCK));
}

const units = ["", "K", "M", "G", "T"];

/**
 * Bytes of a size like `10000`, `512k`, `1.5G` or `2T`, in units of 1024; Infinity for `unlimited`. Undefined for anything
 * else, and for less than one byte.
 */
export function parseSize(text: string): number | undefined {
  if (text === "unlimited") return Infinity;
  const match = /^(\d{1,16}(?:\.\d{1,9})?)([KMGT]?)$/i.exec(text);
  if (match === null) return undefined;
  const unit = (match[2] as string).toUpperCase();
  if (unit === "" && text.includes(".")) return undefined;
  const bytes = Math.floor(Number(match[1]) * 1024 ** units.indexOf(unit));
  return bytes >= 1 && bytes <= Number.MAX_SAFE_INTEGER ? bytes : undefined;
}

/** A limit of inodes: a whole number from 1 on, or `unlimited`. */
export function parseInodes(text: string): number | undefined {
  if (text === "unlimited") return Infinity;
  return /^[1-9]\d{0,14}$/.test(text) ? Number(text) : undefined;
}

/** Bytes for people: `1.5 GiB`; `unlimited` without a limit. */
export function formatSize(bytes: number): string {
  if (bytes === Infinity) return "unlimited";
  let unit = 0;
  let value = bytes;
  for (; value >= 1024 && unit < units.length - 1; unit++) value /= 1024;
  if (unit === 0) return `${bytes} B`;
  return `${value >= 100 ? Math.round(value) : Number(value.toFixed(1))} ${units[unit]}iB`;
}
