// Runs one command of the store: settings, log and metrics around what its own module does, and failures in the words of
// the name that was called.
import { closeSync, openSync } from "node:fs";
import { createLogger, type LogLevel, logLevels } from "../../base/log.js";
import type { MountHere } from "../../store/mounts.js";
import { ClosedPipe, printError, visible } from "../output.js";
import type { Caller } from "./caller.js";
import { ConfigError } from "./config-file.js";
import type { StoreOptions } from "./declare.js";
import { lagerLevel, lagerLog, plainLog, type StoreLog } from "./lager.js";
import { Metrics } from "./metrics.js";
import { type Program, readSettings, type Settings } from "./settings.js";
import { StoreFailure, usage } from "./store-failure.js";
import { failureOf } from "./words.js";

type Run = (caller: Caller) => Promise<void> | void;

const commands: Readonly<Record<string, () => Promise<Run>>> = {
  "init-store": async () => (await import("./init-store.js")).initStoreCommand,
  "delete-store": async () => (await import("./init-store.js")).deleteStoreCommand,
  create: async () => (await import("./create.js")).create,
  pull: async () => (await import("./create.js")).pull,
  delete: async () => (await import("./images.js")).deleteCommand,
  list: async () => (await import("./images.js")).list,
  stats: async () => (await import("./images.js")).stats,
  metrics: async () => (await import("./images.js")).stats,
  clean: async () => (await import("./clean.js")).clean,
  "generate-volume-size-metadata": async () => (await import("./clean.js")).measureVolumes,
  capacity: async () => (await import("./capacity.js")).capacity,
  bundle: async () => (await import("./bundle.js")).bundle,
  store: async () => (await import("./ingests.js")).ingests,
};

/** What a failure is called in GrootFS's log. */
const actions: Readonly<Record<string, string>> = {
  "init-store": "init-store-failed",
  create: "creating",
  delete: "deleting-image-failed",
  stats: "fetching-stats",
  metrics: "fetching-metrics",
  clean: "cleaning-up-unused-resources",
};

/** Runs it. Throws a Failure, which is a StoreFailure where GrootFS has words of its own. */
export async function runStoreCommand(
  program: Program,
  command: string,
  args: readonly string[],
  options: StoreOptions,
  mountHere?: MountHere,
): Promise<void> {
  // Node keeps the words of the command line where other users see them.
  if (options.password !== undefined) process.title = program;
  const caller: Caller = { ...makeCaller(program, command, args, options), mountHere };
  const { metrics } = caller;
  try {
    checkOptions(caller);
    const load = commands[command];
    if (load === undefined) throw new Error(`${command} is not a command of the store`);
    await (await load())(caller);
  } catch (cause) {
    // A reader that has gone, and whatever else is not about the store.
    if (cause instanceof ClosedPipe) throw cause;
    const failure = failureOf(cause, caller);
    caller.log.error(actions[command] ?? "failed", program === "grootfs" ? failure.groot : failure);
    throw failure;
  } finally {
    metrics.write();
  }
}

/** The caller, with settings read and logs open. Throws StoreFailure. */
export function makeCaller(
  program: Program,
  command: string,
  args: readonly string[],
  options: StoreOptions,
): Caller {
  const settings = settingsOf(program, options);
  checkText([...args, settings.store, ...Object.values(options).flat()]);
  const log = logOf(program, settings, options);
  if (settings.unknownKeys.length > 0) warnOfKeys(program, settings, log);
  const session = log.session(command);
  return { program, command, settings, options, args, log: session, metrics: new Metrics(settings, session) };
}

/** What is no UTF-8 comes with U+FFFD in place of its bytes: a name that nobody has given. */
function checkText(words: readonly unknown[]): void {
  for (const word of words) {
    if (typeof word === "string" && word.includes("\ufffd")) throw usage(`not UTF-8: ${visible(word)}`);
  }
}

function settingsOf(program: Program, options: StoreOptions): Settings {
  try {
    return readSettings(program, options);
  } catch (cause) {
    if (cause instanceof ConfigError) throw new StoreFailure(cause.message);
    throw cause;
  }
}

function logOf(program: Program, settings: Settings, options: StoreOptions): StoreLog {
  const { logLevel, logFile } = settings;
  if (program === "grootfs") {
    try {
      return lagerLog("grootfs", lagerLevel(logLevel), logFile);
    } catch (cause) {
      throw new StoreFailure((cause as Error).message);
    }
  }
  const file = options.log ?? logFile;
  if (file !== undefined) makeLog(file);
  // GrootFS's lowest level is above our lowest.
  const level = logLevels.find((each) => each === logLevel) ?? (logLevel === "fatal" ? "error" : "warn");
  return plainLog(
    createLogger({
      level: options.debug === true ? "debug" : (level satisfies LogLevel),
      format: options.logFormat ?? "text",
      fd: 2,
      file,
    }),
  );
}

function makeLog(file: string): void {
  try {
    closeSync(openSync(file, "a", 0o644));
  } catch (cause) {
    throw new StoreFailure(`log file ${file}`, { cause });
  }
}

function warnOfKeys(program: Program, { unknownKeys, readFile }: Settings, log: StoreLog): void {
  for (const key of unknownKeys) {
    if (program === "grootfs") log.info("unknown-config-key", { key });
    else printError(`imgfs: warning: config file ${readFile}: unknown key ${visible(key)}\n`);
  }
}

/** What GrootFS checks before any command: limits from flags or the file. */
function checkOptions({ options, settings }: Caller): void {
  const { file } = settings;
  if ((options.diskLimitSizeBytes ?? file.create?.disk_limit_size_bytes ?? 0) < 0) {
    throw usage("invalid argument: disk limit cannot be negative");
  }
  if ((options.thresholdBytes ?? file.clean?.threshold_bytes ?? 0) < 0) {
    throw usage("invalid argument: clean threshold cannot be negative");
  }
  if ((options.storeSizeBytes ?? file.init?.store_size_bytes ?? 0) < 0) {
    throw usage("invalid argument: store size cannot be negative");
  }
}
