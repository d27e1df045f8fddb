// The `flatten` command, and how the result is told.
import { type FlattenResult, flatten as flattenImage } from "../builder/flatten.js";
import { type Codec, parseCodec } from "../imgfs/codec.js";
import { ExitCode, Failure } from "./failure.js";
import { findImage } from "./open.js";
import { formatBytes, plural, printResult } from "./output.js";
import { stoppable } from "./stop.js";

interface FlattenCommandOptions {
  readonly codec: string;
  readonly json?: boolean;
}

export async function flatten(image: string, dest: string, options: FlattenCommandOptions): Promise<void> {
  let codec: Codec;
  try {
    codec = parseCodec(options.codec);
  } catch (cause) {
    throw new Failure(ExitCode.usage, `flatten ${image}`, { cause });
  }
  const index = findImage(image);
  const result = await stoppable(`flatten ${image}`, (signal) =>
    flattenImage(index, dest, { codec, signal }),
  );
  printResult(result, options.json === true, flatSummary);
}

/** One line about a flattened file. */
export function flatSummary({ path, entries, fileSize }: FlattenResult): string {
  return `${path}: ${plural(entries, "entry", "entries")}, ${formatBytes(fileSize)}\n`;
}
