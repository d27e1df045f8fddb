// The `check` command: exit code 0 when nothing is wrong, 3 when something is.
import { type CheckReport, checkImage, type Finding } from "../imgfs/check.js";
import { ExitCode } from "./failure.js";
import { findImage } from "./open.js";
import { formatBytes, plural, printResult } from "./output.js";

export function check(path: string, options: { readonly data?: boolean; readonly json?: boolean }): void {
  const report = checkImage(findImage(path), { data: options.data === true });
  printResult(report, options.json === true, text);
  if (report.findings.length > 0) process.exitCode = ExitCode.damage;
}

function text(report: CheckReport): string {
  const { findings, leftOut, files, entries, dataBytes } = report;
  const more = leftOut === 0 ? "" : ` and ${leftOut} more of the same kinds`;
  const damage = findings.length === 0 ? "no damage found" : `${plural(findings.length, "finding")}${more}`;
  const data = dataBytes === 0 ? "" : `, ${formatBytes(dataBytes)} of data`;
  const summary = `${damage} in ${plural(files.length, "file")}, ${plural(entries, "entry", "entries")}${data}\n`;
  return findings.map(line).join("") + summary;
}

function line({ file, section, record, problem }: Finding): string {
  return `${[file, section, record].filter((part) => part !== "").join(": ")}: ${problem}\n`;
}
