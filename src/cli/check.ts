// The `check` command: exit code 0 when nothing is wrong, 3 when something is.
import { checkImage } from "../imgfs/check.js";
import { ExitCode } from "./failure.js";
import { findImage } from "./open.js";
import { plural, printResult } from "./output.js";

export function check(path: string, options: { readonly data?: boolean; readonly json?: boolean }): void {
  const file = findImage(path);
  const report = checkImage(file, { data: options.data === true });
  printResult({ file, ...report }, options.json === true, ({ findings }) =>
    findings.length === 0
      ? `${file}: no damage found\n`
      : `${findings.map(({ message }) => `${message}\n`).join("")}${file}: ${plural(findings.length, "finding")}\n`,
  );
  if (report.findings.length > 0) process.exitCode = ExitCode.damage;
}
