// The flags that give a mount a quota, as the commands that mount have them.
import { type Command, InvalidArgumentError, Option } from "commander";
import { parseInodes, parseSize, type QuotaMode, type QuotaSettings } from "../quota/settings.js";
import { ExitCode, Failure } from "./failure.js";

export interface QuotaOptions {
  readonly quota?: number;
  readonly quotaInodes?: number;
  readonly quotaMode?: QuotaMode;
  readonly quotaErrno?: QuotaSettings["errno"];
}

/** Declares the flags. */
export function addQuotaOptions(command: Command): Command {
  return command
    .option(
      "--quota <size>",
      "limit what the upper may take: bytes, or K, M, G, T of 1024; or unlimited",
      size,
    )
    .option(
      "--quota-inodes <n>",
      "limit its inodes, or unlimited (default: one for 4 KiB of the quota, 1024 at least)",
      inodes,
    )
    .addOption(
      new Option(
        "--quota-mode <exclusive|inclusive>",
        "what the quota is of: the upper, or image and upper (default: exclusive)",
      ).choices(["exclusive", "inclusive"]),
    )
    .addOption(
      new Option(
        "--quota-errno <EDQUOT|ENOSPC>",
        "what a write that would pass it fails with (default: EDQUOT)",
      ).choices(["EDQUOT", "ENOSPC"]),
    );
}

/** A size in words, for commander. */
export function size(text: string): number {
  const bytes = parseSize(text);
  if (bytes === undefined) throw new InvalidArgumentError("not a size like 10000, 512K, 1.5G or unlimited.");
  return bytes;
}

/** A number of inodes in words, for commander. */
export function inodes(text: string): number {
  const count = parseInodes(text);
  if (count === undefined) throw new InvalidArgumentError("not a number above 0, nor unlimited.");
  return count;
}

/** The quota that the flags of command `name` ask for. Throws Failure. */
export function readQuota(name: string, options: QuotaOptions): QuotaSettings | undefined {
  const { quota, quotaInodes, quotaMode, quotaErrno } = options;
  if (quota === undefined) {
    const given = Object.entries({
      "--quota-inodes": quotaInodes,
      "--quota-mode": quotaMode,
      "--quota-errno": quotaErrno,
    });
    const [alone] = given.find(([, value]) => value !== undefined) ?? [];
    if (alone !== undefined) throw new Failure(ExitCode.usage, `${name}: ${alone} needs --quota`);
    return undefined;
  }
  return {
    mode: quotaMode ?? "exclusive",
    bytes: quota === Infinity ? "unlimited" : quota,
    inodes: quotaInodes === Infinity ? "unlimited" : (quotaInodes ?? "derived"),
    errno: quotaErrno ?? "EDQUOT",
  };
}
