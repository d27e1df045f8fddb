// What can go wrong with a store, told apart for callers that have words of their own.
import { errnoText } from "../base/errno.js";

export type StoreFailureKind =
  /** There is no store of ours at this path. */
  | "not-initialised"
  /** The folder holds something else. */
  | "foreign"
  /** A layout that this version does not know. */
  | "newer"
  /** No name for an image. */
  | "bad-id"
  | "exists"
  | "absent"
  | "maps"
  /** The layers as they come are larger than the limit; found before any is read. */
  | "compressed"
  /** One layer unpacked is. */
  | "uncompressed"
  /** All of them are. */
  | "volume"
  | "busy"
  /** It took longer than it may. */
  | "timeout"
  /** There is no room left on the store's filesystem, or none that this user may take. */
  | "full"
  | "locked"
  | "damaged"
  | "failed";

/** One line that names the object. */
export class StoreError extends Error {
  readonly kind: StoreFailureKind;

  constructor(kind: StoreFailureKind, message: string, options?: ErrorOptions) {
    super(message, options);
    this.name = "StoreError";
    this.kind = kind;
  }
}

/** A failure in words, for a line that begins with something else. */
export function wordsOf(cause: unknown): string {
  return cause instanceof Error ? cause.message : String(cause);
}

/** What a failure is told as where the disk of the store at `path` is to blame, which a system error does not name. */
export function ofDisk(path: string, cause: unknown): unknown {
  if (cause instanceof StoreError) return cause;
  for (let error = cause; error instanceof Error; error = error.cause) {
    const { code } = error as NodeJS.ErrnoException;
    const found = diskErrors.find((each) => each === code || error.message.includes(each));
    if (found === undefined) continue;
    return new StoreError("full", `${path}: ${errnoText(found)} on the store's filesystem`, { cause });
  }
  return cause;
}

const diskErrors = ["ENOSPC", "EDQUOT", "EROFS"] as const;
