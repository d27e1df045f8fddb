// Errors as the kernel names them. Inside, code throws FsError or returns a negative errno; the transport
// maps whatever arrives to one number at its edge (toErrno), and an error it does not know is EIO.
import { constants } from "node:os";

/** Linux errno values by name (asm-generic: the same on x64 and arm64). */
export const Errno: Readonly<Record<ErrnoName, number>> = {
  ...constants.errno,
  ENOTUNIQ: 76,
  EUCLEAN: 117,
};

export type ErrnoName =
  | "EPERM"
  | "ENOENT"
  | "EINTR"
  | "EIO"
  | "ENXIO"
  | "E2BIG"
  | "ENOEXEC"
  | "EBADF"
  | "EAGAIN"
  | "ENOMEM"
  | "EACCES"
  | "EFAULT"
  | "EBUSY"
  | "EEXIST"
  | "EXDEV"
  | "ENODEV"
  | "ENOTDIR"
  | "EISDIR"
  | "EINVAL"
  | "ENFILE"
  | "EMFILE"
  | "ENOTTY"
  | "ETXTBSY"
  | "EFBIG"
  | "ENOSPC"
  | "ESPIPE"
  | "EROFS"
  | "EMLINK"
  | "EPIPE"
  | "EDOM"
  | "ERANGE"
  | "EDEADLK"
  | "ENAMETOOLONG"
  | "ENOSYS"
  | "ENOTEMPTY"
  | "ELOOP"
  | "EOVERFLOW"
  | "EOPNOTSUPP"
  | "ENOTCONN"
  | "ETIMEDOUT"
  | "ECONNABORTED"
  | "ECONNREFUSED"
  | "ENODATA"
  | "ENOTUNIQ"
  | "EUCLEAN"
  | "ESTALE"
  | "EDQUOT"
  | "EILSEQ";

const nameByNumber = new Map<number, string>(
  // EWOULDBLOCK, ENOTSUP and their like share a number with the canonical name and must not replace it.
  Object.entries(Errno)
    .reverse()
    .filter(([name]) => name !== "EWOULDBLOCK" && name !== "ENOTSUP")
    .map(([name, value]) => [value, name]),
);

/** The symbolic name of an errno, or `errno N` for one without a name here. */
export function errnoName(errno: number): string {
  return nameByNumber.get(errno) ?? `errno ${errno}`;
}

const words: Readonly<Record<string, string>> = {
  EPERM: "operation not permitted",
  ENOENT: "no such file or directory",
  EIO: "input/output error",
  EACCES: "permission denied",
  EBUSY: "in use",
  EEXIST: "already there",
  ENOTDIR: "not a directory",
  EISDIR: "is a directory",
  EMFILE: "too many open files",
  ENOSPC: "no space left",
  EDQUOT: "disk quota exceeded",
  EROFS: "read-only filesystem",
  ELOOP: "too many symbolic links",
  ENAMETOOLONG: "name too long",
};

/** An errno name in words, for people; the name itself where there are none here. */
export function errnoText(code: string): string {
  return words[code] ?? code;
}

/** The errno name that a system error of Node's carries; EIO for what is none. */
export function codeOf(cause: unknown): string {
  return cause instanceof Error && "code" in cause ? String(cause.code) : "EIO";
}

/** A failure that has an errno: `code` is its name, `errno` the positive Linux number. */
export class FsError extends Error {
  readonly code: string;
  readonly errno: number;

  constructor(errno: number, message?: string) {
    const code = errnoName(errno);
    super(message === undefined ? code : `${message}: ${code}`);
    this.name = "FsError";
    this.code = code;
    this.errno = errno;
  }
}

/** An FsError by errno name: `throw fsError("ENOTDIR")`. */
export function fsError(code: ErrnoName, message?: string): FsError {
  return new FsError(Errno[code], message);
}

/**
 * The positive errno of any thrown value. FsError and Node's own system errors keep theirs; everything else is
 * EIO after `onUnknown` has been told, so that a programming error is logged and never ends the process.
 */
export function toErrno(cause: unknown, onUnknown: (cause: unknown) => void): number {
  if (cause instanceof FsError) return cause.errno;
  if (cause instanceof Error && "errno" in cause && typeof cause.errno === "number" && cause.errno < 0) {
    return -cause.errno;
  }
  onUnknown(cause);
  return Errno.EIO;
}
