// The log of the store's commands: sessions with actions, as Cloud Foundry's lager has them. Called as grootfs a line is
// lager's JSON; called as imgfs it goes to the logger of all other commands.
import { closeSync, openSync } from "node:fs";
import { appending, type LogFields, type Logger, nullLogger } from "../../base/log.js";
import { messageOf } from "../failure.js";
import { printError } from "../output.js";
import { goJson } from "./go-json.js";
import { goPathError } from "./go-texts.js";

export type Data = Readonly<Record<string, unknown>>;

export interface StoreLog {
  /** A part of the work; its name and `data` are in each of its lines. */
  session(task: string, data?: Data): StoreLog;
  debug(action: string, data?: Data): void;
  info(action: string, data?: Data): void;
  error(action: string, cause: unknown, data?: Data): void;
}

const levels = ["debug", "info", "error", "fatal"] as const;
export type LagerLevel = (typeof levels)[number];

/** The level of a word, in any case; what is none is fatal, as in GrootFS. */
export function lagerLevel(word: string | undefined): LagerLevel {
  const wanted = (word ?? "").toLowerCase();
  return levels.find((level) => level === wanted) ?? "fatal";
}

/**
 * A log by lager to `file`, which then has level info at least, or to stderr. Throws an Error in GrootFS's words when the
 * file cannot be opened.
 */
export function lagerLog(component: string, level: LagerLevel, file: string | undefined): StoreLog {
  if (file === undefined || file === "") return new Lager(component, component, level, printError, "", {});
  try {
    closeSync(openSync(file, "a", 0o644));
  } catch (cause) {
    throw new Error(`failed to configure logger: ${goPathError("open", file, cause)}`);
  }
  const write = appending(file);
  return new Lager(component, component, level === "fatal" ? "info" : level, write, "", {});
}

class Lager implements StoreLog {
  private sessions = 0;
  private readonly component: string;
  private readonly task: string;
  private readonly level: LagerLevel;
  private readonly write: (line: string) => void;
  private readonly id: string;
  private readonly data: Data;

  constructor(
    component: string,
    task: string,
    level: LagerLevel,
    write: (line: string) => void,
    id: string,
    data: Data,
  ) {
    this.component = component;
    this.task = task;
    this.level = level;
    this.write = write;
    this.id = id;
    this.data = data;
  }

  session(task: string, data: Data = {}): StoreLog {
    this.sessions += 1;
    const id = this.id === "" ? String(this.sessions) : `${this.id}.${this.sessions}`;
    const { component, level, write } = this;
    return new Lager(component, `${this.task}.${task}`, level, write, id, { ...this.data, ...data });
  }

  debug(action: string, data: Data = {}): void {
    this.line("debug", action, data);
  }

  info(action: string, data: Data = {}): void {
    this.line("info", action, data);
  }

  error(action: string, cause: unknown, data: Data = {}): void {
    this.line("error", action, { ...data, error: messageOf(cause) });
  }

  private line(level: LagerLevel, action: string, more: Data): void {
    if (levels.indexOf(level) < levels.indexOf(this.level)) return;
    const all: Data = { ...this.data, ...more, ...(this.id === "" ? {} : { session: this.id }) };
    const data = Object.fromEntries(Object.entries(all).sort(([a], [b]) => (a < b ? -1 : 1)));
    const message = `${this.task}.${action}`;
    this.write(`${goJson({ timestamp: now(), level, source: this.component, message, data })}\n`);
  }
}

/** RFC 3339 with nine digits, of which the clock gives the first six or so. */
function now(): string {
  const milliseconds = performance.timeOrigin + performance.now();
  const whole = Math.floor(milliseconds / 1000);
  const nanoseconds = Math.min(999_999_999, Math.floor((milliseconds - whole * 1000) * 1e6));
  const seconds = new Date(whole * 1000).toISOString().slice(0, "2026-11-20T23:59:59".length);
  return `${seconds}.${String(nanoseconds).padStart(9, "0")}Z`;
}

/** The same on the logger of all commands; `task` are the sessions so far. */
export function plainLog(logger: Logger = nullLogger, task = "", data: LogFields = {}): StoreLog {
  const text = (action: string): string => (task === "" ? action : `${task}: ${action}`).replaceAll("-", " ");
  return {
    session: (name, more = {}) =>
      plainLog(logger, task === "" ? name : `${task}: ${name}`, { ...data, ...more }),
    debug: (action, more = {}) => logger.debug(text(action), { ...data, ...more }),
    info: (action, more = {}) => logger.info(text(action), { ...data, ...more }),
    // The command says by itself why it failed.
    error: (action, cause, more = {}) =>
      logger.info(text(action), { ...data, ...more, error: messageOf(cause) }),
  };
}
