// The `build` command.
import { existsSync } from "node:fs";
import { buildFlat } from "../builder/flatten.js";
import { type BuildOptions, type BuildResult, buildImage } from "../builder/image.js";
import { type Codec, parseCodec } from "../imgfs/codec.js";
import { parsePlatform } from "../oci/platform.js";
import { parseReference } from "../oci/reference.js";
import { ExitCode, Failure } from "./failure.js";
import { flatSummary } from "./flatten.js";
import { formatBytes, plural, printResult } from "./output.js";
import { createProgress, type ProgressKind } from "./progress.js";
import { stoppable } from "./stop.js";

interface BuildCommandOptions {
  readonly jobs?: number;
  readonly platform?: string;
  readonly codec: string;
  readonly flatten?: boolean;
  readonly progress: ProgressKind;
  readonly json?: boolean;
}

export async function build(source: string, dest: string, options: BuildCommandOptions): Promise<void> {
  const codec = checkArguments(source, options);
  const progress = createProgress(options.progress, process.stderr);
  try {
    await stoppable(`build ${source}`, async (signal) => {
      const given: BuildOptions = {
        ...(options.jobs === undefined ? {} : { jobs: options.jobs }),
        ...(options.platform === undefined ? {} : { platform: options.platform }),
        codec,
        onEvent: progress.update,
        signal,
      };
      const json = options.json === true;
      if (options.flatten === true) {
        const result = await buildFlat(source, dest, given);
        progress.end();
        printResult(result, json, flatSummary);
      } else {
        const result = await buildImage(source, dest, given);
        progress.end();
        printResult(result, json, summary);
      }
    });
  } catch (cause) {
    progress.end();
    throw cause;
  }
}

/** What is wrong with the command line itself, or names nothing, is told by its exit code. */
function checkArguments(source: string, { platform, codec }: BuildCommandOptions): Codec {
  let path: string;
  let parsed: Codec;
  try {
    ({ path } = parseReference(source));
    parsed = parseCodec(codec);
    if (platform !== undefined) parsePlatform(platform);
  } catch (cause) {
    throw new Failure(ExitCode.usage, `build ${source}`, { cause });
  }
  if (!existsSync(path))
    throw new Failure(ExitCode.notFound, `build ${source}: ${path}: no such file or directory`);
  return parsed;
}

function summary(result: BuildResult): string {
  const reused = result.layers.filter((layer) => layer.reused).length;
  const stored = result.layers.reduce((sum, layer) => sum + layer.summary.fileSize, 0);
  const from = reused === 0 ? "" : ` (${reused} already there)`;
  return `${result.index}: ${plural(result.layers.length, "layer")}${from}, ${plural(result.entries, "entry", "entries")}, ${formatBytes(stored)}\n`;
}
