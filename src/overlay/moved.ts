// Directories of the image that were moved: their redirect mark keeps what is merged below them, so a move costs the same
// whatever lies there, and root's kernel overlayfs reads it too. It can always be set: there is no EXDEV.
//   WORK/moved/ROW   an empty file for each image directory that was ever moved
// Invariant: the mark and the file are there before the directory is at its new place. A file without a moved directory
// is harmless.
import { bytesOf, type Name, nameOf } from "../base/bytes.js";
import {
  closeFd,
  O_CREAT,
  O_DIRECTORY,
  O_NOFOLLOW,
  O_RDONLY,
  O_WRONLY,
  openAt,
  readDirectory,
  reopenDirectory,
  unlinkAt,
} from "../sys/files.js";
import { fault } from "./fault.js";
import type { DirectoryPart, Node } from "./inode-table.js";
import { DT_DIR, DT_UNKNOWN } from "./listing.js";
import { indexName } from "./origin.js";
import { writeRedirect } from "./redirect.js";
import { find } from "./resolve.js";
import { type OverlayState, recordOf, type WritableState } from "./state.js";
import { claimTree, type Upper } from "./upper.js";
import { readMarks } from "./whiteout.js";

/** Makes sure that a directory with part of the image below it keeps that when it is moved. 0 or a negative errno. */
export function keepMerged(m: WritableState, directory: Node): number {
  const { lowerRow } = directory.directory as DirectoryPart;
  const { upper } = m;
  if (lowerRow < 0 || upper.moved.has(lowerRow)) return 0;
  // The mark speaks of this image, like an origin.
  const claimed = claimTree(upper, m.lower.tree.treeRoot);
  if (claimed < 0) return claimed;
  const marked = writeRedirect(upper, m.lower, m.fds.of(directory), lowerRow);
  if (marked < 0) return marked;
  return recordMoved(upper, lowerRow);
}

/** Notes that an image directory has been moved. 0 or a negative errno. */
export function recordMoved(upper: Upper, row: number): number {
  if (upper.moved.has(row)) return 0;
  const flags = O_CREAT | O_WRONLY | O_NOFOLLOW;
  const file = fault("moved.record") || openAt(upper.movedFd, indexName(row), flags, 0o600);
  if (file < 0) return file;
  closeFd(file);
  upper.moved.add(row);
  return 0;
}

/** A directory that was perhaps moved is gone for good. */
export function forgetMoved(upper: Upper, directory: Node): void {
  const { lowerRow } = directory.directory as DirectoryPart;
  // Then nothing keeps its record from going, and with it what it costs.
  if (upper.movedKept.delete(directory.id)) directory.children--;
  if (!upper.moved.delete(lowerRow)) return;
  // A record that stays is harmless.
  if (fault("moved.forget") === 0) unlinkAt(upper.movedFd, indexName(lowerRow));
}

/**
 * Gives every moved directory its record, by a walk of the upper directory: who comes from the image's side (a hard link
 * that also has a name in one) must know where it is now. Done once a mount, and only where something was moved.
 */
export function locateMoved(m: OverlayState): void {
  const { upper } = m;
  if (upper === undefined || upper.movedLocated || upper.moved.size === 0) return;
  upper.movedLocated = true;
  const root = reopenDirectory(upper.rootFd);
  if (root < 0) return;
  const paths: Name[][] = [];
  collectRedirected(root, [], paths);
  closeFd(root);
  for (const path of paths) {
    let id = 1;
    for (const part of path) {
      const name = bytesOf(part);
      id = find(m, id, name, 0, name.length);
      if (id <= 0) break;
    }
    // It stays known: no lookup from the image's side leads to it.
    if (id > 1 && !upper.movedKept.has(id)) {
      upper.movedKept.add(id);
      recordOf(m, id).children++;
    }
  }
}

/** The paths of directories with a redirect below the one open at `fd`. */
function collectRedirected(fd: number, path: readonly Name[], out: Name[][]): void {
  const names: Buffer[] = [];
  readDirectory(fd, (bytes, start, end, type) => {
    if (type === DT_DIR || type === DT_UNKNOWN) names.push(Buffer.from(bytes.subarray(start, end)));
  });
  for (const name of names) {
    const child = openAt(fd, name, O_RDONLY | O_DIRECTORY | O_NOFOLLOW);
    if (child < 0) continue;
    const childPath = [...path, nameOf(name)];
    if (readMarks(child).redirect !== undefined) out.push(childPath);
    collectRedirected(child, childPath, out);
    closeFd(child);
  }
}
