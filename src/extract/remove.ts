// Empties a directory, by descriptors: names that are not text, trees of any depth, directories without rights.

import { Errno } from "../base/errno.js";
import {
  AT_FDCWD,
  AT_REMOVEDIR,
  chmodAt,
  chmodFd,
  closeFd,
  O_DIRECTORY,
  O_NOFOLLOW,
  O_PATH,
  openAt,
  readDirectory,
  reopenDirectory,
  unlinkAt,
} from "../sys/files.js";
import { Descent } from "./descent.js";

const DT_DIR = 4;
const S_IRWXU = 0o700;

/** Removes everything in the directory open at `fd`. 0, or the first negative errno; what can be removed is. */
export function emptyDirectory(fd: number): number {
  let failed = 0;
  const note = (result: number): void => {
    if (result < 0 && failed === 0) failed = result;
  };
  const list = (directory: number): Buffer[] => {
    const directories: Buffer[] = [];
    const others: Buffer[] = [];
    note(
      readDirectory(directory, (bytes, start, end, type) => {
        (type === DT_DIR ? directories : others).push(Buffer.from(bytes.subarray(start, end)));
      }),
    );
    for (const name of others) {
      const result = unlinkAt(directory, name);
      // A filesystem need not tell types in its listings.
      if (result === -Errno.EISDIR) directories.push(name);
      else note(result);
    }
    return directories;
  };
  // The caller may have listed it: a descriptor of our own begins at the start.
  const top = reopenDirectory(fd);
  if (top < 0) return top;
  const way = new Descent(top);
  const left: Buffer[][] = [list(top)];
  const names: Buffer[] = [];
  try {
    while (left.length > 0) {
      const name = (left.at(-1) as Buffer[]).pop();
      if (name !== undefined) {
        let result = way.enter(name);
        if (result === -Errno.EACCES) result = allowAndEnter(way, name);
        if (result < 0) {
          note(result);
          continue;
        }
        chmodFd(way.fd, S_IRWXU);
        names.push(name);
        left.push(list(way.fd));
        continue;
      }
      left.pop();
      const done = names.pop();
      if (done === undefined) break;
      closeFd(way.leave());
      note(unlinkAt(way.fd, done, AT_REMOVEDIR));
    }
  } finally {
    way.close();
    closeFd(top);
  }
  return failed;
}

/** Enters a directory of ours that gives us no rights. */
function allowAndEnter(way: Descent, name: Buffer): number {
  const fd = openAt(way.fd, name, O_PATH | O_DIRECTORY | O_NOFOLLOW);
  if (fd < 0) return fd;
  const result = chmodAt(AT_FDCWD, Buffer.from(`/proc/self/fd/${fd}`), S_IRWXU);
  closeFd(fd);
  return result < 0 ? result : way.enter(name);
}
