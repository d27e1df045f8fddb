// The `check` command: exit code 0 when nothing is wrong, 3 when something is.
import { type CheckReport, checkImage, type Finding } from "../imgfs/check.js";
import type { UpperFinding, UpperReport } from "../overlay/check-upper.js";
import type { StoreFinding, StoreReport } from "../store/check.js";
import { ExitCode, Failure } from "./failure.js";
import { findImage, openTree } from "./open.js";
import { formatBytes, plural, printResult } from "./output.js";

export interface CheckOptions {
  readonly data?: boolean;
  readonly json?: boolean;
  readonly upper?: string;
  readonly work?: string;
  readonly store?: string;
}

export async function check(path: string | undefined, options: CheckOptions): Promise<void> {
  const { upper, work, store } = options;
  if (store !== undefined) {
    if (path !== undefined || upper !== undefined || work !== undefined)
      throw new Failure(ExitCode.usage, "check: --store goes with no image and no --upper");
    await checkWholeStore(store, options);
    return;
  }
  if (upper !== undefined) {
    if (options.data === true)
      throw new Failure(ExitCode.usage, "check: --data is for an image, not for --upper");
    await checkUpperDirectory(upper, work, path, options.json === true);
    return;
  }
  if (work !== undefined) throw new Failure(ExitCode.usage, "check: --work goes with --upper");
  if (path === undefined) throw new Failure(ExitCode.usage, "check: an image, or --upper, is needed");
  const report = checkImage(findImage(path), { data: options.data === true });
  printResult(report, options.json === true, text);
  if (report.findings.length > 0) process.exitCode = ExitCode.damage;
}

async function checkUpperDirectory(
  upper: string,
  work: string | undefined,
  path: string | undefined,
  json: boolean,
): Promise<void> {
  const { checkUpper } = await import("../overlay/check-upper.js");
  const image = path === undefined ? undefined : openTree(path);
  try {
    const report = checkUpper({ upper, work, image });
    printResult(report, json, upperText);
    if (report.findings.length > 0) process.exitCode = ExitCode.damage;
  } finally {
    image?.close();
  }
}

async function checkWholeStore(path: string, options: CheckOptions): Promise<void> {
  const { checkStore } = await import("../store/check.js");
  const report = checkStore(path, { data: options.data === true });
  printResult(report, options.json === true, storeText);
  if (report.findings.length > 0) process.exitCode = ExitCode.damage;
}

function storeText({ findings, notes, images, files }: StoreReport): string {
  const told = ({ path, problem }: StoreFinding, kind: string): string => `${path}: ${kind}${problem}\n`;
  const damage = findings.length === 0 ? "no damage found" : plural(findings.length, "finding");
  const noted = notes.length === 0 ? "" : `, ${plural(notes.length, "note")}`;
  return [
    ...findings.map((finding) => told(finding, "")),
    ...notes.map((note) => told(note, "note: ")),
    `${damage} in ${plural(images, "image")} and ${plural(files, "file")} of content${noted}\n`,
  ].join("");
}

function upperText({ findings, notes, leftOut, objects }: UpperReport): string {
  const more = leftOut === 0 ? "" : ` and ${leftOut} more of the same kinds`;
  const damage = findings.length === 0 ? "no damage found" : `${plural(findings.length, "finding")}${more}`;
  const noted = notes.length === 0 ? "" : `, ${plural(notes.length, "note")}`;
  const told = ({ path, problem }: UpperFinding, kind: string): string => `${path}: ${kind}${problem}\n`;
  return [
    ...findings.map((finding) => told(finding, "")),
    ...notes.map((note) => told(note, "note: ")),
    `${damage} in ${plural(objects, "object")}${noted}\n`,
  ].join("");
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
