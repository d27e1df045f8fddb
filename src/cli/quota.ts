// The `quota` command: what a mount has used of its quota, and other limits while it runs.
import type { QuotaFigures } from "../daemon/control-protocol.js";
import { formatSize } from "../quota/settings.js";
import { mountEnded, withControl } from "./control.js";
import { printResult } from "./output.js";

interface QuotaCommandOptions {
  /** Bytes; Infinity for no limit. */
  readonly set?: number;
  readonly setInodes?: number;
  readonly json?: boolean;
}

export async function quota(mountpoint: string, options: QuotaCommandOptions): Promise<void> {
  const { set, setInodes } = options;
  const figures = await withControl("quota", mountpoint, async (control) => {
    const report =
      set === undefined && setInodes === undefined
        ? await control.ask<QuotaFigures>("quota")
        : await control.ask<QuotaFigures>("set-quota", {
            ...(set === undefined ? {} : { bytes: asJson(set) }),
            ...(setInodes === undefined ? {} : { inodes: asJson(setInodes) }),
          });
    if (report === undefined) throw mountEnded("quota", mountpoint);
    return report;
  });
  printResult(figures, options.json === true, formatQuota);
}

/** JSON has no Infinity. */
function asJson(limit: number): number | null {
  return limit === Number.POSITIVE_INFINITY ? null : limit;
}

const meanings = {
  exclusive: "of what the upper directory takes",
  inclusive: "of the image and what the upper directory takes",
} as const;

/** A quota as a table for people. */
export function formatQuota(figures: QuotaFigures): string {
  const { mode, bytes, byteLimit, bytesLeft, imageBytes, inodes, inodeLimit, inodesLeft } = figures;
  const count = (limit: number | null): string => (limit === null ? "unlimited" : String(limit));
  const size = (limit: number | null): string => formatSize(limit ?? Number.POSITIVE_INFINITY);
  const rows = [
    ["", "used", "limit", "left"],
    ["bytes", formatSize(bytes), size(byteLimit), size(bytesLeft)],
    ["inodes", String(inodes), count(inodeLimit), count(inodesLeft)],
  ];
  const lines = rows.map(
    ([name = "", ...cells]) => `${name.padEnd(6)}${cells.map((cell) => cell.padStart(12)).join("")}\n`,
  );
  const image = mode === "inclusive" ? `; ${formatSize(imageBytes)} of it the image's` : "";
  return `${mode}: ${meanings[mode]}${image}\n${lines.join("")}`;
}
