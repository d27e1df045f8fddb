// The process that runs inputs. It may hang or crash: which input it is at stands in a file all the time.
//   child.mjs run KIND FIRST COUNT STATUS SAVED    inputs of the seeds FIRST to FIRST+COUNT
//   child.mjs make KIND SEED SAVED                 saves the input of a seed, and prints where
//   child.mjs replay FILE                          one saved input
import { mkdirSync, openSync, readFileSync, writeFileSync, writeSync } from "node:fs";
import { basename, join } from "node:path";
import { scratch } from "../imgfs/support.js";
import { brokenKind } from "./broken-kind.js";
import { decoderKind } from "./decoder-kind.js";
import { imageKind } from "./image-kind.js";
import type { Input, Kind } from "./kind.js";
import { sourceKind } from "./source-kind.js";
import { layerKind } from "./tar-kind.js";

/** Processor time that one input may take, and memory that it may leave behind. */
const MAX_MILLISECONDS = 10_000;
const MAX_GROWTH = 256 << 20;
/** Failures after which there is no point in going on. */
const ENOUGH = 20;

function kindOf(name: string): Kind {
  const folder = join(scratch, name);
  mkdirSync(folder, { recursive: true });
  switch (name) {
    case "image-raw":
      return imageKind("raw", folder);
    case "image-sealed":
      return imageKind("sealed", folder);
    case "layer-tar":
      return layerKind(false, folder);
    case "layer-compressed":
      return layerKind(true, folder);
    case "decoders":
      return decoderKind();
    case "sources":
      return sourceKind(folder);
    case "broken":
      return brokenKind;
    default:
      throw new Error(`no kind ${name}`);
  }
}

async function started(name: string): Promise<Kind> {
  const kind = kindOf(name);
  await kind.begin?.();
  return kind;
}

async function measured(kind: Kind, input: Input): Promise<string | undefined> {
  const memory = process.memoryUsage.rss();
  const start = process.cpuUsage();
  try {
    await kind.run(input);
  } catch (cause) {
    return cause instanceof Error ? (cause.stack ?? cause.message) : String(cause);
  }
  const { user, system } = process.cpuUsage(start);
  const milliseconds = (user + system) / 1000;
  if (milliseconds > MAX_MILLISECONDS) return `it took ${milliseconds} ms of processor time`;
  const growth = process.memoryUsage.rss() - memory;
  if (growth > MAX_GROWTH) return `memory grew by ${growth >> 20} MiB`;
  return undefined;
}

function save(kind: Kind, input: Input, seed: number, folder: string): string {
  const file = join(folder, `${kind.name}.${input.label}.${seed}.bin`);
  writeFileSync(file, input.bytes);
  return file;
}

async function run([name = "", first, count, status = "", saved = ""]: readonly string[]): Promise<void> {
  const kind = await started(name);
  const fd = openSync(status, "w");
  const place = new Float64Array(3);
  const bytes = new Uint8Array(place.buffer);
  let failures = 0;
  let done = 0;
  const seen = new Set<string>();
  for (; done < Number(count) && failures < ENOUGH; done++) {
    const seed = Number(first) + done;
    place.set([seed, done, 0]);
    writeSync(fd, bytes, 0, bytes.length, 0);
    const input = kind.make(seed);
    const problem = await measured(kind, input);
    if (problem === undefined) continue;
    // One defect shows in many inputs; the place where it was met tells them apart.
    const key = problem.replace(/\d+/g, "#").split("\n").slice(0, 4).join("\n");
    if (seen.has(key)) continue;
    seen.add(key);
    failures++;
    const file = save(kind, input, seed, saved);
    process.stdout.write(`${JSON.stringify({ kind: kind.name, seed, file, problem })}\n`);
  }
  place.set([Number(first) + done, done, 1]);
  writeSync(fd, bytes, 0, bytes.length, 0);
  process.stdout.write(`${JSON.stringify({ done })}\n`);
}

async function replay(file: string): Promise<void> {
  const [name = "", label = ""] = basename(file).split(".");
  const problem = await measured(await started(name), { label, bytes: readFileSync(file) });
  process.stdout.write(`${problem ?? "no failure"}\n`);
  process.exitCode = problem === undefined ? 0 : 1;
}

const [, , command, ...rest] = process.argv;
if (command === "run") await run(rest);
else if (command === "make") {
  const [name = "", seed, saved = ""] = rest;
  const kind = await started(name);
  process.stdout.write(save(kind, kind.make(Number(seed)), Number(seed), saved));
} else await replay(rest[0] ?? "");
