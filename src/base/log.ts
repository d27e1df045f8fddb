// One logger shape for every room. Lines are JSON as containerd and runc write them, or text for people, and are
// written synchronously: a thread that blocks in a system call has no event loop to flush anything later.
import { appendFileSync } from "node:fs";
import { createRequire } from "node:module";
import type { Logger as Pino } from "pino";

export const logLevels = ["error", "warn", "info", "debug", "trace"] as const;
export type LogLevel = (typeof logLevels)[number];
export type LogFields = Readonly<Record<string, unknown>>;

export interface Logger {
  readonly level: LogLevel;
  error(message: string, fields?: LogFields): void;
  warn(message: string, fields?: LogFields): void;
  info(message: string, fields?: LogFields): void;
  debug(message: string, fields?: LogFields): void;
  trace(message: string, fields?: LogFields): void;
}

export interface LogOptions {
  readonly level: LogLevel;
  readonly format: "text" | "json";
  /** File descriptor that takes the lines. */
  readonly fd: number;
  /** Takes them in its place; opened for each line, so that nobody holds it who lives longer than the work it is about. */
  readonly file?: string | undefined;
}

const secret = ["authorization", "password", "identitytoken"];

/**
 * A logger that loads its backend at the first line it really writes, so that a quiet program pays nothing for it.
 * `error` values in fields are printed with message and stack.
 */
export function createLogger(options: LogOptions): Logger {
  const threshold = logLevels.indexOf(options.level);
  let backend: Pino | undefined;
  const write = (level: LogLevel, message: string, fields: LogFields = {}): void => {
    if (logLevels.indexOf(level) > threshold) return;
    backend ??= createBackend(options);
    backend[level](fields, message);
  };
  return {
    level: options.level,
    error: (message, fields) => write("error", message, fields),
    warn: (message, fields) => write("warn", message, fields),
    info: (message, fields) => write("info", message, fields),
    debug: (message, fields) => write("debug", message, fields),
    trace: (message, fields) => write("trace", message, fields),
  };
}

/** A logger that drops every line. */
export const nullLogger: Logger = {
  level: "error",
  error: () => {},
  warn: () => {},
  info: () => {},
  debug: () => {},
  trace: () => {},
};

function createBackend(options: LogOptions): Pino {
  const pino = createRequire(import.meta.url)("pino") as typeof import("pino");
  const { file, fd } = options;
  const sink = file === undefined ? pino.destination({ fd, sync: true }) : { write: appending(file) };
  const destination =
    options.format === "json" ? sink : { write: (line: string) => sink.write(asText(line)) };
  return pino(
    {
      level: options.level,
      base: null,
      timestamp: () => `,"time":"${new Date().toISOString()}"`,
      formatters: { level: (label) => ({ level: label }) },
      redact: { paths: secret.flatMap((key) => [key, `*.${key}`]), censor: "[redacted]" },
      serializers: { error: pino.stdSerializers.err },
    },
    destination,
  );
}

/** A line that cannot be written is lost: it is no failure of what it tells about. */
export function appending(file: string): (line: string) => void {
  return (line) => {
    try {
      appendFileSync(file, line);
    } catch {
      // The disk is full, or the folder gone.
    }
  };
}

function asText(line: string): string {
  const { time, level, msg, ...fields } = JSON.parse(line) as Record<string, unknown>;
  const rest = Object.entries(fields).map(([key, value]) => {
    if (key === "error" && typeof value === "object" && value !== null && "stack" in value) {
      return ` error=${JSON.stringify(value.stack)}`;
    }
    return ` ${key}=${JSON.stringify(value)}`;
  });
  return `${String(time)} ${String(level)} ${String(msg)}${rest.join("")}\n`;
}
