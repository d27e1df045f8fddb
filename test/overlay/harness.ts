// A mount without a kernel: calls the overlay's operations by path, as the kernel would for a program, keeping the
// lookups it would count. Failures are FsErrors, as names: `expect(code(() => fs.unlink("a"))).toBe("ENOENT")`.
import { mkdtempSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { afterAll, afterEach } from "vitest";
import { nameOf } from "../../src/base/bytes.js";
import { errnoName, FsError } from "../../src/base/errno.js";
import { nullLogger } from "../../src/base/log.js";
import {
  type Attr,
  type DataIn,
  type DataOut,
  type DirectorySink,
  type Entry,
  emptyAttr,
  emptyEntry,
  emptySetAttr,
  type FileSystem,
  type NameView,
  type Request,
  type Services,
  type SetAttr,
  type StatfsReply,
} from "../../src/fuse/operations.js";
import { Image } from "../../src/imgfs/image.js";
import type { DirectoryInode } from "../../src/imgfs/tree.js";
import { createOverlay, type OverlayOptions } from "../../src/overlay/overlay.js";
import { allocatePages } from "../../src/sys/memory.js";
import { writeLayer } from "../imgfs/support.js";

export const base = mkdtempSync(join(tmpdir(), "imgfs-overlay-"));
afterAll(() => rmSync(base, { recursive: true, force: true }));

const live = new Set<Mounted>();
afterEach(() => {
  for (const mounted of live) mounted.close();
});

let counter = 0;
/** A path under the test's directory that does not exist. */
export function fresh(name = "upper"): string {
  return join(base, `${name}${counter++}`);
}

/** A layer blob of a tree. */
export function imageOf(root: DirectoryInode): string {
  return writeLayer(root).path;
}

export type Path = string | Buffer;

export interface Listed {
  name: string;
  type: number;
  ino: number;
  next: number;
}

const memory = allocatePages(4 << 20);

export function check(status: number): number {
  if (status < 0) throw new FsError(-status);
  return status;
}

/** The errno's name of a failing call, "ok" for one that does not fail. */
export function code(call: () => unknown): string {
  try {
    call();
    return "ok";
  } catch (cause) {
    if (cause instanceof FsError) return errnoName(cause.errno);
    throw cause;
  }
}

export class Mounted {
  readonly fs: FileSystem;
  uid = 0;
  gid = 0;
  umask = 0o022;
  pid = process.pid;
  private open = true;

  constructor(fs: FileSystem) {
    this.fs = fs;
    live.add(this);
  }

  close(): void {
    if (!this.open) return;
    this.open = false;
    live.delete(this);
    this.fs.destroy?.();
  }

  q(nodeid: number): Request {
    return { unique: 1, nodeid, uid: this.uid, gid: this.gid, pid: this.pid };
  }

  view(name: Path): NameView {
    const bytes = Buffer.concat([Buffer.from("<"), Buffer.from(name), Buffer.from(">")]);
    return { bytes, start: 1, end: bytes.length - 1 };
  }

  /** Looks one name up, counting it; nodeid 0 when absent. */
  lookup(parent: number, name: Path): Entry {
    const entry = emptyEntry();
    check(this.fs.lookup(this.q(parent), this.view(name), entry));
    return entry;
  }

  split(path: Path): { parent: number; name: Buffer } {
    const parts = nameOf(Buffer.from(path))
      .split("/")
      .filter((part) => part !== "");
    let parent = 1;
    for (const part of parts.slice(0, -1)) parent = this.id(parent, Buffer.from(part, "latin1"));
    return { parent, name: Buffer.from(parts.at(-1) ?? "", "latin1") };
  }

  id(parent: number, name: Buffer): number {
    const { nodeid } = this.lookup(parent, name);
    if (nodeid === 0) throw new FsError(2);
    return nodeid;
  }

  nodeid(path: Path): number {
    const { parent, name } = this.split(path);
    return name.length === 0 ? 1 : this.id(parent, name);
  }

  /** Paths, and nodeids of what has none any more. */
  idOf(path: Path | number): number {
    return typeof path === "number" ? path : this.nodeid(path);
  }

  stat(path: Path): Attr {
    return this.getattr(this.nodeid(path));
  }

  getattr(nodeid: number): Attr {
    const reply = { attrTimeout: 0, attr: emptyAttr() };
    check(this.fs.getattr(this.q(nodeid), reply));
    return reply.attr;
  }

  exists(path: Path): boolean {
    return code(() => this.nodeid(path)) === "ok";
  }

  /** Names and the rest, read `batch` entries at a time, `between` run after each batch. */
  list(nodeid: number, options: { plus?: boolean; batch?: number; between?: () => void } = {}): Listed[] {
    const all: Listed[] = [];
    let offset = 0;
    for (;;) {
      const part = this.listFrom(nodeid, offset, options.batch ?? 1000, options.plus ?? false);
      if (part.length === 0) return all;
      all.push(...part);
      offset = part.at(-1)!.next;
      options.between?.();
    }
  }

  listFrom(nodeid: number, offset: number, limit: number, plus = false): Listed[] {
    const part: Listed[] = [];
    const sink: DirectorySink = {
      plus,
      entry: emptyEntry(),
      add: (bytes, start, end, type, ino, next) => {
        if (part.length === limit) return false;
        part.push({ name: nameOf(bytes, start, end), type, ino, next });
        // As transports do: the next entry starts from nothing.
        sink.entry.nodeid = 0;
        return true;
      },
    };
    check(this.fs.readdir!(this.q(nodeid), 0, offset, sink));
    return part;
  }

  /** Sorted names of a directory, without dots. */
  names(path: Path, plus = false): string[] {
    return this.list(this.nodeid(path), { plus })
      .map(({ name }) => name)
      .filter((name) => name !== "." && name !== "..")
      .sort();
  }

  openId(nodeid: number, flags: number, kill = false): number {
    if (this.fs.open === undefined) return 0;
    const out = { fh: 0, openFlags: 0 };
    check(this.fs.open(this.q(nodeid), flags, kill, out));
    return out.fh;
  }

  readId(nodeid: number, fh: number, offset = 0, length = 1 << 20): Buffer {
    const out = this.dataOut(length);
    check(this.fs.read!(this.q(nodeid), fh, offset, out));
    return Buffer.from(memory.bytes.subarray(0, out.length));
  }

  writeId(nodeid: number, fh: number, data: string | Buffer, offset = 0, kill = false): number {
    return check(this.fs.write!(this.q(nodeid), fh, offset, this.dataIn(data), false, kill));
  }

  releaseId(nodeid: number, fh: number): void {
    check(this.fs.release?.(this.q(nodeid), fh) ?? 0);
  }

  read(path: Path): string {
    const nodeid = this.nodeid(path);
    const fh = this.openId(nodeid, 0);
    const data = this.readId(nodeid, fh);
    this.releaseId(nodeid, fh);
    return data.toString("latin1");
  }

  /** Opens, with O_TRUNC unless told otherwise, and writes. */
  write(path: Path, data: string | Buffer, flags = 0o1001, offset = 0): void {
    const { parent, name } = this.split(path);
    const { nodeid } = this.lookup(parent, name);
    if (nodeid === 0) {
      const made = this.create(path);
      this.writeId(made.nodeid, made.fh, data, offset);
      this.releaseId(made.nodeid, made.fh);
      return;
    }
    const fh = this.openId(nodeid, flags);
    this.writeId(nodeid, fh, data, offset);
    this.releaseId(nodeid, fh);
  }

  create(path: Path, mode = 0o644, flags = 0o302): { nodeid: number; fh: number; attr: Attr } {
    const { parent, name } = this.split(path);
    const entry = emptyEntry();
    const open = { fh: 0, openFlags: 0 };
    check(this.fs.create!(this.q(parent), this.view(name), flags, mode | 0o100000, this.umask, entry, open));
    return { nodeid: entry.nodeid, fh: open.fh, attr: entry.attr };
  }

  mkdir(path: Path, mode = 0o755): Entry {
    const { parent, name } = this.split(path);
    const entry = emptyEntry();
    check(this.fs.mkdir!(this.q(parent), this.view(name), mode, this.umask, entry));
    return entry;
  }

  mknod(path: Path, mode: number, rdev = 0): Entry {
    const { parent, name } = this.split(path);
    const entry = emptyEntry();
    check(this.fs.mknod!(this.q(parent), this.view(name), mode, rdev, this.umask, entry));
    return entry;
  }

  symlink(target: Path, path: Path): Entry {
    const { parent, name } = this.split(path);
    const entry = emptyEntry();
    check(this.fs.symlink!(this.q(parent), this.view(name), this.view(target), entry));
    return entry;
  }

  link(from: Path, path: Path): Entry {
    const nodeid = this.nodeid(from);
    const { parent, name } = this.split(path);
    const entry = emptyEntry();
    check(this.fs.link!(this.q(parent), nodeid, this.view(name), entry));
    return entry;
  }

  unlink(path: Path): void {
    const { parent, name } = this.split(path);
    if (this.lookup(parent, name).nodeid === 0) throw new FsError(2);
    check(this.fs.unlink!(this.q(parent), this.view(name)));
  }

  rmdir(path: Path): void {
    const { parent, name } = this.split(path);
    check(this.fs.rmdir!(this.q(parent), this.view(name)));
  }

  rename(from: Path, to: Path, flags = 0): void {
    const a = this.split(from);
    const b = this.split(to);
    this.lookup(a.parent, a.name);
    this.lookup(b.parent, b.name);
    check(this.fs.rename!(this.q(a.parent), this.view(a.name), b.parent, this.view(b.name), flags));
  }

  setattr(path: Path | number, change: Partial<SetAttr>): Attr {
    const nodeid = this.idOf(path);
    const reply = { attrTimeout: 0, attr: emptyAttr() };
    check(this.fs.setattr!(this.q(nodeid), { ...emptySetAttr(), ...change }, reply));
    return reply.attr;
  }

  readlink(path: Path): string {
    const out = this.dataOut(4096);
    check(this.fs.readlink!(this.q(this.nodeid(path)), out));
    return Buffer.from(memory.bytes.subarray(0, out.length)).toString("latin1");
  }

  getxattr(path: Path | number, name: string, capacity = 65536): string {
    const out = this.dataOut(capacity);
    check(this.fs.getxattr!(this.q(this.idOf(path)), this.view(name), out));
    return Buffer.from(memory.bytes.subarray(0, capacity === 0 ? 0 : out.length)).toString("latin1");
  }

  listxattr(path: Path | number): string[] {
    const out = this.dataOut(65536);
    check(this.fs.listxattr!(this.q(this.idOf(path)), out));
    return Buffer.from(memory.bytes.subarray(0, out.length))
      .toString("latin1")
      .split("\0")
      .slice(0, -1)
      .sort();
  }

  setxattr(path: Path | number, name: string, value: string | Buffer, flags = 0): void {
    check(this.fs.setxattr!(this.q(this.idOf(path)), this.view(name), this.dataIn(value), flags, false));
  }

  removexattr(path: Path | number, name: string): void {
    check(this.fs.removexattr!(this.q(this.idOf(path)), this.view(name)));
  }

  statfs(): StatfsReply {
    const out = { blocks: 0, bfree: 0, bavail: 0, files: 0, ffree: 0, bsize: 0, namelen: 0, frsize: 0 };
    check(this.fs.statfs!(this.q(1), out));
    return out;
  }

  forget(nodeid: number, count = 1): void {
    this.fs.forget(nodeid, count);
  }

  private dataOut(capacity: number): DataOut {
    memory.bytes.fill(0xee, 0, Math.min(memory.length, capacity + 16));
    return { address: memory.address, bytes: memory.bytes, start: 0, capacity, length: -1 };
  }

  private dataIn(data: string | Buffer): DataIn {
    const bytes = Buffer.from(data as string, "latin1");
    memory.bytes.set(bytes);
    return { address: memory.address, bytes: memory.bytes, start: 0, length: bytes.length };
  }
}

/** Mounts a layer blob, writable when an upper directory is given. */
export function mount(
  image: string,
  upper?: string,
  options: Partial<OverlayOptions> & { services?: Services } = {},
): Mounted {
  const { services, ...rest } = options;
  const opened = Image.open(image);
  let fs: FileSystem;
  try {
    fs = createOverlay({
      image: opened,
      upper,
      devices: false,
      log: nullLogger,
      daemonPid: process.pid,
      ...rest,
    });
  } catch (cause) {
    opened.close();
    throw cause;
  }
  if (services !== undefined) fs.init?.({ protocolMinor: 41, flags: 0n, maxWrite: 1 << 20 }, services);
  return new Mounted(fs);
}

/** The same upper mounted anew. */
export function remount(fs: Mounted, image: string, upper: string): Mounted {
  fs.close();
  return mount(image, upper);
}
