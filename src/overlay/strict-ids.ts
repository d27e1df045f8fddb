// The scan behind --strict-id-map: every owner of the image, and every id in its ACLs and capabilities, must have an
// id of its own at the mount.
import { displayName } from "../base/bytes.js";
import type { Lower } from "./lower.js";

/** Throws an Error that names the first object with an id that would be lost, and the id. */
export function refuseLostIds(lower: Lower): void {
  for (let row = 0; row < lower.tree.inodeCount; row++) {
    const problem = lower.hidden(row) ? undefined : lower.idProblem(row);
    if (problem !== undefined) throw new Error(`${pathOf(lower, row)}: ${problem}`);
  }
}

/** A path of the row, for people. */
function pathOf(lower: Lower, row: number): string {
  const names: string[] = [];
  for (let at = row; at !== 0; ) {
    const parent = lower.isDirectory(at) ? lower.tree.parent(at) : lower.findParent(at);
    if (parent < 0) return `row ${row}`;
    names.push(displayName(lower.nameIn(parent, at) ?? Buffer.from("?")));
    at = parent;
  }
  return `/${names.reverse().join("/")}`;
}
