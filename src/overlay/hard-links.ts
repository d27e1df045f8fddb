// Link counts of objects with several names in the image: names in the upper directory are counted by its filesystem,
// names that still show from below are counted here, from what is on disk. Nothing is stored that could disagree.
// Invariant: a lower name once covered (whiteout, copy, replacement) is never uncovered again, so a count only falls.

import { Errno } from "../base/errno.js";
import { check } from "../sys/libc.js";
import { statAt } from "../sys/stat.js";
import type { DirectoryPart, Node } from "./inode-table.js";
import type { LowerName } from "./lower.js";
import { locateMoved } from "./moved.js";
import { find } from "./resolve.js";
import type { OverlayState } from "./state.js";

/** How many names of a row the upper directory leaves uncovered. */
export function lowerNamesLeft(m: OverlayState, row: number): number {
  if (m.upper === undefined) return m.lower.tree.nlink(row);
  const known = m.lowerNamesLeft.get(row);
  if (known !== undefined) return known;
  const left = uncoveredNames(m, row).length;
  m.lowerNamesLeft.set(row, left);
  return left;
}

/** The names of a row that still show from below. */
export function uncoveredNames(m: OverlayState, row: number): LowerName[] {
  const names = m.lower.namesOf(row);
  if (names.length === 0 && m.lower.tree.nlink(row) === 1) {
    const directory = parentOf(m, row);
    const name = m.lower.nameIn(directory, row);
    return name !== undefined && isUncovered(m, { directory, name }) ? [{ directory, name }] : [];
  }
  return names.filter((name) => isUncovered(m, name));
}

/** The lower directory of an object with one name. */
function parentOf(m: OverlayState, row: number): number {
  const noted = m.inodes.notedParent(row);
  return noted >= 0 ? noted : m.lower.findParent(row);
}

function isUncovered(m: OverlayState, { directory, name }: LowerName): boolean {
  const place = visibleDirectory(m, directory);
  if (place === "hidden") return false;
  if (place === "lower") return true;
  const { listing } = place.directory as DirectoryPart;
  if (listing !== undefined) return !listing.names.has(name.toString("latin1") as never);
  const result = statAt(m.fds.of(place), name, m.stat);
  if (result === -Errno.ENOENT) return true;
  check(result, "stat in the upper directory");
  return false;
}

/** Where a lower directory shows in the merged view: as a record, purely from below, or not at all. */
export function visibleDirectory(m: OverlayState, row: number): Node | "lower" | "hidden" {
  const known = m.inodes.get(row + 1);
  if (known !== undefined) return known.removed || known.directory?.lowerRow !== row ? "hidden" : known;
  if (m.upper?.moved.has(row) === true && !m.upper.movedLocated) {
    locateMoved(m);
    return visibleDirectory(m, row);
  }
  const parentRow = m.lower.tree.parent(row);
  const parent = visibleDirectory(m, parentRow);
  if (typeof parent === "string") return parent;
  const name = m.lower.nameIn(parentRow, row);
  if (name === undefined) return "hidden";
  if (find(m, parent.id, name, 0, name.length) !== row + 1) return "hidden";
  return m.inodes.get(row + 1) ?? "lower";
}

/**
 * A name of the upper directory now covers one of the image: a whiteout, a copy or something new. To be called once for
 * a name: not when what takes its place there replaces a whiteout.
 */
export function coverName(m: OverlayState, directory: Node, name: Uint8Array): void {
  if (m.lowerNamesLeft.size === 0) return;
  const { lowerRow } = directory.directory as DirectoryPart;
  if (lowerRow < 0) return;
  const row = m.lower.tree.lookup(lowerRow, name, 0, name.length);
  const left = row < 0 ? undefined : m.lowerNamesLeft.get(row);
  if (left !== undefined) m.lowerNamesLeft.set(row, left - 1);
}
