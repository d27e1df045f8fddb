// Who runs a command of the store: the name it was called by, what it was told, and where it says what.
import type { MountHere } from "../../store/mounts.js";
import { print } from "../output.js";
import type { StoreOptions } from "./declare.js";
import type { StoreLog } from "./lager.js";
import type { Metrics } from "./metrics.js";
import type { Program, Settings } from "./settings.js";

export interface Caller {
  readonly program: Program;
  readonly command: string;
  readonly settings: Settings;
  readonly options: StoreOptions;
  readonly args: readonly string[];
  /** The session of the command. */
  readonly log: StoreLog;
  readonly metrics: Metrics;
  /** Mounts in this process, where that may serve afterwards. */
  readonly mountHere?: MountHere | undefined;
}

/** A line of output. On success nothing else goes to stdout. */
export function say(text: string): void {
  print(`${text}\n`);
}
