// A way down a directory tree on the host and back, by descriptors and single names only: no path is ever resolved, so
// no symlink is followed and depth has no limit. Few descriptors stay open; the way back to a directory that was closed
// goes through `..`, and what is found there must be the directory that was left.
import { fsError } from "../base/errno.js";
import { closeFd, O_DIRECTORY, O_NOFOLLOW, O_RDONLY, openAt } from "./files.js";
import { emptyStat, statFd } from "./stat.js";

/** Levels below the top whose descriptor stays open on the way down. */
const keptOpen = 64;

interface Level {
  fd: number;
  dev: number;
  ino: number;
}

const up = Buffer.from("..");
const stat = emptyStat();

export class Descent {
  private readonly levels: Level[];

  /** Begins in the directory open at `top`, which stays the caller's. */
  constructor(top: number) {
    this.levels = [{ fd: top, dev: 0, ino: 0 }];
  }

  /** The directory we are in. */
  get fd(): number {
    return (this.levels.at(-1) as Level).fd;
  }

  /** 0 in the top directory. */
  get depth(): number {
    return this.levels.length - 1;
  }

  /** Goes into the directory `name`. 0 or a negative errno: -ENOTDIR for what is none, a symlink too. */
  enter(name: Uint8Array): number {
    const here = this.levels.at(-1) as Level;
    const fd = openAt(here.fd, name, O_RDONLY | O_DIRECTORY | O_NOFOLLOW);
    if (fd < 0) return fd;
    if (this.depth > keptOpen) {
      const result = statFd(here.fd, stat);
      if (result < 0) {
        closeFd(fd);
        return result;
      }
      closeFd(here.fd);
      Object.assign(here, { fd: -1, dev: stat.dev, ino: stat.ino });
    }
    this.levels.push({ fd, dev: 0, ino: 0 });
    return 0;
  }

  /**
   * Goes back up and returns the descriptor of the directory that was left, for the caller to close. Throws FsError:
   * ESTALE when the directory has been moved meanwhile.
   */
  leave(): number {
    const { fd } = this.levels.pop() as Level;
    const above = this.levels.at(-1) as Level;
    if (above.fd >= 0) return fd;
    const opened = openAt(fd, up, O_RDONLY | O_DIRECTORY | O_NOFOLLOW);
    if (opened >= 0 && statFd(opened, stat) === 0 && stat.dev === above.dev && stat.ino === above.ino) {
      above.fd = opened;
      return fd;
    }
    if (opened >= 0) closeFd(opened);
    closeFd(fd);
    throw fsError("ESTALE", "a directory was moved while it was worked on");
  }

  /** Closes what is open, but the top. */
  close(): void {
    for (const { fd } of this.levels.splice(1)) if (fd >= 0) closeFd(fd);
  }
}
