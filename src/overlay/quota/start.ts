// The start of a mount's quota, with what the upper costs: as the mount before left it, or counted. And its end.
import { Ledger, type Usage } from "../../quota/ledger.js";
import type { QuotaSettings } from "../../quota/settings.js";
import { resultText } from "../../sys/libc.js";
import type { WritableState } from "../state.js";
import { probeBlocks } from "./probe-blocks.js";
import { createQuota } from "./quota.js";
import { recount } from "./recount.js";
import { saveUsage } from "./usage-file.js";

export interface QuotaOptions extends QuotaSettings {
  /** Bytes of the image's layers, which an inclusive limit holds too. */
  readonly imageBytes: number;
  /** Memory of the ledger. */
  readonly ledger: SharedArrayBuffer;
}

/** `known` is what the upper costs, where that is. Throws LimitBelowImage, or an Error of one line. */
export function startQuota(m: WritableState, options: QuotaOptions, known: Usage | undefined): void {
  const ledger = new Ledger(options.ledger);
  const disk = probeBlocks(m.upper, m.buffer);
  try {
    // A limit that cannot be is refused before anything is counted, and leaves what was known.
    ledger.open(options, options.imageBytes, known ?? { bytes: 0, inodes: 0 });
  } catch (cause) {
    if (known !== undefined) saveUsage(m.upper, known);
    throw cause;
  }
  if (known === undefined) {
    const { bytes, inodes } = recount(m);
    ledger.credit(-bytes, -inodes);
  }
  m.quota = createQuota(ledger, options, disk);
}

/**
 * Leaves what the upper costs for the next mount. The last that a mount does with its upper, what has no name being
 * credited, and only where nothing that it has begun is `unfinished`.
 */
export function endQuota(m: WritableState, unfinished: boolean): void {
  const { quota, upper, log } = m;
  if (quota === undefined || unfinished || !quota.exact) return;
  const { bytes, inodes } = quota.ledger;
  const saved = saveUsage(upper, { bytes, inodes });
  if (saved < 0) log.warn("the next mount will count anew", { upper: upper.path, errno: resultText(saved) });
}
