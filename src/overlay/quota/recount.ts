// What an upper directory costs, counted by the mount that is about to serve it. On its way the count does what must be
// done before what is there can be told:
//   a rename that was to leave a device (leave-whiteout.ts) is finished, as the device counts
//   in an upper that does not say what costs are in it (costs-mark.ts), directories that are merged with one of the image
//   get the mark of copies, and the upper then says it
// Invariant: comes after interrupted renames are finished and the index is swept, and before anything is served.

import type { Usage } from "../../quota/ledger.js";
import { check } from "../../sys/libc.js";
import { writeXattrFd } from "../../sys/xattr.js";
import { fault } from "../fault.js";
import { completeLeaving } from "../leave-whiteout.js";
import { mergedBelow } from "../redirect.js";
import type { WritableState } from "../state.js";
import { copiedMark } from "../whiteout.js";
import { markCosts } from "./costs-mark.js";
import { countUpper, type Level } from "./count.js";

/** The image's root, with which the upper's is merged. */
const ROOT = 0;
const noValue = Buffer.alloc(0);

/** Counts what the upper costs. Throws an Error of one line that names what could not be read or marked. */
export function recount(m: WritableState): Usage {
  const { upper, lower } = m;
  const { costs } = upper;
  const start = performance.now();
  const { bytes, inodes, found } = countUpper({
    path: upper.path,
    rootFd: upper.rootFd,
    indexFd: upper.indexFd,
    indexed: upper.indexRows,
    costs,
    overrides: upper.overrides,
    whiteoutFiles: false,
    enter(level: Level): void {
      const { above } = level;
      if (level.marks.leaves) completeLeaving(m, level.fd);
      if (costs.marked) return;
      level.row = above === undefined ? ROOT : mergedBelow(lower, above.row, level.name, level.marks);
      if (level.row < 0 || level.copied) return;
      check(fault("setup.copied") || writeXattrFd(level.fd, copiedMark, noValue), "mark of a directory");
      level.copied = true;
    },
  });
  const milliseconds = Math.round(performance.now() - start);
  m.log.debug("upper directory counted", { upper: upper.path, bytes, inodes, milliseconds });
  if (!costs.marked) check(markCosts(costs, found), `mark of upper directory ${upper.path}`);
  return { bytes, inodes };
}
