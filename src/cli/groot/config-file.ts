// The config file: YAML with GrootFS's keys, and a few of ours. Keys that nobody knows are told of and ignored.
import { readFileSync } from "node:fs";
import { createRequire } from "node:module";
import { homedir } from "node:os";
import { join } from "node:path";
import { messageOf } from "../failure.js";
import { goPathError } from "./go-texts.js";

type Kind = "text" | "texts" | "flag" | "bytes" | "mode";
type Shape = { readonly [key: string]: Kind | Shape };

/** Every key; in the file they are as here. */
const shape = {
  store: "text",
  log_level: "text",
  log_file: "text",
  tardis_bin: "text",
  newuidmap_bin: "text",
  newgidmap_bin: "text",
  metron_endpoint: "text",
  create: {
    exclude_image_from_quota: "flag",
    skip_layer_validation: "flag",
    with_clean: "flag",
    clean_log_file: "text",
    without_mount: "flag",
    disk_limit_size_bytes: "bytes",
    insecure_registries: "texts",
    remote_layer_client_certificates_path: "text",
  },
  clean: { threshold_bytes: "bytes", threshold_mode: "mode", ignore_images: "texts" },
  init: { store_size_bytes: "bytes", with_direct_io: "flag" },
  metrics: { file: "text", log: "text" },
} as const satisfies Shape;

type ValueOf<K> = K extends "text"
  ? string
  : K extends "texts"
    ? readonly string[]
    : K extends "flag"
      ? boolean
      : K extends "bytes"
        ? number
        : K extends "mode"
          ? "committed" | "used"
          : { readonly [P in keyof K]?: ValueOf<K[P]> };

/** What a file says. Bytes may be negative: who uses them says that they must not. */
export type FileConfig = ValueOf<typeof shape>;

export interface ReadConfig {
  readonly config: FileConfig;
  /** Keys that are none, in full: `create.with_cleen`. */
  readonly unknownKeys: readonly string[];
  /** The file; undefined where there is none. */
  readonly path: string | undefined;
}

/** A file that is none: the message is GrootFS's, `invalid config path: …` or `invalid config file: …`. */
export class ConfigError extends Error {}

/** Where a file may be that nobody named, the first that is there counts. */
export function defaultConfigPaths(): readonly string[] {
  if (process.geteuid?.() === 0) return ["/etc/imgfs/config.yaml"];
  const own = process.env["XDG_CONFIG_HOME"] || join(homedir(), ".config");
  return [join(own, "imgfs/config.yaml"), "/etc/imgfs/config.yaml"];
}

/** Reads a file that must be there. Throws ConfigError. */
export function readConfigFile(path: string): ReadConfig {
  let text: string;
  try {
    text = readFileSync(path, "utf8");
  } catch (cause) {
    throw new ConfigError(`invalid config path: ${goPathError("open", path, cause)}`);
  }
  return parseConfig(text, path);
}

/** Reads the first of `paths` that is there; nothing when there is none. Throws ConfigError. */
export function readDefaultConfig(paths: readonly string[]): ReadConfig {
  for (const path of paths) {
    let text: string;
    try {
      text = readFileSync(path, "utf8");
    } catch (cause) {
      const { code } = cause as NodeJS.ErrnoException;
      if (code === "ENOENT" || code === "ENOTDIR") continue;
      throw new ConfigError(`invalid config path: ${goPathError("open", path, cause)}`);
    }
    return parseConfig(text, path);
  }
  return { config: {}, unknownKeys: [], path: undefined };
}

/** A file that says what it cannot. */
export function configProblem(path: string, problem: string): ConfigError {
  return new ConfigError(`invalid config file: ${path}: ${problem}`);
}

/** Reads the text of the config file at `path`. Throws ConfigError. */
export function parseConfig(text: string, path: string): ReadConfig {
  // Only a command that has a file to read loads the library.
  const { parseDocument } = createRequire(import.meta.url)("yaml") as typeof import("yaml");
  let value: unknown;
  try {
    // 1.1 as GrootFS's library: `yes` and `on` are true.
    const document = parseDocument(text, { version: "1.1", prettyErrors: true });
    const [error] = document.errors;
    if (error !== undefined) throw error;
    value = document.toJS({ maxAliasCount: 100 });
  } catch (cause) {
    throw configProblem(path, `yaml: ${messageOf(cause).replace(/:? at line (\d+).*/, " in line $1")}`);
  }
  const unknownKeys: string[] = [];
  try {
    const config = value === null ? {} : readShape(value, shape, "", unknownKeys);
    return { config: config as FileConfig, unknownKeys, path };
  } catch (cause) {
    if (cause instanceof WrongValue) throw configProblem(path, cause.message);
    throw cause;
  }
}

class WrongValue extends Error {}

function readShape(value: unknown, keys: Shape, above: string, unknownKeys: string[]): object {
  if (typeof value !== "object" || value === null || Array.isArray(value)) {
    throw new WrongValue(`${above === "" ? "it" : above} is no list of keys with values`);
  }
  const read: Record<string, unknown> = {};
  for (const [key, below] of Object.entries(value as Record<string, unknown>)) {
    const name = above === "" ? key : `${above}.${key}`;
    const kind = Object.hasOwn(keys, key) ? keys[key] : undefined;
    if (kind === undefined) unknownKeys.push(name);
    else if (below !== null) {
      read[key] =
        typeof kind === "string" ? readValue(below, kind, name) : readShape(below, kind, name, unknownKeys);
    }
  }
  return read;
}

function readValue(value: unknown, kind: Kind, name: string): unknown {
  const wrong = (what: string): WrongValue => new WrongValue(`${name} is not ${what}`);
  switch (kind) {
    case "text":
      // A path or an endpoint of digits alone is a number to YAML.
      if (typeof value !== "string" && typeof value !== "number") throw wrong("a text");
      return String(value);
    case "flag":
      if (typeof value !== "boolean") throw wrong("true or false");
      return value;
    case "bytes":
      if (!Number.isInteger(value) || Math.abs(value as number) > 2 ** 63)
        throw wrong("a whole number of bytes");
      // What is too large for a number here is as good as the largest one.
      return Math.max(-Number.MAX_SAFE_INTEGER, Math.min(Number.MAX_SAFE_INTEGER, value as number));
    case "mode":
      if (value !== "committed" && value !== "used") throw wrong("committed or used");
      return value;
    case "texts":
      if (!Array.isArray(value) || !value.every((each) => typeof each === "string"))
        throw wrong("a list of texts");
      return value;
  }
}
