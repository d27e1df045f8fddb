// Paths to nodeids. libfuse 2 names every object by its path and never says that it has forgotten one, so this side
// keeps what it has looked up, walks from there, and forgets by itself.
// Invariants: the filesystem has counted exactly `lookups` lookups of a nodeid here, and gets them back in one forget
// when no path, no open file and no alias refers to it; a path in the table is what a walk would find.
// Names come as text decoded from UTF-8: one that was not UTF-8 holds U+FFFD and names nobody knows which object.
import { LRUCache } from "lru-cache";
import { Errno } from "../../base/errno.js";
import {
  type Entry,
  emptyEntry,
  type FileSystem,
  type NameView,
  type Request,
  type Status,
} from "../operations.js";
import { isDirectoryMode } from "./attributes.js";

export const ROOT = 1;
/** Paths kept. A path in use is among the most recent, so no operation loses one under its hands. */
const PATH_LIMIT = 65_536;
const NAME_MAX = 255;
/** What a byte that is no UTF-8 has become. */
const REPLACEMENT = "\ufffd";
/** libfuse renames an open file to such a name in place of removing it (hidden_name in its fuse.c). */
const HIDDEN = /\/\.fuse_hidden[0-9a-f]{16,}$/;

interface Node {
  lookups: number;
  /** Paths, aliases and open files. */
  references: number;
  opens: number;
  directory: boolean;
}

/** Whether text has come through the addon as it was. */
export function isFaithful(text: string): boolean {
  return !text.includes(REPLACEMENT);
}

export class PathTable {
  private readonly fs: FileSystem;
  private readonly request: Request;
  private readonly nodes = new Map<number, Node>();
  private readonly paths: LRUCache<string, number>;
  /** Removed files that libfuse still calls by the name it thinks to have given them. */
  private readonly aliases = new Map<string, number>();
  private readonly name: NameView = { bytes: Buffer.alloc(0), start: 0, end: 0 };
  /** Reply of the last lookup, that of nodeid {@link fresh} when this is not 0. */
  readonly entry: Entry = emptyEntry();
  fresh = 0;

  /** `request` is the one in the filesystem's hands: its nodeid is set here. */
  constructor(fs: FileSystem, request: Request, limit: number = PATH_LIMIT) {
    this.fs = fs;
    this.request = request;
    this.paths = new LRUCache({ max: limit, dispose: (nodeid) => this.drop(nodeid) });
  }

  /** Paths and nodeids held, for tests. */
  get sizes(): { readonly paths: number; readonly nodes: number; readonly aliases: number } {
    return { paths: this.paths.size, nodes: this.nodes.size, aliases: this.aliases.size };
  }

  /** The nodeid at a path, or a status to answer with. Sets the request's nodeid to it. */
  resolve(path: string): number {
    this.fresh = 0;
    const found = this.find(path);
    if (found > 0) this.request.nodeid = found;
    return found;
  }

  /** The name at the end of a path, in the directory that the request's nodeid is set to. A status to fail with. */
  parent(path: string): NameView | Status {
    const slash = path.lastIndexOf("/");
    const directory = slash <= 0 ? ROOT : this.resolve(path.slice(0, slash));
    if (directory < 0) return directory;
    const name = viewOf(path.slice(slash + 1));
    if (typeof name !== "number") this.request.nodeid = directory;
    return name;
  }

  /** The filesystem has answered with this entry for a path: one lookup is ours. */
  learn(path: string, entry: Entry): void {
    const { nodeid } = entry;
    if (nodeid === ROOT) return;
    const node = this.nodeOf(nodeid, isDirectoryMode(entry.attr.mode));
    node.lookups++;
    if (this.paths.peek(path) === nodeid) return;
    node.references++;
    this.paths.set(path, nodeid);
  }

  /** Nothing is at a path any more. */
  gone(path: string): void {
    this.paths.delete(path);
  }

