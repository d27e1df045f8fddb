// What the root of an upper says of costs in it, in user.imgfs.costs, so that what is rare is not searched for:
//   1     nothing below that is not mentioned by a letter
//   a     files may have noted ranges (allocated.ts)
//   x     objects may have more xattrs than are free (xattr-cost.ts)
// Without the mark nothing is known, and directories copied up from the image may lack theirs: an upper of another
// overlay, or one that no quota has been asked of.
// Invariant: a letter is on disk before the first object that it is about.
import { readXattrFd, writeXattrFd } from "../../sys/xattr.js";
import { fault } from "../fault.js";

export const costsXattr: Buffer = Buffer.from("user.imgfs.costs");
const form = /^1(a?)(x?)$/;

export interface Costs {
  readonly rootFd: number;
  /** The upper has the mark: everything in it has been made by who keeps to it. */
  marked: boolean;
  allocated: boolean;
  xattrs: boolean;
}

/** Whether a value is one that this version writes. */
export function isCostsMark(value: Buffer): boolean {
  return form.test(value.toString("latin1"));
}

/** What the upper directory open at `rootFd` says. A value that this version does not know says nothing. */
export function readCosts(rootFd: number): Costs {
  const value = readXattrFd(rootFd, costsXattr);
  const match = typeof value === "number" ? null : form.exec(value.toString("latin1"));
  if (match === null) return { rootFd, marked: false, allocated: true, xattrs: true };
  return { rootFd, marked: true, allocated: match[1] !== "", xattrs: match[2] !== "" };
}

/** Makes the root say that objects of a kind may be there. Nothing to do where nothing is known. 0 or a negative errno. */
export function admit(costs: Costs, kind: "allocated" | "xattrs"): number {
  if (costs[kind]) return 0;
  const written = fault("costs.admit") || write(costs, { ...costs, [kind]: true });
  if (written === 0) costs[kind] = true;
  return written;
}

/** Gives an upper the mark, with the letters that are true of it now. 0 or a negative errno. */
export function markCosts(costs: Costs, found: Pick<Costs, "allocated" | "xattrs">): number {
  const written = fault("setup.costs") || write(costs, found);
  if (written === 0) Object.assign(costs, { ...found, marked: true });
  return written;
}

function write({ rootFd }: Costs, { allocated, xattrs }: Pick<Costs, "allocated" | "xattrs">): number {
  return writeXattrFd(rootFd, costsXattr, Buffer.from(`1${allocated ? "a" : ""}${xattrs ? "x" : ""}`));
}
