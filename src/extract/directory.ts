// The tree of an image into a directory of the host.
// Invariants: everything is made by us, exclusively, by one name in the descriptor of a directory that we made: nothing
// that an image says is ever resolved as a path, so no symlink and no name leads out. While it is worked on a directory
// is its maker's alone (0700); owner, mode and times are set when all below it is there.
import { displayName } from "../base/bytes.js";
import { Errno } from "../base/errno.js";
import { Turns } from "../base/turns.js";
import { copyBytes } from "../imgfs/copy.js";
import type { Image } from "../imgfs/image.js";
import { type Child, childrenOf } from "../imgfs/look.js";
import { Descent } from "../sys/descent.js";
import {
  closeFd,
  mkdirAt,
  mknodAt,
  O_CREAT,
  O_EXCL,
  O_NOFOLLOW,
  O_PATH,
  O_WRONLY,
  openAt,
  pwrite,
  SEEK_DATA,
  SEEK_HOLE,
  symlinkAt,
  truncateFd,
} from "../sys/files.js";
import { allocatePages, type Region } from "../sys/memory.js";
import { S_IFIFO, S_IFLNK, S_IFMT, S_IFREG } from "../sys/stat.js";
import { Attributes, type Loss, Losses } from "./attributes.js";
import { Destination, privateMode } from "./destination.js";
import { at, check, textOf } from "./failure.js";
import { LinkRoom } from "./link-room.js";
import { isDirectory, type Start } from "./walk.js";

export interface ExtractOptions {
  /** Gives objects the image's owners; otherwise they stay the user's. */
  readonly owner: boolean;
  readonly xattrs: boolean;
  /** Ends the extraction; what it has made is removed and the promise rejects with the signal's reason. */
  readonly signal?: AbortSignal | undefined;
}

export interface ExtractReport {
  /** Names made, the start not counted when it is a directory. */
  readonly entries: number;
  /** Bytes of data written, holes left out and files with several names counted once. */
  readonly bytes: number;
  /** What could not be had, each kind once. */
  readonly losses: readonly Loss[];
}

/** Most bytes copied in one go. */
const copyChunk = 32 << 20;
const bufferSize = 1 << 20;

/**
 * Writes `start` into the directory `dest`: of a directory its entries and its own owner, mode and times, of anything
 * else the object under its name. `dest` is missing, then it is made with the directories above it, or empty. Throws
 * an Error that names the path in the image; then everything made is removed again.
 */
export async function extractTo(
  image: Image,
  start: Start,
  dest: string,
  options: ExtractOptions,
): Promise<ExtractReport> {
  options.signal?.throwIfAborted();
  const destination = new Destination(dest);
  try {
    const extraction = new Extraction(image, destination.fd, options);
    try {
      if (isDirectory(image, start.row)) {
        destination.claim();
        await extraction.tree(start.row);
      } else {
        await extraction.object(start);
      }
    } finally {
      extraction.end();
    }
    return extraction.report();
  } catch (cause) {
    const left = destination.undo();
    if (left === 0) throw cause;
    throw new Error(`${(cause as Error).message} (and ${dest} could not be emptied: ${textOf(left)})`, {
      cause,
    });
  } finally {
    destination.close();
  }
}

/** A directory that is being filled: those in it that are still empty. */
interface Level {
  readonly row: number;
  readonly name: Buffer;
  readonly left: Child[];
}

class Extraction {
  private readonly image: Image;
  private readonly top: number;
  private readonly turns: Turns;
  private readonly losses = new Losses();
  private readonly attributes: Attributes;
  private readonly way: Descent;
  private readonly levels: Level[] = [];
  private readonly links: LinkRoom;
  private buffer: Region | undefined;
  private entries = 0;
  private bytes = 0;

  constructor(image: Image, top: number, options: ExtractOptions) {
    this.image = image;
    this.top = top;
    this.turns = new Turns(options.signal);
    this.attributes = new Attributes(image, options, this.losses);
    this.way = new Descent(top);
    this.links = new LinkRoom(top);
  }

  /** Fills the top directory with what directory `row` holds. */
  async tree(row: number): Promise<void> {
    const { way, levels } = this;
    levels.push({ row, name: noBytes, left: await this.fill(row) });
    for (;;) {
      const level = levels.at(-1) as Level;
      const next = level.left.pop();
      if (next !== undefined) {
        this.naming(next.name, () => check(way.enter(next.name)));
        levels.push({ row: next.row, name: next.name, left: [] });
        (levels.at(-1) as Level).left.push(...(await this.fill(next.row)));
        continue;
      }
      if (levels.length === 1) break;
      const fd = way.leave();
      try {
        this.finish(fd, level.row);
      } finally {
        closeFd(fd);
      }
      levels.pop();
    }
    this.links.remove();
    this.finish(this.top, row);
  }

  /** Makes one object that is no directory in the top directory. */
  async object(start: Start): Promise<void> {
    await this.make(start);
    this.links.remove();
  }

  report(): ExtractReport {
    return { entries: this.entries, bytes: this.bytes, losses: this.losses.list };
  }

  end(): void {
    this.way.close();
    this.links.close();
  }

