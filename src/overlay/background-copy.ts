// Copies of file data that helper threads make while other requests are served.
import type { Job, Request, Status } from "../fuse/operations.js";
import { check } from "../sys/libc.js";
import { storedRanges } from "./copy-data.js";
import { type FaultPoint, fault } from "./fault.js";
import { tellDamage } from "./lower-data.js";
import type { WritableState } from "./state.js";

/** From this size on, bytes are copied by a helper thread. */
const BACKGROUND_FROM = 4 << 20;
/** The same where copying is decoding; smaller files never are. */
export const DECODED_FROM: number = 256 << 10;

/**
 * Has a helper thread copy a row's first `size` bytes to the file open at `fd`, which has at least that size: SUSPENDED,
 * and `done` is told how it ended before the request comes again. Undefined when the copy is better made at once, or the
 * bytes cannot be had that way. `key` is the object's nodeid, which nothing holds. The copy is synced, unless the mount is
 * volatile. `point` comes before it. Throws Corrupt and FsError.
 */
export function copyInBackground(
  m: WritableState,
  q: Request,
  key: number,
  row: number,
  fd: number,
  size: number,
  point: FaultPoint,
  done: (status: Status) => void,
): Status | undefined {
  const { services } = m;
  if (services === undefined || size < DECODED_FROM) return undefined;
  const sync = !m.upper.volatile;
  const { tree } = m.lower;
  const task = tree.prepares === true ? tree.copyTask?.(row, size, fd, sync) : undefined;
  if (task !== undefined) {
    check(fault(point), "copy of a file");
    const begun = services.begin?.(key, { kind: "own", task }, true, ({ status, problem }) => {
      if (problem !== undefined) tellDamage(m, problem);
      done(status);
    });
    return begun === true ? services.suspendBehind(q, key) : undefined;
  }
  const job = size < BACKGROUND_FROM ? undefined : rangesJob(m, row, fd, size);
  if (job === undefined) return undefined;
  check(fault(point), "copy of a file");
  return services.suspend(q, key, job, done);
}

function rangesJob(m: WritableState, row: number, fd: number, size: number): Job | undefined {
  const stored = [...(storedRanges(m.lower.tree, row, size) ?? [])];
  const [only] = stored;
  if (only === undefined || stored.length > 1) return undefined;
  const [from, ranges] = only;
  return { kind: "copy", from, to: fd, ranges, sync: !m.upper.volatile };
}
