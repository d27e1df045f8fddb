// The overlay: one merged, writable tree from a read-only image and an upper directory, as a FileSystem for any
// transport. This file only puts the parts together; each operation is in the file that bears its name.
// Invariant: the mount is the only writer of its upper directory, which is why everything may be cached without end.
import type { Logger } from "../base/log.js";
import type { FileSystem, Open, Request, StatxReply } from "../fuse/operations.js";
import type { Usage } from "../quota/ledger.js";

import { noName, unlinkAt } from "../sys/files.js";
import { keepsSetuid } from "../sys/process.js";
import { processStartTime } from "../sys/process-time.js";
import { emptyStat, S_IFDIR, statFd } from "../sys/stat.js";
import { getattr, statx } from "./attributes.js";
import { BackingFds } from "./backing-fds.js";
import { create, mkdir, mknod, symlink } from "./create.js";
import { fault } from "./fault.js";
import { copyFileRange, fallocate, fsync, lseek, open, read, release, syncfs, write } from "./file-io.js";
import { overlayGauges } from "./gauges.js";
import { isDots, lookupDots } from "./handles.js";
import { lowerNamesLeft } from "./hard-links.js";
import type { OwnerMap } from "./id-map.js";
import { createDirectoryPart, createNode, InodeTable, type Node } from "./inode-table.js";
import { completeLeaving } from "./leave-whiteout.js";
import { link } from "./link.js";
import { lookup } from "./lookup.js";
import { createLower, type Lower, type LowerTree } from "./lower.js";
import { helperThreads } from "./lower-data.js";
import { indexName } from "./origin.js";
import { noteBase } from "./quota/charge-xattrs.js";
import { creditGone } from "./quota/quota.js";
import { endQuota, type QuotaOptions, startQuota } from "./quota/start.js";
import { takeUsage } from "./quota/usage-file.js";
import { createReaddir } from "./readdir.js";
import { readlink } from "./readlink.js";
import { rmdir, unlink } from "./remove.js";
import { rename } from "./rename.js";
import { overrideOf } from "./resolve.js";
import { setattr } from "./set-attributes.js";
import { copyMetadata } from "./staging.js";
import { createState, type OverlayState, type WritableState } from "./state.js";
import { statfs } from "./statfs.js";
import { refuseLostIds } from "./strict-ids.js";
import { surveyUpper } from "./survey.js";
import { finishRename } from "./swap.js";
import { tmpfile } from "./tmpfile.js";
import { closeUpper, openUpper, type Upper } from "./upper.js";
import { readMarks } from "./whiteout.js";
import { getxattr, listxattr, removexattr, setxattr } from "./xattrs.js";

export interface OverlayOptions {
  readonly image: LowerTree;
  /** The upper directory, made when missing; without one the mount is read-only. */
  readonly upper?: string | undefined;
  /** The work directory, on the same filesystem; UPPER.work by default. */
  readonly work?: string | undefined;
  /** Shows the image's device nodes. */
  readonly devices: boolean;
  /** How owners show; undefined as they are. */
  readonly owners?: OwnerMap | undefined;
  /** Refuses an image with an id that cannot be shown as one of its own. */
  readonly strictIds?: boolean | undefined;
  /** Copies are not synced before they are committed: a power failure may lose what a copy-up made. */
  readonly volatile?: boolean | undefined;
  /** Directories of the image can be moved; else that is EXDEV. True unless given. */
  readonly redirects?: boolean | undefined;
  /** A change of a file's metadata copies no data. True unless given. */
  readonly metacopy?: boolean | undefined;
  /** Counts what the upper costs, in this ledger, and limits it. */
  readonly quota?: QuotaOptions | undefined;
  readonly log: Logger;
  /** Process that serves the mount, told by the root's `user.imgfs.daemon`. */
  readonly daemonPid: number;
}

/** Backing descriptors kept open beside those of open files. */
const BACKING_FDS = 512;

