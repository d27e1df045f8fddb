// The start of a mount's quota: what the upper costs, and the ledger opened with it.
import { Ledger } from "../../quota/ledger.js";
import type { QuotaSettings } from "../../quota/settings.js";
import type { WritableState } from "../state.js";
import { probeBlocks } from "./probe-blocks.js";
import { createQuota } from "./quota.js";

export interface QuotaOptions extends QuotaSettings {
  /** Bytes of the image's layers, which an inclusive limit holds too. */
  readonly imageBytes: number;
  /** Memory of the ledger. */
  readonly ledger: SharedArrayBuffer;
}

/** Throws LimitBelowImage, or an Error of one line. */
export function startQuota(m: WritableState, options: QuotaOptions): void {
  const ledger = new Ledger(options.ledger);
  const disk = probeBlocks(m.upper, m.buffer);
  ledger.open(options, options.imageBytes, { bytes: 0, inodes: 0 });
  m.quota = createQuota(ledger, options, disk);
}
