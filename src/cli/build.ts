// The `build` command.
import { existsSync } from "node:fs";
import { buildFlat } from "../builder/flatten.js";
import { type BuildOptions, type BuildResult, buildImage } from "../builder/image.js";
import { type Codec, parseCodec } from "../imgfs/codec.js";
import { parsePlatform } from "../oci/platform.js";
import { parseReference } from "../oci/reference.js";
import { RegistryError } from "../oci/registry/errors.js";
import type { RegistryOptions } from "../oci/registry/options.js";
import { ExitCode, Failure } from "./failure.js";
import { flatSummary } from "./flatten.js";
import { formatBytes, plural, printResult } from "./output.js";
import { createProgress, type ProgressKind } from "./progress.js";
import { givenFlags, type RegistryFlags, registryFailure, registryOptions } from "./registry.js";
import { stoppable } from "./stop.js";

interface BuildCommandOptions extends RegistryFlags {
  readonly jobs?: number;
  readonly platform?: string;
  readonly codec: string;
  readonly flatten?: boolean;
  readonly progress: ProgressKind;
  readonly json?: boolean;
}

export async function build(source: string, dest: string, options: BuildCommandOptions): Promise<void> {
  const { codec, registry } = checkArguments(source, options);
  const progress = createProgress(options.progress, process.stderr);
  try {
    await stoppable(`build ${source}`, async (signal) => {
      const given: BuildOptions = {
        ...(options.jobs === undefined ? {} : { jobs: options.jobs }),
        ...(options.platform === undefined ? {} : { platform: options.platform }),
        codec,
        registry,
        onEvent: progress.update,
        signal,
      };
      const json = options.json === true;
      try {
        if (options.flatten === true) {
          const result = await buildFlat(source, dest, given);
          progress.end();
          printResult(result, json, flatSummary);
        } else {
          const result = await buildImage(source, dest, given);
          progress.end();
          printResult(result, json, summary);
        }
      } catch (cause) {
        if (!(cause instanceof RegistryError) || signal.aborted) throw cause;
        throw registryFailure(`build ${source}`, cause);
      }
    });
  } catch (cause) {
    progress.end();
    throw cause;
  }
}

/** What is wrong with the command line itself, or names nothing, is told by its exit code. */
function checkArguments(
  source: string,
  options: BuildCommandOptions,
): { readonly codec: Codec; readonly registry: RegistryOptions } {
  try {
    const { path, transport } = parseReference(source);
    const codec = parseCodec(options.codec);
    if (options.platform !== undefined) parsePlatform(options.platform);
    if (transport === "docker") return { codec, registry: registryOptions(options) };
    const flags = givenFlags(options);
    if (flags.length > 0) throw new Error(`${flags.join(", ")}: only a docker:// source is in a registry`);
    if (existsSync(path)) return { codec, registry: {} };
    throw new Failure(ExitCode.notFound, `build ${source}: ${path}: no such file or directory`);
  } catch (cause) {
    if (cause instanceof Failure) throw cause;
    throw new Failure(ExitCode.usage, `build ${withoutLogin(source)}`, { cause });
  }
}

/** What a mistaken reference has before an @ may be a password. */
function withoutLogin(source: string): string {
  return source.replace(/^(docker:\/*)[^/@]*:[^/@]*@(?!sha\d+:)/, "$1...@");
}

function summary(result: BuildResult): string {
  const reused = result.layers.filter((layer) => layer.reused).length;
  const stored = result.layers.reduce((sum, layer) => sum + layer.summary.fileSize, 0);
  const from = reused === 0 ? "" : ` (${reused} already there)`;
  return `${result.index}: ${plural(result.layers.length, "layer")}${from}, ${plural(result.entries, "entry", "entries")}, ${formatBytes(stored)}\n`;
}
