// Unsolicited messages to the kernel: drop what you cache of an inode, drop a name.
// Danger: with pages to drop, INVAL_INODE waits for the locks of those pages, and INVAL_ENTRY for its directory's lock.
// A request in the loop's hands may hold either, so a thread that answers requests never sends them: a helper does.
// INVAL_INODE with offset -1 (attributes only) takes no lock and is safe anywhere.
import { writeFd } from "../sys/files.js";
import { allocatePages, PAGE_SIZE } from "../sys/memory.js";
import { Notify, NotifyInvalEntryOut, NotifyInvalInodeOut, OutHeader } from "./abi.js";
import type { Status } from "./operations.js";
import { putU64 } from "./wire.js";

/** Sends notifications and late replies over one FUSE descriptor, from the thread that made it. */
export interface Notifier {
  /** 0, or -ENOENT when the kernel does not hold the inode. */
  invalidateInode(nodeid: number, offset: number, length: number): Status;
  /** 0, -ENOENT when the kernel does not hold the name, -ENOTEMPTY or -EBUSY where a directory is in use. */
  invalidateEntry(parent: number, name: Uint8Array): Status;
  /** Answers request `unique` without a body. */
  reply(unique: number, status: Status): Status;
}

export function createNotifier(fd: number): Notifier {
  const { address, bytes, view } = allocatePages(PAGE_SIZE);
  const send = (unique: number, error: number, bodyLength: number): Status => {
    const length = OutHeader.byteLength + bodyLength;
    view.setUint32(OutHeader.len, length, true);
    view.setInt32(OutHeader.error, error, true);
    putU64(view, OutHeader.unique, unique);
    const written = writeFd(fd, address, length);
    return Math.min(written, 0);
  };
  return {
    invalidateInode(nodeid, offset, length) {
      const at = OutHeader.byteLength;
      putU64(view, at + NotifyInvalInodeOut.nodeid, nodeid);
      putU64(view, at + NotifyInvalInodeOut.offset, offset);
      putU64(view, at + NotifyInvalInodeOut.length, length);
      return send(0, Notify.INVAL_INODE, NotifyInvalInodeOut.byteLength);
    },
    invalidateEntry(parent, name) {
      const at = OutHeader.byteLength;
      putU64(view, at + NotifyInvalEntryOut.parent, parent);
      view.setUint32(at + NotifyInvalEntryOut.namelen, name.length, true);
      view.setUint32(at + NotifyInvalEntryOut.flags, 0, true);
      const start = at + NotifyInvalEntryOut.byteLength;
      bytes.set(name, start);
      bytes[start + name.length] = 0;
      return send(0, Notify.INVAL_ENTRY, NotifyInvalEntryOut.byteLength + name.length + 1);
    },
    reply: (unique, status) => send(unique, Math.min(status, 0), 0),
  };
}