/** Makes the filesystem of one mount. Throws an Error whose message is one line that names what is wrong. */
export function createOverlay(options: OverlayOptions): FileSystem {
  const lower = createLower(options.image, options.devices, options.owners);
  if (options.strictIds === true) refuseLostIds(lower);
  const upper =
    options.upper === undefined
      ? undefined
      : openUpper({
          ...options,
          upper: options.upper,
          treeRoot: options.image.treeRoot,
          initializeRoot: (made) => initializeRoot(options, lower, made),
          survey: (found, foreign) => surveyUpper(found, lower, foreign, options.log),
        });
  const known = upper === undefined ? undefined : putInOrder(upper);
  const m = assemble(options, lower, upper);
  if (options.quota !== undefined && m.upper !== undefined) {
    beginQuota(m as WritableState, options.quota, known);
  }
  const readdir = createReaddir();
  const close = (unfinished = false): void => {
    for (const node of m.inodes) {
      if (m.quota !== undefined) creditGone(m.quota, node);
      if (node.fd >= 0 && node.id !== 1) m.fds.close(node);
    }
    m.fds.closeAll();
    if (upper !== undefined) {
      endQuota(m as WritableState, unfinished);
      closeUpper(upper);
    }
    options.image.close();
  };
  return {
    // In a user namespace, and for ordinary users, the kernel sees to it.
    features: {
      posixAcl: true,
      export: true,
      untrusted: keepsSetuid && upper?.overrides.all === true,
      shortWrites: m.quota !== undefined,
    },
    gauges: overlayGauges(m),
    helperModule: options.image.helperModule,
    init(_info, services) {
      m.services = services;
      m.elsewhere = helperThreads(services);
    },
    destroy: close,
    lookup: (q, name, out) => (isDots(name) ? lookupDots : lookup)(m, q, name, out),
    forget: (nodeid, count) => m.inodes.forget(nodeid, count),
    getattr: (q, out) => getattr(m, q, out),
    setattr: (q, set, out) => setattr(m, q, set, out),
    mknod: (q, name, mode, rdev, umask, out) => mknod(m, q, name, mode, rdev, umask, out),
    mkdir: (q, name, mode, umask, out) => mkdir(m, q, name, mode, umask, out),
    symlink: (q, name, target, out) => symlink(m, q, name, target, out),
    unlink: (q, name) => unlink(m, q, name),
    rmdir: (q, name) => rmdir(m, q, name),
    rename: (q, name, newParent, newName, flags) => rename(m, q, name, newParent, newName, flags),
    link: (q, nodeid, newName, out) => link(m, q, nodeid, newName, out),
    create: (q, name, flags, mode, umask, entry, open) => create(m, q, name, flags, mode, umask, entry, open),
    tmpfile: (q, flags, mode, umask, entry, open) => tmpfile(m, q, flags, mode, umask, entry, open),
    readlink: (q, out) => readlink(m, q, out),
    // Where nothing has a time of birth the kernel need not ask for one.
    ...(upper === undefined ? {} : { statx: (q: Request, out: StatxReply) => statx(m, q, out) }),
    // A read-only mount needs no word of opens, and no mount of directories: without these the kernel opens by itself.
    ...(upper === undefined
      ? {}
      : {
          open: (q: Request, flags: number, kill: boolean, out: Open) => open(m, q, flags, kill, out),
          release: (q: Request, fh: number) => release(m, q, fh),
        }),
    read: (q, fh, offset, out) => read(m, q, fh, offset, out),
    write: (q, fh, offset, data, cached, kill) => write(m, q, fh, offset, data, cached, kill),
    fsync: (q, fh, dataOnly) => fsync(m, q, fh, dataOnly),
    fallocate: (q, fh, mode, offset, length) => fallocate(m, q, fh, mode, offset, length),
    lseek: (q, fh, offset, whence) => lseek(m, q, fh, offset, whence),
    copyFileRange: (q, fh, offset, to, toFh, toOffset, length, flags) =>
      copyFileRange(m, q, fh, offset, to, toFh, toOffset, length, flags),
    readdir: (q, fh, offset, sink) => readdir(m, q, fh, offset, sink),
    fsyncdir: (q, fh, dataOnly) => fsync(m, q, fh, dataOnly),
    syncfs: (q) => syncfs(m, q),
    statfs: (q, out) => statfs(m, q, out),
    getxattr: (q, name, out) => getxattr(m, q, name, out),
    listxattr: (q, out) => listxattr(m, q, out),
    setxattr: (q, name, value, flags, kill) => setxattr(m, q, name, value, flags, kill),
    removexattr: (q, name) => removexattr(m, q, name),
  };
}

