// The `build` command.
import { existsSync } from "node:fs";
import { type BuildResult, buildImage } from "../builder/image.js";
import { type Codec, parseCodec } from "../imgfs/codec.js";
import { parsePlatform } from "../oci/platform.js";
import { parseReference } from "../oci/reference.js";
import { ExitCode, Failure } from "./failure.js";
import { formatBytes, plural, printResult } from "./output.js";
import { createProgress, type ProgressKind } from "./progress.js";

interface BuildCommandOptions {
  readonly jobs?: number;
  readonly platform?: string;
  readonly codec: string;
  readonly progress: ProgressKind;
  readonly json?: boolean;
}

const stopSignals = ["SIGINT", "SIGTERM", "SIGHUP"] as const;

export async function build(source: string, dest: string, options: BuildCommandOptions): Promise<void> {
  const codec = checkArguments(source, options);
  const progress = createProgress(options.progress, process.stderr);
  const abort = new AbortController();
  let signal: NodeJS.Signals | undefined;
  // A signal that comes again while temporaries are being removed must not cut that short.
  const onSignal = (received: NodeJS.Signals): void => {
    signal ??= received;
    abort.abort();
  };
  for (const name of stopSignals) process.on(name, onSignal);
  try {
    const result = await buildImage(source, dest, {
      ...(options.jobs === undefined ? {} : { jobs: options.jobs }),
      ...(options.platform === undefined ? {} : { platform: options.platform }),
      codec,
      onEvent: progress.update,
      signal: abort.signal,
    });
    progress.end();
    printResult(result, options.json === true, summary);
  } catch (cause) {
    progress.end();
    if (signal === undefined) throw new Failure(ExitCode.failure, `build ${source}`, { cause });
    throw new Failure(
      signal === "SIGINT" ? ExitCode.interrupted : ExitCode.terminated,
      `build ${source}: stopped by ${signal}, nothing was left behind`,
    );
  } finally {
    for (const name of stopSignals) process.off(name, onSignal);
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
