// What `imgfs check --upper` asks of one object: the marks that it carries, and that they fit what it is.
import { displayName } from "../base/bytes.js";
import { digestHex } from "../base/digest.js";
import { S_IFDIR, S_IFMT, S_IFREG, type Stat } from "../sys/stat.js";
import { getXattrAt } from "../sys/xattr.js";
import type { UpperCheck } from "./check-upper.js";
import { applyOverride, overrideXattr, readOverride } from "./override.js";
import { allocatedXattr, parseAllocated } from "./quota/allocated.js";
import type { Costs } from "./quota/costs-mark.js";
import { baseXattr, parseBase } from "./quota/xattr-cost.js";
import { copiedMark } from "./whiteout.js";

const ORIGIN = /^(0|[1-9][0-9]{0,9}) ([0-9a-f]{16})( meta| metacopy)?$/;
const REDIRECT = /^(0|[1-9][0-9]{0,9}) ([0-9a-f]{16})( told)?$/;

/** Names that begin with `user.imgfs.` and are ours; those that go on with `imgfs.` are a program's, escaped. */
const own = new Set([
  "origin",
  "impure",
  "whiteouts",
  "redirect",
  "leaves",
  "copied",
  "allocated",
  "base-xattrs",
]);
const ownOfRoot = new Set(["upper", "tree", "devices", "costs"]);
const PREFIX = "user.imgfs.";
const copiedName = copiedMark.toString();
const allocatedName = allocatedXattr.toString();
const baseName = baseXattr.toString();

/** The first mark that is none of ours, or not at this place. */
export function unknownMark(names: readonly string[], isRoot: boolean): string | undefined {
  return names.find((name) => {
    if (!name.startsWith(PREFIX) || name.startsWith(`${PREFIX}imgfs.`)) return false;
    const mark = name.slice(PREFIX.length);
    return !own.has(mark) && !mark.startsWith("kept.") && !(isRoot && ownOfRoot.has(mark));
  });
}

/** What is wrong with the marks by which a quota counts an object; undefined when nothing is. */
export function costsProblem(
  names: readonly string[],
  isDirectory: boolean,
  read: (name: Buffer) => Buffer | number,
  { allocated: mayBeNoted, marked }: Pick<Costs, "allocated" | "marked">,
): string | undefined {
  if (names.includes(copiedName) && !isDirectory) return "marked as a copied directory, and is none";
  const base = names.includes(baseName) ? read(baseXattr) : 0;
  if (typeof base !== "number" && parseBase(base) === undefined) {
    return `what the image gave it in xattrs is no number: "${displayName(base)}"`;
  }
  if (!names.includes(allocatedName)) return undefined;
  if (isDirectory) return "has noted reserved blocks, and is a directory";
  const value = read(allocatedXattr);
  if (typeof value !== "number" && parseAllocated(value) === undefined) {
    return "what it has noted as reserved is no list of ranges";
  }
  return marked && !mayBeNoted
    ? "has noted reserved blocks in an upper directory that says there are none"
    : undefined;
}

/** Makes a stat what the object shows, where it has an override; a wrong one is a finding. */
export function showOverride(
  { found, overrides }: UpperCheck,
  directoryFd: number,
  name: Buffer,
  stat: Stat,
  path: string,
): void {
  const type = stat.mode & S_IFMT;
  if (type !== S_IFREG && type !== S_IFDIR) return;
  const override = readOverride(overrides, directoryFd, name, stat, (value) =>
    found.add(path, `its override is none: "${displayName(value)}"`),
  );
  if (override !== undefined) applyOverride(override, stat);
  else if (!overrides.all && !(overrides.devices && stat.size === 0)) {
    const ignored = getXattrAt(directoryFd, name, overrideXattr, 0, 0) >= 0;
    if (ignored) {
      found.add(path, "an override in an upper directory that is not marked as one that holds any");
    }
  }
}

export interface Named {
  readonly row: number;
  /** What follows the row and the tree. */
  readonly rest: string;
}

/** What an origin, or with `redirect` a directory's redirect, names; undefined when it is none. */
export function parseMark(value: Buffer, redirect = false): (Named & { tree: string }) | undefined {
  const [, row, tree, rest = ""] = (redirect ? REDIRECT : ORIGIN).exec(value.toString("latin1")) ?? [];
  return row === undefined || tree === undefined ? undefined : { row: Number(row), tree, rest };
}

/** What is wrong with a mark that names a row; undefined when nothing is. */
export function markProblem(check: UpperCheck, value: Buffer, redirect = false): string | undefined {
  const what = redirect ? "redirect" : "origin";
  const named = parseMark(value, redirect);
  if (named === undefined) return `its ${what} is none: "${displayName(value)}"`;
  if (check.tree === undefined) return `its ${what} names an image, and the upper directory belongs to none`;
  if (named.tree !== check.tree) return `its ${what} names another image`;
  const { lower } = check;
  if (lower === undefined) return undefined;
  if (named.tree !== digestHex(lower.tree.treeRoot).slice(0, 16)) return `its ${what} names another image`;
  if (named.row >= lower.tree.inodeCount) return `its ${what} names row ${named.row}, which is not there`;
  return undefined;
}

/** What is wrong with the origin of a file; `row` is that of its entry in the index, -1 for none. */
export function originProblem(check: UpperCheck, value: Buffer, stat: Stat, row: number): string | undefined {
  const problem = markProblem(check, value);
  if (problem !== undefined) return problem;
  const named = parseMark(value) as Named;
  if (row >= 0 && named.row !== row) return `its origin names row ${named.row}, the index row ${row}`;
  const { lower } = check;
  if (lower === undefined) return undefined;
  if ((lower.tree.mode(named.row) & S_IFMT) !== S_IFREG) {
    return `its origin names row ${named.row}, which is no file`;
  }
  // Smaller it may be: a truncation that a crash cut short has its size before it has its data.
  if (named.rest !== "" && stat.size > lower.tree.size(named.row)) {
    return `a copy without data that is larger than row ${named.row}`;
  }
  return undefined;
}
