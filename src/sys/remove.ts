// Removing trees by descriptors: names that are not text, trees of any depth, directories without rights. Whatever is opened
// is opened by one name in its directory, and never a symlink.
import { Errno } from "../base/errno.js";
import { Descent } from "./descent.js";
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
} from "./files.js";

const DT_DIR = 4;
const S_IRWXU = 0o700;
/** How often directories are read again that something was made in meanwhile. */
const READS = 1000;

/** Told of each thing that cannot be removed: the names on the way to it, and a negative errno. */
export type OnKept = (names: readonly Buffer[], result: number) => void;

/** Removes everything in the directory open at `fd`. 0, or the first negative errno; what can be removed is. */
export function emptyDirectory(fd: number, onKept?: OnKept): number {
  // The caller may have listed it: a descriptor of our own begins at the start.
  const top = reopenDirectory(fd);
  if (top < 0) return top;
  try {
    const removal = new Removal(top, onKept);
    return removal.run(removal.list());
  } finally {
    closeFd(top);
  }
}

/**
 * Removes what is called `name` in the directory open at `fd`, with all that is in it; a symlink is removed itself. 0, also
 * where there is nothing, or as {@link emptyDirectory}.
 */
export function removeAt(fd: number, name: Buffer, onKept?: OnKept): number {
  const removal = new Removal(fd, onKept);
  return removal.run(removal.unlink(name) ? [name] : []);
}

class Removal {
  private readonly onKept: OnKept;
  private readonly way: Descent;
  /** Of the directories that we are in. */
  private readonly names: Buffer[] = [];
  private failed = 0;
  private reads = 0;

  constructor(top: number, onKept: OnKept = () => {}) {
    this.way = new Descent(top);
    this.onKept = onKept;
  }

  /** Removes directories of the top one. */
  run(directories: Buffer[]): number {
    const left = [directories];
    try {
      for (;;) {
        const below = left.at(-1) as Buffer[];
        const name = below.pop();
        if (name !== undefined) {
          if (this.enter(name)) left.push(this.list());
          continue;
        }
        left.pop();
        const done = this.names.pop();
        if (done === undefined) return this.failed;
        closeFd(this.way.leave());
        const result = unlinkAt(this.way.fd, done, AT_REMOVEDIR);
        // Somebody has made something in it.
        const isNew = result === -Errno.ENOTEMPTY && this.failed === 0 && ++this.reads < READS;
        if (isNew) (left.at(-1) as Buffer[]).push(done);
        else this.note(result, done);
      }
    } finally {
      this.way.close();
    }
  }

  /** Removes what is no directory in the one that we are in; those that are. */
  list(): Buffer[] {
    const directories: Buffer[] = [];
    const others: Buffer[] = [];
    const result = readDirectory(this.way.fd, (bytes, start, end, type) => {
      (type === DT_DIR ? directories : others).push(Buffer.from(bytes.subarray(start, end)));
    });
    this.note(result);
    // A filesystem need not tell types in its listings.
    return directories.concat(others.filter((name) => this.unlink(name)));
  }

  /** Removes a name; true where that is a directory's. */
  unlink(name: Buffer): boolean {
    const result = unlinkAt(this.way.fd, name);
    if (result === -Errno.EISDIR) return true;
    this.note(result, name);
    return false;
  }

  /** Goes into a directory, whose rights may have to be given to us first. */
  private enter(name: Buffer): boolean {
    let result = this.way.enter(name);
    if (result === -Errno.EACCES) result = allowAndEnter(this.way, name);
    if (result < 0) {
      this.note(result, name);
      return false;
    }
    chmodFd(this.way.fd, S_IRWXU);
    this.names.push(name);
    return true;
  }

  private note(result: number, name?: Buffer): void {
    if (result >= 0 || result === -Errno.ENOENT) return;
    if (this.failed === 0) this.failed = result;
    this.onKept(name === undefined ? this.names : [...this.names, name], result);
  }
}

/** Enters a directory of ours that gives us no rights. */
function allowAndEnter(way: Descent, name: Buffer): number {
  const fd = openAt(way.fd, name, O_PATH | O_DIRECTORY | O_NOFOLLOW);
  if (fd < 0) return fd;
  const result = chmodAt(AT_FDCWD, Buffer.from(`/proc/self/fd/${fd}`), S_IRWXU);
  closeFd(fd);
  return result < 0 ? result : way.enter(name);
}
