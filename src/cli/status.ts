// The `status` command: what a running mount does and holds, once or again and again.
import type { ControlConnection } from "../daemon/control-connection.js";
import type { MountStatus } from "../daemon/status.js";
import { mountEnded, withControl } from "./control.js";
import { print, printResult, schemaVersion } from "./output.js";
import { formatStatus } from "./status-text.js";

interface StatusCommandOptions {
  readonly json?: boolean;
  /** Seconds from one look to the next. */
  readonly watch?: number;
}

export async function status(mountpoint: string, options: StatusCommandOptions): Promise<void> {
  await withControl("status", mountpoint, async (control) => {
    if (options.watch !== undefined) return watch(control, options.watch, options.json === true);
    const found = await control.ask<MountStatus>("status");
    if (found === undefined) throw mountEnded("status", mountpoint);
    printResult(found, options.json === true, (figures) => formatStatus(figures));
  });
}

/** Until SIGINT or SIGTERM comes or the mount ends; all of these are what it is meant to end by. */
async function watch(control: ControlConnection, seconds: number, json: boolean): Promise<void> {
  const stopped = new AbortController();
  const stop = (): void => {
    stopped.abort();
    // It may be that the answer never comes.
    control.close();
  };
  for (const signal of ["SIGINT", "SIGTERM"] as const) process.on(signal, stop);
  const redraws = !json && process.stdout.isTTY;
  let former: MountStatus | undefined;
  try {
    while (!stopped.signal.aborted) {
      const found = await control.ask<MountStatus>("status");
      if (found === undefined || stopped.signal.aborted) break;
      if (json) print(`${JSON.stringify({ schemaVersion, ...found })}\n`);
      else if (redraws) redraw(formatStatus(found, former));
      else print(`${former === undefined ? "" : "\n"}${formatStatus(found, former)}`);
      former = found;
      await pause(seconds, stopped.signal);
    }
  } finally {
    for (const signal of ["SIGINT", "SIGTERM"] as const) process.off(signal, stop);
  }
}

function pause(seconds: number, stop: AbortSignal): Promise<void> {
  return new Promise((done) => {
    if (stop.aborted) return done();
    const end = (): void => {
      clearTimeout(timer);
      stop.removeEventListener("abort", end);
      done();
    };
    const timer = setTimeout(end, seconds * 1000);
    stop.addEventListener("abort", end);
  });
}

const HOME = "\x1b[H";
const CLEAR_LINE = "\x1b[K";
const CLEAR_BELOW = "\x1b[J";

/** Over what was there, so that nothing flickers; what has no room is left out. */
function redraw(text: string): void {
  const { rows = 24, columns = 80 } = process.stdout;
  const lines = text
    .split("\n")
    .slice(0, -1)
    .slice(0, rows - 1);
  print(`${HOME}${lines.map((line) => `${line.slice(0, columns)}${CLEAR_LINE}\n`).join("")}${CLEAR_BELOW}`);
}
