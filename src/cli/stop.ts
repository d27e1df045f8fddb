// Ctrl-C and its like for commands that clean up after themselves.
import { ExitCode, Failure } from "./failure.js";

const stopSignals = ["SIGINT", "SIGTERM", "SIGHUP"] as const;

/**
 * Runs `work` with a signal that aborts when the process is told to end. What it then throws is a Failure that says
 * `what` was stopped and what is `left` of it, and any other error a Failure that begins with `what`.
 */
export async function stoppable<T>(
  what: string,
  work: (signal: AbortSignal) => Promise<T>,
  left = "nothing was left behind",
): Promise<T> {
  const abort = new AbortController();
  let received: NodeJS.Signals | undefined;
  // A signal that comes again while things are being removed must not cut that short.
  const onSignal = (signal: NodeJS.Signals): void => {
    received ??= signal;
    abort.abort();
  };
  for (const name of stopSignals) process.on(name, onSignal);
  try {
    return await work(abort.signal);
  } catch (cause) {
    if (cause instanceof Failure) throw cause;
    if (received === undefined) throw new Failure(ExitCode.failure, what, { cause });
    throw new Failure(
      received === "SIGINT" ? ExitCode.interrupted : ExitCode.terminated,
      `${what}: stopped by ${received}, ${left}`,
    );
  } finally {
    for (const name of stopSignals) process.off(name, onSignal);
  }
}
