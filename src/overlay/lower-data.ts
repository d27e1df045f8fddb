// The bytes of the image's files as requests get them. What takes long, decoding and verifying, is done by helper
// threads where there are some; the request waits for it and is then served from its start.
// Invariant: damage is told once, in one line that names the place, and answered with EIO each time.
import { Errno } from "../base/errno.js";
import type { Request, Services, Status } from "../fuse/operations.js";
import { Corrupt } from "../imgfs/errors.js";
import type { Elsewhere } from "../imgfs/work.js";
import { S_IFMT, S_IFREG } from "../sys/stat.js";
import type { ReadTarget } from "./lower.js";
import type { OverlayState } from "./state.js";

/** More kinds of damage than this are told more than once. */
const TOLD_LIMIT = 10_000;

/** The helper threads of a transport as an image knows them; undefined where there are none. */
export function helperThreads(services: Services): Elsewhere | undefined {
  if (services.begin === undefined) return undefined;
  return {
    begin: ({ key, task, long, done }) => services.begin?.(key, { kind: "own", task }, long, done) ?? false,
    idle: () => services.idle?.() ?? false,
  };
}

/** Reads a file of the image: the count, a negative errno, or SUSPENDED. */
export function readLower(
  m: OverlayState,
  q: Request,
  row: number,
  offset: number,
  out: ReadTarget,
  length: number,
): Status {
  try {
    const status = prepare(m, q, row, offset, length);
    return status < 0 ? status : m.lower.tree.read(row, offset, out, length);
  } catch (cause) {
    return damageStatus(m, cause);
  }
}

/** 0 when a file's data may be copied, SUSPENDED until it has been verified, or a negative errno. */
export function prepareCopy(m: OverlayState, q: Request, row: number): Status {
  const { tree } = m.lower;
  if (tree.prepares !== true || (tree.mode(row) & S_IFMT) !== S_IFREG) return 0;
  try {
    const status = prepare(m, q, row, 0, 0);
    // What is left to be verified is verified now.
    if (status === 0) tree.dataRanges(row, () => {});
    return status;
  } catch (cause) {
    return damageStatus(m, cause);
  }
}

function prepare(m: OverlayState, q: Request, row: number, offset: number, length: number): Status {
  const { tree } = m.lower;
  if (m.elsewhere === undefined || tree.prepare === undefined || tree.prepares !== true) return 0;
  const key = tree.prepare(row, offset, length, m.elsewhere);
  return key === 0 ? 0 : (m.services?.suspendBehind(q, key) ?? 0);
}

/** What to answer for damage, which is told; anything else is thrown again. */
export function damageStatus(m: OverlayState, cause: unknown): Status {
  if (!(cause instanceof Corrupt)) throw cause;
  tellDamage(m, cause.message);
  return -Errno.EIO;
}

/** One line, once. */
export function tellDamage(m: OverlayState, reason: string): void {
  if (m.damageTold.has(reason)) return;
  if (m.damageTold.size < TOLD_LIMIT) m.damageTold.add(reason);
  m.log.error("damage in the image", { reason });
}
