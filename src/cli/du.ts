// The `du` command: what an upper directory costs by the rule of quotas, the largest directories first.
import type { UpperCost } from "../overlay/quota/offline.js";
import { ExitCode, Failure } from "./failure.js";
import { formatBytes, plural, printError, printResult, table } from "./output.js";

export interface DuOptions {
  readonly work?: string;
  readonly top?: number;
  readonly all?: boolean;
  readonly json?: boolean;
}

/** Directories listed unless told otherwise: a screenful. */
const TOP = 20;

export async function du(upper: string, { work, top, all, json }: DuOptions): Promise<void> {
  if (all === true && top !== undefined) throw new Failure(ExitCode.usage, "du: --top or --all, not both");
  const { costOfUpper } = await import("../overlay/quota/offline.js");
  const { notes, ...cost } = costOfUpper({ upper, work, most: all === true ? Infinity : (top ?? TOP) });
  for (const note of notes) printError(`imgfs: note: ${note}\n`);
  printResult(cost, json === true, text);
}

function text({ bytes, inodes, directories, leftOut }: Omit<UpperCost, "notes">): string {
  const total = `${formatBytes(bytes)} (${plural(bytes, "byte")}), ${plural(inodes, "inode")}\n`;
  const rows = directories.map((at) => [formatBytes(at.bytes), plural(at.inodes, "inode"), at.path]);
  const more =
    leftOut === 0
      ? ""
      : `and ${plural(leftOut, "smaller directory", "smaller directories")}; --all shows them\n`;
  return `${total}${table(rows)}${more}`;
}
