// The `extract` command: an image's tree into a directory, or as a tar to stdout.
import { isatty } from "node:tty";
import { displayName } from "../base/bytes.js";
import { FsError } from "../base/errno.js";
import type { LossKind } from "../extract/attributes.js";
import { type ExtractReport, extractTo } from "../extract/directory.js";
import { at } from "../extract/failure.js";
import { writeTar } from "../extract/tar.js";
import { type Start, startAt } from "../extract/walk.js";
import type { Image } from "../imgfs/image.js";
import { ExitCode, Failure } from "./failure.js";
import { openTree } from "./open.js";
import { ClosedPipe, formatBytes, plural, print, printError, printResult } from "./output.js";
import { stoppable } from "./stop.js";

interface ExtractCommandOptions {
  readonly tar?: boolean;
  /** Undefined unless asked for or forbidden. */
  readonly sameOwner: boolean;
  readonly xattrs: boolean;
  readonly json?: boolean;
}

export async function extract(
  imagePath: string,
  paths: readonly string[],
  options: ExtractCommandOptions,
): Promise<void> {
  const asTar = options.tar === true || paths[0] === "-";
  const [first, ...rest] = paths[0] === "-" ? paths.slice(1) : paths;
  const dest = asTar ? undefined : first;
  const inside = asTar ? first : rest[0];
  if (rest.length > (asTar ? 0 : 1)) throw new Failure(ExitCode.usage, "extract: too many arguments");
  if (!asTar && dest === undefined) {
    throw new Failure(ExitCode.usage, "extract: a DEST is needed, or --tar for a tar on stdout");
  }
  if (asTar && isatty(1)) throw new Failure(ExitCode.usage, "extract: a tar is not written to a terminal");
  const image = openTree(imagePath);
  try {
    const start = startOf(image, inside ?? "/");
    if (dest === undefined) return tar(image, start, imagePath);
    const report = await stoppable(`extract ${imagePath}`, (signal) =>
      extractTo(image, start, dest, { owner: options.sameOwner, xattrs: options.xattrs, signal }),
    );
    for (const { kind, count, first: example } of report.losses) {
      printError(`imgfs: warning: ${lossText[kind](plural(count, nouns[kind]), example)}\n`);
    }
    printResult({ dest, ...report }, options.json === true, summary);
  } finally {
    image.close();
  }
}

function startOf(image: Image, path: string): Start {
  try {
    return startAt(image, Buffer.from(path));
  } catch (cause) {
    if (!(cause instanceof FsError)) throw cause;
    throw new Failure(ExitCode.failure, `extract: ${at(displayName(Buffer.from(path)), cause).message}`);
  }
}

function tar(image: Image, start: Start, imagePath: string): void {
  try {
    writeTar(image, start, print);
  } catch (cause) {
    if (cause instanceof ClosedPipe) throw cause;
    throw new Failure(ExitCode.failure, `extract ${imagePath}`, { cause });
  }
}

const nouns: Readonly<Record<LossKind, string>> = {
  owner: "object",
  setid: "file",
  xattr: "extended attribute",
  device: "device",
  attributes: "object",
};

const lossText: Readonly<Record<LossKind, (count: string, first: string) => string>> = {
  owner: (count, first) => `${count} stay yours, because this user cannot give them away (first ${first})`,
  setid: (count, first) =>
    `${count} without the setuid and setgid bits, because they are not the image's owner's (first ${first})`,
  xattr: (count, first) => `${count} not set, not permitted or not supported here (first ${first})`,
  device: (count, first) => `${count} left out, not permitted here (first ${first})`,
  attributes: (count, first) => `${count} keep mode and times, not permitted to change them (first ${first})`,
};

function summary({ dest, entries, bytes }: ExtractReport & { readonly dest: string }): string {
  return `${dest}: ${plural(entries, "entry", "entries")}, ${formatBytes(bytes)}\n`;
}
