// What a command of the store is told, from all places: flags, then the environment, then the config file, then defaults.
import { homedir } from "node:os";
import { join, resolve } from "node:path";
import { logLevels } from "../../base/log.js";
import {
  configProblem,
  defaultConfigPaths,
  type FileConfig,
  type ReadConfig,
  readConfigFile,
  readDefaultConfig,
} from "./config-file.js";

/** The name by which the command was called. */
export type Program = "imgfs" | "grootfs";

/** Flags that go before or after every command of the store, as they were given. */
export interface StoreFlags {
  readonly store?: string;
  readonly config?: string;
  readonly logLevel?: string;
  readonly logFile?: string;
  readonly metricsFile?: string;
  readonly metricsLog?: string;
}

export interface Settings {
  /** Absolute. */
  readonly store: string;
  /** Nobody said where the store is: it may be made by the first create. */
  readonly isDefaultStore: boolean;
  /** The file that was read because it was named. */
  readonly configFile: string | undefined;
  /** The file that was read, as it is named; undefined where there is none. */
  readonly readFile: string | undefined;
  /** As it was given; undefined where nobody said. */
  readonly logLevel: string | undefined;
  readonly logFile: string | undefined;
  readonly metricsFile: string | undefined;
  readonly metricsLog: string | undefined;
  readonly file: FileConfig;
  readonly unknownKeys: readonly string[];
}

/** Where the store is unless somebody says otherwise. */
export function defaultStore(program: Program): string {
  if (program === "grootfs") return "/var/lib/grootfs";
  if (process.geteuid?.() === 0) return "/var/lib/imgfs";
  return join(process.env["XDG_DATA_HOME"] || join(homedir(), ".local/share"), "imgfs");
}

/**
 * The settings. Called as grootfs only the flags and the file that they name count, as there. Throws ConfigError.
 */
export function readSettings(program: Program, flags: StoreFlags): Settings {
  const env = (name: string): string | undefined =>
    program === "grootfs" ? undefined : process.env[name] || undefined;
  const configFile = flags.config || env("IMGFS_CONFIG");
  const { config: file, unknownKeys, path: readFile } = read(program, configFile);
  if (program === "imgfs" && file.log_level !== undefined && !isLevel(file.log_level)) {
    throw configProblem(readFile as string, `log_level is none of ${[...logLevels, "fatal"].join(", ")}`);
  }
  const store = flags.store || env("IMGFS_STORE") || file.store;
  const path = (text: string | undefined): string | undefined => (text ? resolve(text) : undefined);
  return {
    store: resolve(store || defaultStore(program)),
    isDefaultStore: !store,
    configFile: path(configFile),
    readFile,
    logLevel: flags.logLevel || file.log_level,
    logFile: path(flags.logFile || file.log_file),
    metricsFile: path(flags.metricsFile || file.metrics?.file),
    metricsLog: path(flags.metricsLog || file.metrics?.log),
    file,
    unknownKeys,
  };
}

function read(program: Program, named: string | undefined): ReadConfig {
  if (named !== undefined) return readConfigFile(named);
  if (program === "grootfs") return { config: {}, unknownKeys: [], path: undefined };
  return readDefaultConfig(defaultConfigPaths());
}

/** GrootFS's levels are ours but one; called by its name whatever is none is fatal. */
function isLevel(word: string): boolean {
  return word === "fatal" || logLevels.some((level) => level === word);
}
