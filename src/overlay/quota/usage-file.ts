// WORK/usage: what the upper costs, as a mount with a quota knew it at its clean end, so that the next one need not count.
// It is trusted only where nothing can have changed the upper since but a mount that would have removed it:
//   every mount removes it before it changes anything, with a quota or without
//   it names the upper, by the mark and by where its directories lie, so a copy of both does not have it
//   it names the boot: after a crash of the machine neither what it says nor its removal need have been on disk
// Between these a removal that no sync has followed holds, because only a crash of the machine undoes it.
import { readFileSync } from "node:fs";
import { Errno, errnoName } from "../../base/errno.js";
import { BLOCK } from "../../quota/blocks.js";
import type { Usage } from "../../quota/ledger.js";
import {
  closeFd,
  fdatasyncFd,
  O_CREAT,
  O_NOFOLLOW,
  O_NONBLOCK,
  O_RDONLY,
  O_TRUNC,
  O_WRONLY,
  openAt,
  pread,
  pwrite,
  renameAt,
  unlinkAt,
} from "../../sys/files.js";
import { allocatePages } from "../../sys/memory.js";
import { emptyStat, statFd } from "../../sys/stat.js";
import { readXattrFd } from "../../sys/xattr.js";
import { fault } from "../fault.js";
import { type Upper, upperMark } from "../upper.js";

export const usageFile: Buffer = Buffer.from("usage");
export const newUsageFile: Buffer = Buffer.from("usage.new");
const FORM =
  /^imgfs usage 1\nupper (.{1,200})\nboot ([0-9a-f-]{36})\nbytes (0|[1-9]\d{0,15})\ninodes (0|[1-9]\d{0,15})\n$/;
const BOOT_ID = "/proc/sys/kernel/random/boot_id";
/** Longer than any that is written. */
const SIZE_MAX = 512;

type Directories = Pick<Upper, "path" | "rootFd" | "workFd">;

export interface SavedUsage extends Usage {
  readonly upper: string;
  readonly boot: string;
}

/** What a file of these bytes says, or undefined where it is none of ours. */
export function parseUsage(text: string): SavedUsage | undefined {
  const [, upper, boot, bytes, inodes] = FORM.exec(text) ?? [];
  if (upper === undefined || boot === undefined) return undefined;
  const usage = { upper, boot, bytes: Number(bytes), inodes: Number(inodes) };
  const isSane = usage.bytes % BLOCK === 0 && usage.bytes <= Number.MAX_SAFE_INTEGER;
  return isSane ? usage : undefined;
}

/** The text of WORK/usage, as far as it is of use; undefined without one, or a negative errno. */
export function readUsage(workFd: number): string | undefined | number {
  const fd = openAt(workFd, usageFile, O_RDONLY | O_NOFOLLOW | O_NONBLOCK);
  if (fd === -Errno.ENOENT) return undefined;
  if (fd < 0) return fd;
  const { address, bytes } = allocatePages(SIZE_MAX);
  const length = pread(fd, address, SIZE_MAX, 0);
  closeFd(fd);
  return length < 0 ? length : Buffer.from(bytes.subarray(0, length)).toString("latin1");
}

/**
 * Takes the file away, and gives what it says where that can be trusted. For every mount, before it changes anything in the
 * upper. Throws an Error of one line where the file cannot be removed: a later mount would trust it.
 */
export function takeUsage(upper: Directories): Usage | undefined {
  const text = readUsage(upper.workFd);
  for (const name of text === undefined ? [newUsageFile] : [newUsageFile, usageFile]) {
    const removed = fault("setup.usage") || unlinkAt(upper.workFd, name);
    if (removed < 0 && removed !== -Errno.ENOENT) {
      throw new Error(`work directory of ${upper.path}: cannot remove ${name}: ${errnoName(-removed)}`);
    }
  }
  const saved = typeof text === "string" ? parseUsage(text) : undefined;
  if (saved === undefined || saved.upper !== identityOf(upper) || saved.boot !== bootId()) return undefined;
  return { bytes: saved.bytes, inodes: saved.inodes };
}

/** Leaves what the upper costs for the next mount: the last that one does with it. 0 or a negative errno. */
export function saveUsage(upper: Directories & Pick<Upper, "volatile">, { bytes, inodes }: Usage): number {
  const identity = identityOf(upper);
  const boot = bootId();
  if (identity === undefined || boot === undefined) return -Errno.ENODATA;
  const text = `imgfs usage 1\nupper ${identity}\nboot ${boot}\nbytes ${bytes}\ninodes ${inodes}\n`;
  const { address, bytes: memory } = allocatePages(SIZE_MAX);
  memory.set(Buffer.from(text, "latin1"));
  const flags = O_CREAT | O_TRUNC | O_WRONLY | O_NOFOLLOW;
  const fd = fault("end.usage") || openAt(upper.workFd, newUsageFile, flags, 0o600);
  if (fd < 0) return fd;
  let result = fault("end.usage-write") || pwrite(fd, address, text.length, 0);
  if (result >= 0) result = result === text.length ? 0 : -Errno.ENOSPC;
  if (result === 0 && !upper.volatile) result = fdatasyncFd(fd);
  closeFd(fd);
  if (result === 0) {
    result = fault("end.usage-commit") || renameAt(upper.workFd, newUsageFile, upper.workFd, usageFile);
  }
  if (result < 0) unlinkAt(upper.workFd, newUsageFile);
  return result;
}

/** What tells this upper, with this workdir, from a copy of both; undefined where it cannot be told. */
function identityOf({ rootFd, workFd }: Directories): string | undefined {
  const root = emptyStat();
  const work = emptyStat();
  const mark = readXattrFd(rootFd, upperMark);
  if (typeof mark === "number" || statFd(rootFd, root) < 0 || statFd(workFd, work) < 0) return undefined;
  const [, identity = ""] = mark.toString("latin1").split(":");
  return `${identity} ${root.dev}:${root.ino} ${work.dev}:${work.ino}`;
}

function bootId(): string | undefined {
  try {
    return readFileSync(BOOT_ID, "latin1").trim();
  } catch {
    return undefined;
  }
}