  /** What was at `from` is at `to`, with everything below. */
  moved(from: string, to: string): void {
    const nodeid = this.paths.peek(from);
    // Unless it is known to be a file: what is below has another path.
    if (nodeid === undefined || this.nodes.get(nodeid)?.directory === true)
      this.moveBelow(`${from}/`, `${to}/`);
    this.paths.delete(to);
    if (nodeid === undefined) return;
    (this.nodes.get(nodeid) as Node).references++;
    this.paths.set(to, nodeid);
    this.paths.delete(from);
  }

  /** Whether a rename is libfuse's way to remove a file that is open. */
  isHiding(from: string, to: string): boolean {
    const folder = from.slice(0, from.lastIndexOf("/") + 1);
    if (!HIDDEN.test(to) || !to.startsWith(folder) || to.indexOf("/", folder.length) >= 0) return false;
    const nodeid = this.aliases.get(from) ?? this.paths.get(from);
    return nodeid !== undefined && (this.nodes.get(nodeid)?.opens ?? 0) > 0;
  }

  /** Keeps a nodeid that has lost its name under the one libfuse uses now. */
  alias(nodeid: number, path: string): void {
    this.hold(nodeid);
    this.aliases.set(path, nodeid);
  }

  isAlias(path: string): boolean {
    return this.aliases.size > 0 && this.aliases.has(path);
  }

  /** Ends an alias. False when there is none of that path. */
  dropAlias(path: string): boolean {
    const nodeid = this.aliases.get(path);
    if (nodeid === undefined) return false;
    this.aliases.delete(path);
    this.drop(nodeid);
    return true;
  }

  /** An open file of a nodeid that a path has just been resolved to. */
  opened(nodeid: number): void {
    if (nodeid === ROOT) return;
    this.hold(nodeid);
    (this.nodes.get(nodeid) as Node).opens++;
  }

  closed(nodeid: number): void {
    const node = this.nodes.get(nodeid);
    if (node === undefined) return;
    node.opens--;
    this.drop(nodeid);
  }

  private find(path: string): number {
    if (path === "/") return ROOT;
    const known = this.paths.get(path) ?? this.aliases.get(path);
    if (known !== undefined) return known;
    const slash = path.lastIndexOf("/");
    const directory = slash <= 0 ? ROOT : this.find(path.slice(0, slash));
    if (directory < 0) return directory;
    const name = viewOf(path.slice(slash + 1), this.name);
    if (typeof name === "number") return name;
    this.request.nodeid = directory;
    this.entry.nodeid = 0;
    const status = this.fs.lookup(this.request, name, this.entry);
    if (status < 0) return status;
    if (this.entry.nodeid === 0) return -Errno.ENOENT;
    this.learn(path, this.entry);
    this.fresh = this.entry.nodeid;
    return this.fresh;
  }

  private moveBelow(from: string, to: string): void {
    for (const path of [...this.paths.keys()]) if (path.startsWith(from)) this.paths.delete(path);
    for (const [path, nodeid] of [...this.aliases]) {
      if (!path.startsWith(from)) continue;
      this.aliases.delete(path);
      this.aliases.set(to + path.slice(from.length), nodeid);
    }
  }

  private nodeOf(nodeid: number, directory: boolean): Node {
    let node = this.nodes.get(nodeid);
    if (node === undefined) {
      node = { lookups: 0, references: 0, opens: 0, directory };
      this.nodes.set(nodeid, node);
    }
    return node;
  }

  private hold(nodeid: number): void {
    const node = this.nodes.get(nodeid);
    if (node !== undefined) node.references++;
  }

  private drop(nodeid: number): void {
    const node = this.nodes.get(nodeid);
    if (node === undefined) return;
    node.references--;
    if (node.references > 0) return;
    this.nodes.delete(nodeid);
    this.fs.forget(nodeid, node.lookups);
  }
}

/** The bytes of a name, in `view` or in a new one; a status for a name that cannot be. */
export function viewOf(
  name: string,
  view: NameView = { bytes: Buffer.alloc(0), start: 0, end: 0 },
): NameView | Status {
  if (!isFaithful(name)) return -Errno.EILSEQ;
  const bytes = Buffer.from(name);
  if (bytes.length > NAME_MAX) return -Errno.ENAMETOOLONG;
  view.bytes = bytes;
  view.start = 0;
  view.end = bytes.length;
  return view;
}
