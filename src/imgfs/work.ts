// Work that an image would rather have done in another thread: the messages, and what that thread does with them.
// The module is loaded by helper threads; nothing here knows an Image.
import { fsyncSync, writeSync } from "node:fs";
import { Errno } from "../base/errno.js";
import { regionAt } from "../sys/memory.js";
import { type HashedRun, hashContent } from "./content-hash.js";
import { decodeFrame, type FramePlace, faultText } from "./frames.js";
import { FRAME } from "./layout.js";
import { readAt } from "./source.js";

/** A few frames of a blob, to be decoded into memory. */
export interface FramesTask {
  readonly kind: "frames";
  readonly fd: number;
  readonly frames: readonly FrameToDecode[];
}

export interface FrameToDecode {
  readonly place: FramePlace;
  /** 32 chars of one byte each: a view would take its whole buffer along. */
  readonly digest: string;
  /** Memory of a frame's size. */
  readonly address: number;
}

/** The first bytes of a file whose data is compressed, written to another file. */
export interface CopyTask {
  readonly kind: "copy";
  /** For messages. */
  readonly file: string;
  readonly fd: number;
  readonly to: number;
  readonly sync: boolean;
  /** For each piece: frame, offset, stored and raw of its place, first byte in it, bytes, and where they go. */
  readonly pieces: Float64Array;
  /** 32 chars for each piece. */
  readonly digests: string;
}

/** The bytes of a content against its digest. */
export interface VerifyTask {
  readonly kind: "verify";
  readonly size: number;
  /** For each run: descriptor or -1 for a hole, offset in the file of the blob, offset in the content, bytes. */
  readonly runs: Float64Array;
  readonly digest: string;
}

export type Task = FramesTask | CopyTask | VerifyTask;

/** Numbers a piece or a run takes in a task. */
export const PIECE = 7;
export const RUN = 4;

/** What came of a task: 0 or a negative errno, and for damage what is wrong. */
export interface TaskResult {
  readonly status: number;
  readonly problem?: string;
}

/** Work to be begun elsewhere. `done` is to be called in the thread that asked, and only there. */
export interface Work {
  /** Negative; equal for equal work. */
  readonly key: number;
  readonly task: Task;
  /** Takes far longer than a read. */
  readonly long: boolean;
  readonly done: (result: TaskResult) => void;
}

/** Another thread, or several. */
export interface Elsewhere {
  /** Begins work there; false when it cannot be. */
  begin(work: Work): boolean;
  /** Nobody else waits for the calling thread: what is short is done sooner here. */
  idle(): boolean;
}

const views = new Map<number, Uint8Array>();

/** Does a task in the calling thread. Never throws. */
export function runTask(task: Task): TaskResult {
  try {
    switch (task.kind) {
      case "frames":
        return runFrames(task);
      case "copy":
        return runCopy(task);
      case "verify":
        return runVerify(task);
    }
  } catch (cause) {
    const { errno } = cause as NodeJS.ErrnoException;
    return { status: typeof errno === "number" && errno < 0 ? errno : -Errno.EIO };
  }
}

function runFrames({ fd, frames }: FramesTask): TaskResult {
  const read = (offset: number, bytes: Uint8Array): number => readAt(fd, offset, bytes);
  for (const { place, digest, address } of frames) {
    let into = views.get(address);
    if (into === undefined) {
      into = regionAt(address, FRAME).bytes;
      views.set(address, into);
    }
    const status = decodeFrame(read, place, Buffer.from(digest, "latin1"), into);
    if (status < 0) return { status };
  }
  return { status: 0 };
}

function runCopy({ file, fd, to, sync, pieces, digests }: CopyTask): TaskResult {
  const bytes = Buffer.allocUnsafeSlow(FRAME);
  let decoded = -1;
  for (let i = 0; i < pieces.length / PIECE; i++) {
    const at = i * PIECE;
    const [frame = 0, offset = 0, stored = 0, raw = 0, skip = 0, length = 0, target = 0] = pieces.subarray(
      at,
      at + PIECE,
    );
    if (frame !== decoded) {
      const digest = Buffer.from(digests.slice(i * 32, i * 32 + 32), "latin1");
      const status = decodeFrame(
        (from, into) => readAt(fd, from, into),
        { offset, stored, raw },
        digest,
        bytes,
      );
      if (status < 0)
        return { status: -Errno.EIO, problem: `${file}: data: frame ${frame}: ${faultText(status)}` };
      decoded = frame;
    }
    for (let done = 0; done < length; ) {
      done += writeSync(to, bytes, skip + done, length - done, target + done);
    }
  }
  if (sync) fsyncSync(to);
  return { status: 0 };
}

function runVerify({ size, runs, digest }: VerifyTask): TaskResult {
  const parts: (HashedRun & { readonly fd: number })[] = [];
  for (let at = 0; at < runs.length; at += RUN) {
    const [fd = 0, offset = 0, fileOffset = 0, length = 0] = runs.subarray(at, at + RUN);
    parts.push({ fd, fileOffset, length, rawOffset: fd < 0 ? undefined : offset });
  }
  let short = false;
  const found = hashContent(size, parts, ({ fd }, offset, into) => {
    short ||= readAt(fd, offset, into) < into.length;
  });
  if (short) return { status: -Errno.ENODATA, problem: "the file ends within it" };
  if (Buffer.compare(found, Buffer.from(digest, "latin1")) !== 0) {
    return { status: -Errno.EUCLEAN, problem: `${size} bytes differ from their digest` };
  }
  return { status: 0 };
}