  /** Makes what a directory holds, in the directory we are in. The directories of it, which are empty yet, last first. */
  private async fill(row: number): Promise<Child[]> {
    const directories: Child[] = [];
    for (const child of childrenOf(this.image, row)) {
      if (isDirectory(this.image, child.row)) {
        this.naming(child.name, () => check(mkdirAt(this.way.fd, child.name, privateMode)));
        this.entries++;
        directories.push(child);
      } else {
        await this.make(child);
      }
      if (this.turns.due) await this.turns.take();
    }
    return directories.reverse();
  }

  private finish(fd: number, row: number): void {
    this.naming(noBytes, () =>
      this.attributes.set({ fd, name: noBytes, isPath: false }, row, () => this.pathOf(noBytes)),
    );
  }

  private async make(child: Child): Promise<void> {
    const { image, way, links } = this;
    const { name, row } = child;
    const linked = image.nlink(row) > 1;
    if (linked) {
      const known = this.naming(name, () => links.give(row, way.fd, name));
      if (known !== "new") {
        if (known === "skipped") this.losses.add("device", () => this.pathOf(name));
        else this.entries++;
        return;
      }
    }
    const type = image.mode(row) & S_IFMT;
    const path = (): string => this.pathOf(name);
    let made = true;
    if (type === S_IFREG) await this.file(child);
    else if (type === S_IFLNK) {
      this.naming(name, () => {
        check(symlinkAt(image.symlinkTarget(row), way.fd, name));
        this.attributes.set({ fd: way.fd, name, isPath: false }, row, path);
      });
    } else made = this.naming(name, () => this.special(child, type));
    if (made) this.entries++;
    if (linked) this.naming(name, () => links.take(row, way.fd, name, made));
  }

  /** A FIFO or a device; false when devices are not allowed here. */
  private special({ name, row }: Child, type: number): boolean {
    const result = mknodAt(this.way.fd, name, type | 0o600, this.image.rdev(row));
    const path = (): string => this.pathOf(name);
    if (result === -Errno.EPERM && type !== S_IFIFO) {
      this.losses.add("device", path);
      return false;
    }
    check(result);
    const fd = check(openAt(this.way.fd, name, O_PATH | O_NOFOLLOW));
    try {
      this.attributes.set({ fd, name: noBytes, isPath: true }, row, path);
    } finally {
      closeFd(fd);
    }
    return true;
  }

  private async file({ name, row }: Child): Promise<void> {
    const fd = this.naming(name, () =>
      check(openAt(this.way.fd, name, O_WRONLY | O_CREAT | O_EXCL | O_NOFOLLOW, 0o600)),
    );
    try {
      if (this.image.size(row) > 0) await this.data(fd, name, row);
      this.naming(name, () =>
        this.attributes.set({ fd, name: noBytes, isPath: false }, row, () => this.pathOf(name)),
      );
    } finally {
      closeFd(fd);
    }
  }

  private async data(fd: number, name: Buffer, row: number): Promise<void> {
    const { image } = this;
    const ranges: { from: number; at: number; to: number; length: number }[] = [];
    const inFiles = this.naming(name, () => {
      const whole = image.dataRanges(row, (from, at, to, length) => ranges.push({ from, at, to, length }));
      const end = ranges.reduce((last, { to, length }) => Math.max(last, to + length), 0);
      if (!whole || end < image.size(row)) check(truncateFd(fd, image.size(row)));
      return whole;
    });
    if (!inFiles) return this.decoded(fd, name, row);
    for (const { from, at, to, length } of ranges) {
      for (let done = 0; done < length; ) {
        const part = Math.min(copyChunk, length - done);
        this.naming(name, () => copyBytes(from, at + done, fd, to + done, part));
        done += part;
        this.bytes += part;
        if (this.turns.due) await this.turns.take();
      }
    }
  }

  /** Data that does not lie in a file as it is. */
  private async decoded(fd: number, name: Buffer, row: number): Promise<void> {
    const { image } = this;
    this.buffer ??= allocatePages(bufferSize);
    const { address, bytes } = this.buffer;
    const size = image.size(row);
    for (let at = 0; at < size; ) {
      const data = image.seek(row, at, SEEK_DATA);
      if (data === -Errno.ENXIO) return;
      this.naming(name, () => check(data));
      const end = image.seek(row, data, SEEK_HOLE);
      for (at = data; at < end; ) {
        at += this.naming(name, () => {
          const got = check(
            image.read(row, at, { address, bytes, start: 0 }, Math.min(bufferSize, end - at)),
          );
          for (let done = 0; done < got; ) done += check(pwrite(fd, address + done, got - done, at + done));
          this.bytes += got;
          return got;
        });
        if (this.turns.due) await this.turns.take();
      }
    }
  }

  /** Runs `work`; what it throws gets the path in front. */
  private naming<T>(name: Buffer, work: () => T): T {
    try {
      return work();
    } catch (cause) {
      throw at(this.pathOf(name), cause);
    }
  }

  /** For messages: the path of a name in the directory we are in, from where the extraction began. */
  private pathOf(name: Buffer): string {
    const parts = [...this.levels.map((level) => level.name), name].filter((part) => part.length > 0);
    return parts.length === 0
      ? "/"
      : displayName(Buffer.concat(parts.flatMap((part, i) => (i === 0 ? [part] : [slash, part]))));
  }
}

const noBytes = Buffer.alloc(0);
const slash = Buffer.from("/");
