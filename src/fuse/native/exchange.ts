// One request of the addon in memory: the records handed to the filesystem, and what goes back to the addon. All are made
// once and filled anew for every request.
import { addressOf } from "../../sys/libc.js";
import { allocatePages } from "../../sys/memory.js";
import {
  type AttrReply,
  type DataIn,
  type DataOut,
  type Entry,
  emptyAttr,
  emptyEntry,
  emptySetAttr,
  type FileSystem,
  type Open,
  type Request,
  type SetAttr,
} from "../operations.js";
import { newStatfs, ShortInodes, STAT_WORDS } from "./attributes.js";
import { Handles } from "./handles.js";
import type { Listing } from "./listing.js";
import { PathTable } from "./paths.js";

/** The longest xattr value, and list of names (include/uapi/linux/limits.h). */
const XATTR_MAX = 65_536;

/** The records of one mount, made once and filled anew for every request. */
export class NativeExchange {
  readonly fs: FileSystem;
  readonly request: Request;
  readonly paths: PathTable;
  readonly handles: Handles = new Handles();
  readonly inodes: ShortInodes = new ShortInodes();
  readonly entry: Entry = emptyEntry();
  readonly attr: AttrReply = { attrTimeout: 0, attr: emptyAttr() };
  readonly open: Open = { fh: 0, openFlags: 0 };
  readonly set: SetAttr = emptySetAttr();
  readonly data: DataOut;
  readonly value: DataIn = { address: 0, bytes: Buffer.alloc(0), start: 0, length: 0 };

  // What goes to the addon.
  readonly stat: Uint32Array = new Uint32Array(STAT_WORDS);
  readonly statfs: Uint32Array = newStatfs();
  handle = 0;
  target = "";
  listing: Listing | undefined;

  private readonly staging = allocatePages(XATTR_MAX);

  constructor(fs: FileSystem) {
    this.fs = fs;
    this.request = {
      unique: 0,
      nodeid: 0,
      uid: process.geteuid?.() ?? 0,
      gid: process.getegid?.() ?? 0,
      pid: process.pid,
    };
    this.paths = new PathTable(fs, this.request);
    this.data = { ...this.staging, start: 0, capacity: 0, length: 0 };
  }

  /** The record for what the filesystem gives, in memory of this side. */
  stagedData(capacity: number): DataOut {
    const { data, staging } = this;
    data.address = staging.address;
    data.bytes = staging.bytes;
    data.start = 0;
    data.capacity = Math.min(capacity, XATTR_MAX);
    data.length = 0;
    return data;
  }

  /** The same, in the addon's own memory. */
  directData(buffer: Buffer): DataOut {
    const { data } = this;
    data.address = addressOf(buffer);
    data.bytes = buffer;
    data.start = 0;
    data.capacity = buffer.length;
    data.length = 0;
    return data;
  }

  /** The record for bytes that the filesystem takes, in the addon's memory. */
  directValue(buffer: Buffer): DataIn {
    const { value } = this;
    value.address = addressOf(buffer);
    value.bytes = buffer;
    value.start = 0;
    value.length = buffer.length;
    return value;
  }

  /** The same, copied: the addon gives no memory for an empty value. */
  stagedValue(buffer: Buffer): DataIn {
    const { value, staging } = this;
    staging.bytes.set(buffer.subarray(0, XATTR_MAX));
    value.address = staging.address;
    value.bytes = staging.bytes;
    value.start = 0;
    value.length = Math.min(buffer.length, XATTR_MAX);
    return value;
  }

  emptyEntry(): Entry {
    this.entry.nodeid = 0;
    return this.entry;
  }

  emptyOpen(): Open {
    this.open.fh = 0;
    this.open.openFlags = 0;
    return this.open;
  }

  /** Sets the request's nodeid to that of an open file, or of the path where none is open. */
  at(path: string, number: number): number {
    const handle = this.handles.get(number);
    if (handle === undefined) return this.paths.resolve(path);
    this.request.nodeid = handle.nodeid;
    this.paths.fresh = 0;
    return handle.nodeid;
  }

  fh(number: number): number {
    return this.handles.get(number)?.fh ?? 0;
  }
}
