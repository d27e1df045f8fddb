// What the pool and its workers share as numbers in workerData.

/** Slots: not 0 stops every conversion at its next piece; how many conversions are running. */
export const Shared = { stop: 0, running: 1, length: 2 } as const;
