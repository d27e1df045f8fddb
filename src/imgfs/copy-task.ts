// The first bytes of a content whose data is compressed, as a copy that another thread can do alone.
import type { Blob, ContentRange, ContentReader } from "./content-reader.js";
import { FRAME } from "./layout.js";
import { type CopyTask, PIECE } from "./work.js";

/**
 * The task that writes a content's first `limit` bytes to `to`, holes left out; undefined when they do not all lie in
 * one compressed blob that is a file. Throws Corrupt.
 */
export function copyTask(
  reader: ContentReader,
  content: number,
  size: number,
  limit: number,
  to: number,
  sync: boolean,
): CopyTask | undefined {
  const pieces: number[] = [];
  const digests: string[] = [];
  let from: Blob | undefined;
  const range: ContentRange = { blob: 0, rawOffset: undefined, fileOffset: 0, length: 0 };
  const runs = Math.max(1, reader.runCount(content));
  for (let run = 0; run < runs; run++) {
    reader.range(content, run, size, range);
    const { rawOffset, fileOffset } = range;
    const length = Math.min(range.length, limit - fileOffset);
    if (rawOffset === undefined || length <= 0) continue;
    const { blob } = reader.stored(content, range);
    if (blob.frames === undefined || blob.source.fd < 0 || blob !== (from ?? blob)) return undefined;
    from = blob;
    for (let done = 0; done < length; ) {
      const frame = Math.floor((rawOffset + done) / FRAME);
      const skip = rawOffset + done - frame * FRAME;
      const count = Math.min(length - done, FRAME - skip);
      const { offset, stored, raw } = blob.frames.place(frame);
      pieces.push(frame, offset, stored, raw, skip, count, fileOffset + done);
      digests.push(Buffer.from(blob.frames.digest(frame)).toString("latin1"));
      done += count;
    }
  }
  if (from === undefined || pieces.length % PIECE !== 0) return undefined;
  const { name, fd } = from.source;
  return {
    kind: "copy",
    file: name,
    fd,
    to,
    sync,
    pieces: Float64Array.from(pieces),
    digests: digests.join(""),
  };
}
