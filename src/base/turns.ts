// Long work on a thread that also has to hear of signals: it gives way now and then.
import { setImmediate } from "node:timers/promises";

/** Longest time without giving way, ms. */
const interval = 50;

export class Turns {
  private readonly signal: AbortSignal | undefined;
  private last = performance.now();

  constructor(signal: AbortSignal | undefined) {
    this.signal = signal;
  }

  /** Whether it is time for {@link take}. */
  get due(): boolean {
    return performance.now() - this.last > interval;
  }

  /** Lets everything else run that waits. Throws the signal's reason when it has been given. */
  async take(): Promise<void> {
    await setImmediate();
    this.signal?.throwIfAborted();
    this.last = performance.now();
  }
}
