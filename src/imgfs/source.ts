// Where the bytes of a blob come from: a local file today, a verified cache over ranges of a registry later.
import { closeSync, constants, fstatSync, openSync, readSync } from "node:fs";
import { Errno } from "../base/errno.js";
import { pread } from "../sys/files.js";

/** Fills `into` from a file; the count, short at the end of the file. Throws Node's system error. */
export function readAt(fd: number, offset: number, into: Uint8Array): number {
  let done = 0;
  while (done < into.length) {
    const got = readSync(fd, into, done, into.length - done, offset + done);
    if (got === 0) break;
    done += got;
  }
  return done;
}

/** Random access to one blob's stored bytes. Counts may be short at the end only; failures are negative errnos. */
export interface BlobSource {
  /** For messages: a path, later a reference. */
  readonly name: string;
  readonly size: number;
  /** Descriptor whose offsets are those of the blob, for copy_file_range; -1 when there is none. */
  readonly fd: number;
  /** Into native memory. */
  read(offset: number, address: number, length: number): number;
  /** Into a JavaScript buffer, all of it. */
  readBytes(offset: number, into: Uint8Array): number;
  close(): void;
}

/** A local file, open for reading until closed. Throws Node's system error when it cannot be opened, an Error when it is no file. */
export function fileSource(path: string): BlobSource {
  // O_NONBLOCK: a FIFO of that name must not hold up whoever opens it.
  const fd = openSync(path, constants.O_RDONLY | constants.O_NONBLOCK);
  const stat = fstatSync(fd);
  if (!stat.isFile()) {
    closeSync(fd);
    throw new Error(`${path}: not a regular file`);
  }
  let open = true;
  return {
    name: path,
    size: stat.size,
    fd,
    read(offset, address, length) {
      let done = 0;
      while (done < length) {
        const got = pread(fd, address + done, length - done, offset + done);
        if (got === -Errno.EINTR) continue;
        if (got < 0) return got;
        if (got === 0) break;
        done += got;
      }
      return done;
    },
    readBytes: (offset, into) => readAt(fd, offset, into),
    close() {
      if (open) closeSync(fd);
      open = false;
    },
  };
}
