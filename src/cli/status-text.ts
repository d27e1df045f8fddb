// A mount's status as text for people.
import type { QuotaFigures } from "../daemon/control-protocol.js";
import type { MountStatus, OpcodeFigures } from "../daemon/status.js";
import { formatSize } from "../quota/settings.js";
import { plural, table, visible } from "./output.js";

/** With a former status of the same mount it says how many requests come in a second. */
export function formatStatus(status: MountStatus, former?: MountStatus): string {
  const { requests, caches } = status;
  const head = table([
    ["mount", visible(status.mountpoint)],
    [
      "process",
      `${status.pid}, up ${duration(status.uptime)}, ${formatSize(status.process.rss)} of memory, ` +
        plural(status.process.descriptors, "descriptor"),
    ],
    ["image", visible(status.sources.join(", "))],
    ["upper", visible(status.upper ?? "none")],
    ["access", `${status.readOnly ? "read-only" : "read and write"}, transport ${status.transport}`],
    ["quota", status.quota === null ? "none" : quotaText(status.quota)],
    ["requests", requestsText(status, former)],
    ...cacheRows(caches),
  ]);
  return `${head}\n${opcodeTable(requests.opcodes)}`;
}

function duration(seconds: number): string {
  const whole = Math.floor(seconds);
  const parts: readonly (readonly [number, string])[] = [
    [Math.floor(whole / 86_400), "d"],
    [Math.floor(whole / 3_600) % 24, "h"],
    [Math.floor(whole / 60) % 60, "min"],
    [whole % 60, "s"],
  ];
  const first = parts.findIndex(([count]) => count > 0);
  if (first < 0) return "0 s";
  return parts
    .slice(first, first + 2)
    .map(([count, unit]) => `${count} ${unit}`)
    .join(" ");
}

function quotaText({ mode, bytes, byteLimit, inodes, inodeLimit }: QuotaFigures): string {
  const of = (used: string, limit: string | null): string =>
    limit === null ? `${used} (unlimited)` : `${used} of ${limit}`;
  const size = of(formatSize(bytes), byteLimit === null ? null : formatSize(byteLimit));
  return `${mode}: ${size}, ${of(String(inodes), inodeLimit === null ? null : String(inodeLimit))} inodes`;
}

function requestsText({ requests, uptime }: MountStatus, former: MountStatus | undefined): string {
  const { total, errors, waiting, serving } = requests;
  const between = former === undefined ? 0 : uptime - former.uptime;
  const rate =
    former === undefined || between <= 0
      ? ""
      : ` (${Math.round((total - former.requests.total) / between)} a second)`;
  const now =
    serving === null
      ? ""
      : `, now ${serving.opcode}${serving.for === null ? "" : ` for ${time(serving.for * 1000)}`}`;
  return `${total}${rate}, ${plural(errors, "error")}, ${waiting} waiting${now}`;
}

function cacheRows(caches: MountStatus["caches"]): string[][] {
  const { inodes, listings, descriptors, descriptorLimit, frames, frameLimit, frameHits, framesDecoded } =
    caches;
  const rows: string[][] = [];
  if (inodes !== undefined) {
    rows.push([
      "in memory",
      `${plural(inodes, "inode")} of the upper, ${plural(listings ?? 0, "listing")}, ` +
        `${plural(descriptors ?? 0, "descriptor")} (up to ${descriptorLimit} beside those in use)`,
    ]);
  }
  if (frames !== undefined) {
    rows.push([
      "decoded",
      `${frames} of ${frameLimit} frames held, ${framesDecoded} decoded, read from ${frameHits} times`,
    ]);
  }
  return rows;
}

/** Microseconds for people. */
function time(microseconds: number): string {
  if (microseconds < 1_000) return `${microseconds.toFixed(1)} us`;
  if (microseconds < 1_000_000) return `${(microseconds / 1_000).toFixed(2)} ms`;
  return `${(microseconds / 1_000_000).toFixed(2)} s`;
}

function opcodeTable(opcodes: readonly OpcodeFigures[]): string {
  const rows = [
    ["opcode", "requests", "errors", "mean", "p50", "p99", "max"],
    ...opcodes.map(({ opcode, requests, errors, latency }) => [
      visible(opcode),
      String(requests),
      String(errors),
      ...(latency === null
        ? ["-", "-", "-", "-"]
        : [latency.mean, latency.p50, latency.p99, latency.max].map(time)),
    ]),
  ];
  return rows
    .map(([name = "", ...cells]) => `${name.padEnd(16)}${cells.map((cell) => cell.padStart(11)).join("")}\n`)
    .join("");
}
