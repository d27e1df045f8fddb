// The command of a run: what the image's config says, under what the user says (image-spec, config.md).
import { type CommandRequest, RunFailure } from "./request.js";

/** What the user says; undefined is left to the config. */
export interface CommandOptions {
  /** The words after the image. */
  readonly words: readonly string[];
  /** Takes the place of the config's Entrypoint, whose Cmd then does not count; empty for none. */
  readonly entrypoint?: string | undefined;
  /** `NAME=VALUE`, or `NAME` for the caller's own value. */
  readonly env: readonly string[];
  readonly workdir?: string | undefined;
  readonly user?: string | undefined;
}

interface ConfigPart {
  readonly Entrypoint: readonly string[];
  readonly Cmd: readonly string[];
  readonly Env: readonly string[];
  readonly WorkingDir: string;
  readonly User: string;
}

/** docker's; images without a PATH of their own rely on it. */
const DEFAULT_PATH = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";

/** Throws RunFailure for a config that is none, or a NAME that is none. */
export function commandOf(
  config: Uint8Array | undefined,
  options: CommandOptions,
  own: Readonly<Record<string, string | undefined>>,
  isTerminal: boolean,
): CommandRequest {
  const image = readConfig(config);
  const { words, entrypoint } = options;
  const start = entrypoint === undefined ? image.Entrypoint : entrypoint === "" ? [] : [entrypoint];
  const rest = words.length > 0 || entrypoint !== undefined ? words : image.Cmd;
  const env: Record<string, string> = { PATH: DEFAULT_PATH };
  if (isTerminal) env["TERM"] = own["TERM"] ?? "xterm";
  for (const each of image.Env) setVariable(env, each, {});
  for (const each of options.env) setVariable(env, each, own);
  return {
    words: [...start, ...rest],
    env,
    workdir: absolute(options.workdir ?? image.WorkingDir),
    user: options.user ?? image.User,
  };
}

function setVariable(
  env: Record<string, string>,
  text: string,
  own: Readonly<Record<string, string | undefined>>,
): void {
  const at = text.indexOf("=");
  const name = at < 0 ? text : text.slice(0, at);
  if (name === "" || text.includes("\0")) {
    throw new RunFailure(`${JSON.stringify(text)} is no variable: NAME=VALUE`);
  }
  const value = at < 0 ? own[name] : text.slice(at + 1);
  if (value !== undefined) env[name] = value;
}

function absolute(path: string): string {
  return path.startsWith("/") ? path : `/${path}`;
}

function readConfig(bytes: Uint8Array | undefined): ConfigPart {
  let part: Record<string, unknown> = {};
  if (bytes !== undefined) {
    try {
      const whole = JSON.parse(Buffer.from(bytes).toString()) as { config?: unknown } | null;
      part = (whole?.config ?? {}) as Record<string, unknown>;
    } catch {
      throw new RunFailure("the image's config is not JSON");
    }
  }
  const wrong = (key: string): RunFailure => new RunFailure(`the image's config has a wrong ${key}`);
  const list = (key: string): readonly string[] => {
    const value = part[key] ?? [];
    if (!Array.isArray(value) || !value.every((each) => typeof each === "string")) throw wrong(key);
    return value;
  };
  const text = (key: string): string => {
    const value = part[key] ?? "";
    if (typeof value !== "string") throw wrong(key);
    return value;
  };
  return {
    Entrypoint: list("Entrypoint"),
    Cmd: list("Cmd"),
    Env: list("Env"),
    WorkingDir: text("WorkingDir"),
    User: text("User"),
  };
}