/** What a mount before this has left to do, and what it says that the upper costs. Throws an Error of one line. */
function putInOrder(upper: Upper): Usage | undefined {
  try {
    const known = takeUsage(upper);
    return finishRename(upper) ? undefined : known;
  } catch (cause) {
    closeUpper(upper);
    throw cause;
  }
}

function beginQuota(m: WritableState, quota: QuotaOptions, known: Usage | undefined): void {
  try {
    startQuota(m, quota, known);
  } catch (cause) {
    m.fds.closeAll();
    closeUpper(m.upper);
    throw cause;
  }
}

/** Gives a new upper the image root's owner, mode, xattrs and times. */
function initializeRoot({ log }: OverlayOptions, lower: Lower, upper: Upper): void {
  const fd = upper.rootFd;
  try {
    copyMetadata(lower, log, upper.overrides, 0, { fd, atFd: fd, name: noName, standsIn: false });
    noteBase({ lower, upper }, 0, fd);
  } catch (error) {
    const reason = error instanceof Error ? error.message : String(error);
    log.warn("the upper directory does not look like the image's root", { upper: upper.path, reason });
  }
}

function assemble(options: OverlayOptions, lower: Lower, upper: Upper | undefined): OverlayState {
  const fds = new BackingFds(BACKING_FDS);
  const m = createState({
    lower,
    inodes: new InodeTable(options.image.inodeCount, upper !== undefined, (node) => drop(m, node)),
    fds,
    log: options.log,
    daemon: Buffer.from(`${options.daemonPid} ${processStartTime(options.daemonPid) ?? "0"}`),
    upper,
    indexPlace: upper === undefined ? undefined : placeOf(0, upper.indexFd),
  });
  if (upper !== undefined) {
    if (readMarks(upper.rootFd).leaves) completeLeaving(m as WritableState, upper.rootFd);
    const root = placeOf(1, upper.rootFd);
    statFd(upper.rootFd, m.stat);
    root.override = overrideOf(m, upper.rootFd, noName, m.stat);
    upper.overrides.onRoot = (override) => {
      root.override = override;
    };
    m.inodes.add(root);
    sweepIndex(m, upper);
  }
  return m;
}

/** An object whose last name went just before a crash is still held by the index: it goes now. */
function sweepIndex(m: OverlayState, upper: Upper): void {
  for (const row of upper.lonely) {
    if (row < m.lower.tree.inodeCount && lowerNamesLeft(m, row) > 0) continue;
    if (fault("setup.sweep") < 0) continue;
    unlinkAt(upper.indexFd, indexName(row));
    upper.indexRows.delete(upper.index.get(row) as number);
    upper.index.delete(row);
    m.log.info("left over in the index, removed", { row });
  }
}

/** A record for a directory that stays open for the life of the mount: the root, and the index (nodeid 0). */
function placeOf(id: number, fd: number): Node {
  const stat = emptyStat();
  statFd(fd, stat);
  const row = id - 1;
  const part = createDirectoryPart(row);
  const { impure, defaultAcl, xattrWhiteouts } = readMarks(fd);
  Object.assign(part, { impure, defaultAcl, xattrWhiteouts });
  const node = createNode(
    { id, row, type: S_IFDIR, ino: id, backing: stat.ino, directory: part },
    undefined,
    Buffer.alloc(0),
  );
  node.fd = fd;
  node.copied = true;
  return node;
}

/** What a record held goes with it. */
function drop(m: OverlayState, node: Node): void {
  if (m.quota !== undefined) creditGone(m.quota, node);
  m.fds.close(node);
  m.listed.delete(node);
}
