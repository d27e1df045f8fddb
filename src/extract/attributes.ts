// Owner, extended attributes, mode and times of what has just been made, in the order that keeps each: a change of owner
// takes setuid bits and capabilities away, so both come after it; times are last.
// What this user or this filesystem may not have is left out and counted; everything else that fails is an error.
import { bytesOf, displayName } from "../base/bytes.js";
import { Errno, FsError } from "../base/errno.js";
import type { Image } from "../imgfs/image.js";
import { AT_FDCWD, chmodAt, chmodFd, chownAt, noName, UTIME_OMIT, utimesAt, utimesFd } from "../sys/files.js";
import { S_IFDIR, S_IFLNK, S_IFMT, S_ISGID, S_ISUID } from "../sys/stat.js";
import { writeXattrAt, writeXattrFd, XATTR_SIZE_MAX } from "../sys/xattr.js";

/** What an extraction may have to leave out. */
export type LossKind = "owner" | "setid" | "xattr" | "device" | "attributes";

export interface Loss {
  readonly kind: LossKind;
  readonly count: number;
  /** The first of them, for a message: a path, of an xattr with its name. */
  readonly first: string;
}

/** Counts what was left out, by kind. */
export class Losses {
  private readonly byKind = new Map<LossKind, { count: number; first: string }>();

  add(kind: LossKind, first: () => string): void {
    const known = this.byKind.get(kind);
    if (known === undefined) this.byKind.set(kind, { count: 1, first: first() });
    else known.count++;
  }

  get list(): Loss[] {
    return [...this.byKind].map(([kind, loss]) => ({ kind, ...loss }));
  }
}

export interface AttributeOptions {
  /** Gives objects the image's owners; otherwise they stay the user's. */
  readonly owner: boolean;
  readonly xattrs: boolean;
}

/** One object on the host, as system calls reach it. */
export interface Place {
  /** Descriptor of the object: open for real, or O_PATH; of a symlink the directory that holds it. */
  readonly fd: number;
  /** Name of a symlink in the directory `fd`; empty otherwise. */
  readonly name: Uint8Array;
  readonly isPath: boolean;
}

const refused: ReadonlySet<number> = new Set([Errno.EPERM, Errno.EACCES, Errno.EOPNOTSUPP, Errno.EINVAL]);
const userId = process.geteuid?.() ?? 0;
const groupId = process.getegid?.() ?? 0;

export class Attributes {
  private readonly image: Image;
  private readonly options: AttributeOptions;
  private readonly losses: Losses;

  constructor(image: Image, options: AttributeOptions, losses: Losses) {
    this.image = image;
    this.options = options;
    this.losses = losses;
  }

  /** Gives `place` what the image says of `row`; `path` is asked for messages only. Throws FsError. */
  set(place: Place, row: number, path: () => string): void {
    const { image } = this;
    const type = image.mode(row) & S_IFMT;
    const isOwners = this.owner(place, row, path);
    if (this.options.xattrs) this.xattrs(place, row, path);
    if (type !== S_IFLNK) {
      let mode = image.mode(row) & 0o7777;
      if (!isOwners && type !== S_IFDIR && (mode & (S_ISUID | S_ISGID)) !== 0) {
        mode &= ~(S_ISUID | S_ISGID);
        this.losses.add("setid", path);
      }
      this.must(place, this.chmod(place, mode), path);
    }
    this.must(place, this.times(place, image.mtimeSec(row), image.mtimeNsec(row)), path);
  }

  /** True when the object is now the image's owner's. */
  private owner({ fd, name }: Place, row: number, path: () => string): boolean {
    const uid = this.image.uid(row);
    const gid = this.image.gid(row);
    if (!this.options.owner) return uid === userId && gid === groupId;
    const result = chownAt(fd, name, uid, gid);
    if (result === 0) return true;
    if (!refused.has(-result)) throw new FsError(-result, "owner");
    this.losses.add("owner", path);
    return false;
  }

  private xattrs({ fd, name, isPath }: Place, row: number, path: () => string): void {
    const xattrs = this.image.xattrs(row);
    if (xattrs === undefined) return;
    for (const { name: key, value } of xattrs) {
      const what = (): string => `extended attribute ${displayName(key)}`;
      if (value.length > XATTR_SIZE_MAX) throw new FsError(Errno.E2BIG, what());
      const bytes = bytesOf(key);
      const result =
        isPath || name.length > 0 ? writeXattrAt(fd, name, bytes, value) : writeXattrFd(fd, bytes, value);
      if (result >= 0) continue;
      if (!refused.has(-result)) throw new FsError(-result, what());
      this.losses.add("xattr", () => `${displayName(key)} of ${path()}`);
    }
  }

  private chmod({ fd, isPath }: Place, mode: number): number {
    return isPath ? chmodAt(AT_FDCWD, Buffer.from(`/proc/self/fd/${fd}`), mode) : chmodFd(fd, mode);
  }

  private times({ fd, name, isPath }: Place, sec: number, nsec: number): number {
    if (name.length > 0) return utimesAt(fd, name, 0, UTIME_OMIT, sec, nsec);
    return isPath ? utimesAt(fd, noName, 0, UTIME_OMIT, sec, nsec) : utimesFd(fd, 0, UTIME_OMIT, sec, nsec);
  }

  /** What we made obeys us; a destination that was there may be another user's. */
  private must(_: Place, result: number, path: () => string): void {
    if (result >= 0) return;
    if (result !== -Errno.EPERM) throw new FsError(-result, "attributes");
    this.losses.add("attributes", path);
  }
}
