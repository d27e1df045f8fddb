// Messages from the worker that serves to the main thread, and what the worker is started with.
import type { SessionEnd } from "../fuse/session.js";
import type { MountOptions } from "./options.js";

export interface WorkerData {
  readonly options: MountOptions;
  readonly counters: SharedArrayBuffer;
  /** Of a Ledger (src/quota/ledger.ts); the worker opens it where the options have a quota. */
  readonly ledger: SharedArrayBuffer;
  readonly logFd: number;
}

export type WorkerMessage =
  /**
   * The mount is there; `fd` is the FUSE descriptor, for the case that the worker ends without closing it. Without a
   * mountpoint it is somebody else's mount, and only served here.
   */
  | { readonly kind: "mounted"; readonly fd: number; readonly mountpoint?: string }
  /** The kernel has accepted the connection. `gauges` are the names of the filesystem's own figures, in order. */
  | { readonly kind: "ready"; readonly gauges: readonly string[] }
  /** Nothing is mounted. `reason` is one line, `hint` another. */
  | { readonly kind: "refused"; readonly reason: string; readonly hint?: string | undefined }
  | { readonly kind: "ended"; readonly end: SessionEnd };
