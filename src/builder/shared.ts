// What the pool and its workers share: numbers in workerData, and the failure of a conversion that somebody has ended.

/** Slots: not 0 stops every conversion at its next piece; how many conversions are running. */
export const Shared = { stop: 0, running: 1, length: 2 } as const;

/** A conversion was ended from outside; nothing is said of its bytes. */
export class Stopped extends Error {
  constructor(message = "stopped") {
    super(message);
  }
}
