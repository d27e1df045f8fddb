// The directory on the host that takes an extraction, and what becomes of it when that fails.
import { rmdirSync } from "node:fs";
import { dirname, resolve } from "node:path";
import { makeFolders } from "../base/folders.js";
import {
  AT_FDCWD,
  chmodFd,
  chownAt,
  closeFd,
  noName,
  O_DIRECTORY,
  O_RDONLY,
  openAt,
  readDirectory,
  utimesFd,
} from "../sys/files.js";
import { emptyDirectory } from "../sys/remove.js";
import { emptyStat, type Stat, statFd } from "../sys/stat.js";
import { textOf } from "./failure.js";

/** Mode of a directory while it is worked on. */
export const privateMode = 0o700;

/** The directory that takes it all. */
export class Destination {
  readonly fd: number;
  private readonly path: string;
  /** The highest directory made here. */
  private readonly made: string | undefined;
  private readonly before: Stat = emptyStat();

  constructor(dest: string) {
    this.path = resolve(dest);
    this.made = makeFolders(this.path);
    this.fd = openAt(AT_FDCWD, Buffer.from(this.path), O_RDONLY | O_DIRECTORY);
    if (this.fd < 0) throw new Error(`${dest}: ${textOf(this.fd)}`);
    let names = 0;
    const result = readDirectory(this.fd, () => names++);
    if (result < 0 || names > 0) {
      closeFd(this.fd);
      throw new Error(`${dest}: ${result < 0 ? textOf(result) : "not empty"}`);
    }
    statFd(this.fd, this.before);
  }

  /** Makes it ours alone where we may. */
  claim(): void {
    if (this.before.uid !== (process.geteuid?.() ?? 0))
      chownAt(this.fd, noName, process.geteuid?.() ?? 0, -1 >>> 0);
    chmodFd(this.fd, privateMode);
  }

  /** Removes what is in it, and itself where it was made here; else it is again as it was. 0 or a negative errno. */
  undo(): number {
    const result = emptyDirectory(this.fd);
    const { uid, gid, mode, atimeSec, atimeNsec, mtimeSec, mtimeNsec } = this.before;
    if (this.made === undefined) {
      chownAt(this.fd, noName, uid, gid);
      chmodFd(this.fd, mode & 0o7777);
      utimesFd(this.fd, atimeSec, atimeNsec, mtimeSec, mtimeNsec);
      return result;
    }
    for (let folder = this.path; result === 0; folder = dirname(folder)) {
      try {
        rmdirSync(folder);
      } catch {
        break;
      }
      if (folder === this.made) break;
    }
    return result;
  }

  close(): void {
    closeFd(this.fd);
  }
}
