// What can go wrong with a store, told apart for callers that have words of their own.

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
