// New names for what exists: link(2), and linkat(2) of an open file that has none.
import { Errno } from "../base/errno.js";
import type { Entry, NameView, Request, Status } from "../fuse/operations.js";
import { AT_FDCWD, linkAt, renameAt } from "../sys/files.js";
import { check } from "../sys/libc.js";
import { statBacking } from "./backing-metadata.js";
import { copyUp } from "./copy-up.js";
import { answer, copyName, directoryFor, markImpureDirectory } from "./create.js";
import { noteName } from "./directory-names.js";
import { fault } from "./fault.js";
import { coverName } from "./hard-links.js";
import type { Node } from "./inode-table.js";
import { freeName } from "./make-object.js";
import { keepData } from "./metacopy.js";
import { type OverlayState, recordOf, type WritableState, writable } from "./state.js";
import { removeTemporary, temporaryName } from "./upper.js";

/** FUSE LINK: one more name for `nodeid`, which is copied up first. */
export function link(m: OverlayState, q: Request, nodeid: number, newName: NameView, out: Entry): Status {
  const state = writable(m);
  const directory = directoryFor(state, q, q.nodeid, newName);
  if (typeof directory === "number") return directory;
  const copied = copyUp(state, q, nodeid);
  if (copied < 0) return copied;
  const node = recordOf(m, nodeid);
  if (node.directory !== undefined) return -Errno.EPERM;
  const name = copyName(newName);
  const free = freeName(state, directory, name);
  if (typeof free === "number") return free;
  if (node.row >= 0 || node.dataRow >= 0) markImpureDirectory(state, directory);
  keepData(state, node);
  if (free === "whiteout") {
    const temporary = temporaryName(state.upper);
    const staged = fault("link.stage") || linkBacking(state, node, state.upper.temporaryFd, temporary);
    check(staged, "link in the work directory");
    const moved =
      fault("link.commit") || renameAt(state.upper.temporaryFd, temporary, m.fds.of(directory), name);
    if (moved < 0) removeTemporary(state.upper, temporary);
    check(moved, "rename over a whiteout");
  } else {
    const made = fault("link.make") || linkBacking(state, node, m.fds.of(directory), name);
    check(made, "link in the upper directory");
    coverName(m, directory, name);
  }
  check(statBacking(m.fds, node, m.stat), "stat of a new link");
  noteName(directory, name, m.stat.mode, m.stat.ino);
  node.removed = false;
  if (node.parent === undefined || node.parent === m.indexPlace) m.inodes.place(node, directory, name);
  return answer(m, { node, stat: m.stat }, out);
}

const AT_SYMLINK_FOLLOW = 0x400;

function linkBacking(m: WritableState, node: Node, toFd: number, name: Buffer): number {
  if (node.parent !== undefined) return linkAt(m.fds.of(node.parent), node.name, toFd, name);
  return linkAt(AT_FDCWD, Buffer.from(`/proc/self/fd/${node.fd}`), toFd, name, AT_SYMLINK_FOLLOW);
}
