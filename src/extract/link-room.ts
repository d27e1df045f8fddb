// Hard links without paths.
import { randomBytes } from "node:crypto";
import {
  AT_REMOVEDIR,
  closeFd,
  linkAt,
  mkdirAt,
  O_DIRECTORY,
  O_NOFOLLOW,
  O_RDONLY,
  openAt,
  unlinkAt,
} from "../sys/files.js";
import { emptyDirectory } from "../sys/remove.js";
import { privateMode } from "./destination.js";
import { check } from "./failure.js";

/**
 * Where objects with several names wait for the next one: a directory in the destination, gone at the end. Its names
 * are row numbers, so that no path has to be kept or resolved.
 */
export class LinkRoom {
  private readonly top: number;
  private readonly rows = new Map<number, boolean>();
  private name: Buffer | undefined;
  private fd = -1;

  constructor(top: number) {
    this.top = top;
  }

  /** Gives an object that is there already the name `name` as well; "new" when it is not. Throws FsError. */
  give(row: number, directory: number, name: Buffer): "linked" | "skipped" | "new" {
    const made = this.rows.get(row);
    if (made === undefined) return "new";
    if (!made) return "skipped";
    check(linkAt(this.fd, Buffer.from(String(row)), directory, name));
    return "linked";
  }

  /** Keeps an object that now has its first name; `made` false when it could not be made at all. Throws FsError. */
  take(row: number, directory: number, name: Buffer, made: boolean): void {
    this.rows.set(row, made);
    if (!made) return;
    if (this.fd < 0) this.open();
    check(linkAt(directory, name, this.fd, Buffer.from(String(row))));
  }

  /** Throws FsError. */
  remove(): void {
    if (this.name === undefined) return;
    check(emptyDirectory(this.fd));
    check(unlinkAt(this.top, this.name, AT_REMOVEDIR));
    this.name = undefined;
  }

  close(): void {
    if (this.fd >= 0) closeFd(this.fd);
    this.fd = -1;
  }

  private open(): void {
    // Not to be foreseen: an image that has the name itself would stand in its own way.
    const name = Buffer.from(`.imgfs-links-${randomBytes(8).toString("hex")}`);
    check(mkdirAt(this.top, name, privateMode));
    this.name = name;
    this.fd = check(openAt(this.top, name, O_RDONLY | O_DIRECTORY | O_NOFOLLOW));
  }
}
