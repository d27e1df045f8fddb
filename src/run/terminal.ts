// Signals to the command line of a run are the command's. What a terminal sends goes to its whole foreground group, and so
// reaches the command by itself; the rest is handed on.
import { readFileSync } from "node:fs";
import { constants } from "node:os";

const handedOn = ["SIGINT", "SIGQUIT", "SIGTERM", "SIGHUP", "SIGUSR1", "SIGUSR2"] as const;
const keys: ReadonlySet<string> = new Set(["SIGINT", "SIGQUIT"]);

/**
 * Calls `onSignal` with the number of each signal, and whether the command has got it from the terminal; returns what
 * stops that.
 */
export function forwardSignals(onSignal: (signal: number, fromTerminal: boolean) => void): () => void {
  const listener = (signal: NodeJS.Signals): void => {
    onSignal(constants.signals[signal], keys.has(signal) && inForeground());
  };
  for (const signal of handedOn) process.on(signal, listener);
  return () => {
    for (const signal of handedOn) process.off(signal, listener);
  };
}

/** Whether this process is in the foreground group of a terminal (proc_pid_stat(5): pgrp, tty_nr, tpgid). */
function inForeground(): boolean {
  const text = readFileSync("/proc/self/stat", "latin1");
  const [, , group, , terminal, foreground] = text.slice(text.lastIndexOf(")") + 2).split(" ");
  return terminal !== "0" && group === foreground;
}
