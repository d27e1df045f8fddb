// The tree of one layer, grown entry by entry in tar order, as if the layer were unpacked onto the ones below:
// a later entry wins, a directory keeps its children when it is described again, anything else that takes the place of
// a directory drops them. Whiteouts and opaque markers act on lower layers only, wherever they stand in the tar
// (image-spec, layer.md#whiteouts); only the last component of a name is ever a marker.
// With a base directory that is where the layer is unpacked: it is the root of the paths of entries, whiteouts and hard link
// targets, and what leads there is left to the layers below.
// Invariant: entries are placed by their literal path. None is followed through a symlink, here or on the host.
import { displayName, type Name } from "../base/bytes.js";
import {
  type DirectoryInode,
  type FileInode,
  InodeType,
  type LayerEntry,
  type LayerInode,
  type LowerLink,
  type Xattr,
} from "../imgfs/tree.js";
import { components, joined, maxPath, whiteoutPrefix } from "./path.js";
import type { TarMember } from "./tar/member.js";
import { literalKey } from "./tar/pax.js";

/** AUFS's own files begin so; of them only the opaque marker means something. */
const metadataPrefix = ".wh..wh.";
const opaqueMarker = ".wh..wh..opq";

/** Symlinks a hard link's target may pass. */
const maxHops = 40;

const noXattrs: readonly Xattr[] = [];

/** What an entry says of its inode. */
type Metadata = Pick<FileInode, "mode" | "uid" | "gid" | "mtimeSec" | "mtimeNsec" | "xattrs">;

interface Found {
  readonly entry: LayerEntry | undefined;
  /** From the root. */
  readonly path: Buffer;
  readonly removed: boolean;
}

interface PendingLink {
  readonly directory: DirectoryInode;
  readonly name: Name;
  readonly link: LowerLink;
}

export class LayerTree {
  /** Not explicit until the tar describes it: lower layers then say what the root is like. */
  readonly root: DirectoryInode = implicitDirectory();
  private readonly literal: boolean;
  /** Components of the base directory; none where it is the root. */
  private readonly base: readonly Name[];
  private readonly pending: PendingLink[] = [];
  /** Files under AUFS's `.wh..wh.plnk`: not part of the tree, but hard links name them. */
  private readonly hidden = new Map<string, LayerInode>();

  /** `literal`: members may say that their names are no markers. `base`: where entries are placed, the root unless given. */
  constructor({
    literal = false,
    base = [],
  }: { readonly literal?: boolean; readonly base?: readonly Name[] } = {}) {
    this.literal = literal;
    this.base = base;
    // It is there also when the layer is empty: merging checks that the layers below have it.
    this.parent(base);
  }

  /**
   * Adds one entry. For a file whose body is wanted, the inode is returned and the caller sets its content when the
   * body has been stored; undefined for everything else. Throws an Error that says what is wrong with the entry.
   */
  add(member: TarMember): FileInode | undefined {
    const own = components(member.path);
    const name = own.pop();
    if (name === undefined) {
      if (member.type !== "directory") throw new Error(`a ${member.type} cannot be the root`);
      describe(this.parent(this.base), metadataOf(member));
      return undefined;
    }
    const parts = this.base.length === 0 ? own : components(joined([...this.base, ...own]));
    if (member.literal) {
      if (!this.literal) throw new Error(`pax ${literalKey} is not for layers of an image`);
      return this.place(member, parts, name);
    }
    if (name === opaqueMarker && !own.some(isMetadata)) {
      this.parent(parts).opaque = true;
      return undefined;
    }
    if (isMetadata(name) || own.some(isMetadata)) return this.addHidden(member, [...parts, name]);
    if (name.startsWith(whiteoutPrefix)) {
      this.addWhiteout(this.parent(parts), name.slice(whiteoutPrefix.length) as Name);
      return undefined;
    }
    return this.place(member, parts, name);
  }

  /** Ends the layer: hard links whose target came after them find it. */
  finish(): DirectoryInode {
    for (const { directory, name, link } of this.pending) {
      if (directory.entries.get(name) !== link) continue;
      let { entry } = this.findAt(link.target);
      for (let hops = 0; entry?.type === "link" && hops < maxHops; hops++)
        ({ entry } = this.findAt(entry.target));
      if (entry === undefined || entry.type === "link" || entry.type === "whiteout") continue;
      if (entry.type === InodeType.directory) {
        throw new Error(`entry ${displayName(name)}: ${linkFault(link.target, "is a directory")}`);
      }
      directory.entries.set(name, entry);
    }
    return this.root;
  }

  private place(member: TarMember, parts: readonly Name[], name: Name): FileInode | undefined {
    const directory = this.parent(parts);
    const { entries } = directory;
    const before = entries.get(name);
    if (member.type === "directory") {
      if (before?.type === InodeType.directory) {
        describe(before, metadataOf(member));
        return undefined;
      }
      const inode = implicitDirectory();
      describe(inode, metadataOf(member));
      // What stood here, or its whiteout, hides a lower directory of this name; the new one must go on hiding it.
      inode.opaque = before !== undefined;
      entries.set(name, inode);
      return undefined;
    }
    const entry = member.type === "link" ? this.link(member, directory, name) : inodeOf(member);
    entries.set(name, entry);
    return entry.type === InodeType.file && member.type === "file" ? entry : undefined;
  }

  /**
   * A hard link. To an inode of this layer it is one more name, and the link's header sets the inode's owner, mode,
   * time and attributes, as unpacking it would; an inode of a lower layer keeps what it has. A target that this layer
   * has removed or replaced before is an error; one that is not here is left to the layers below, or to finish().
   */
  private link(member: TarMember, directory: DirectoryInode, name: Name): LayerEntry {
    const { entry, path, removed } = this.find(member.target);
    if (removed) throw new Error(linkFault(member.target, "is removed by this layer"));
    if (entry === undefined || entry.type === "link" || entry.type === "whiteout") {
      const link: LowerLink = entry?.type === "link" ? entry : { type: "link", target: path };
      this.pending.push({ directory, name, link });
      return link;
    }
    if (entry.type === InodeType.directory) throw new Error(linkFault(member.target, "is a directory"));
    const { xattrs, ...rest } = metadataOf(member);
    Object.assign(entry, rest);
    if (xattrs.length > 0) {
      entry.xattrs = [...new Map([...entry.xattrs, ...xattrs].map((xattr) => [xattr.name, xattr])).values()];
    }
    return entry;
  }

  /**
   * Looks a hard link's target up in this layer, through the symlinks the layer has, never out of the root. `path` is
   * what to look for in lower layers; `removed` says that they cannot have it.
   */
  private find(target: Buffer): Found {
    return this.findAt(joined([...this.base, ...components(target)]));
  }

  /** The same by the path from the root. */
  private findAt(target: Buffer): Found {
    let parts = components(target);
    const aside = this.hidden.get(parts.join("/"));
    if (aside !== undefined) return { entry: aside, path: joined(parts), removed: false };
    for (let hops = 0; hops <= maxHops; hops++) {
      let at: LayerEntry | undefined = this.root;
      let i = 0;
      let removed = false;
      for (; i < parts.length && at?.type === InodeType.directory; i++) {
        removed ||= at.opaque;
        at = at.entries.get(parts[i] as Name);
      }
      const path = joined(parts);
      if (i === parts.length && at?.type !== "whiteout") {
        return { entry: at, path, removed: at === undefined && removed };
      }
      if (at?.type !== InodeType.symlink)
        return { entry: undefined, path, removed: removed || at !== undefined };
      const onward = Buffer.concat([at.target, slash, joined(parts.slice(i))]);
      const from = at.target[0] === 0x2f ? noBytes : joined(parts.slice(0, i - 1));
      parts = components(Buffer.concat([from, slash, onward]));
    }
    throw new Error(linkFault(target, "passes too many symlinks"));
  }

  private addHidden(member: TarMember, parts: readonly Name[]): FileInode | undefined {
    if (member.type === "directory" || member.type === "link") return undefined;
    const inode = inodeOf(member);
    this.hidden.set(parts.join("/"), inode);
    return inode.type === InodeType.file ? inode : undefined;
  }

  private addWhiteout(directory: DirectoryInode, name: Name): void {
    if (name === "" || name === "." || name === "..") {
      throw new Error(`invalid whiteout of ${name === "" ? "an empty name" : displayName(name)}`);
    }
    const before = directory.entries.get(name);
    if (before === undefined) {
      directory.entries.set(name, { type: "whiteout" });
    } else if (before.type === InodeType.directory) {
      // The directory below goes with all it says of itself; the one of this layer stays.
      before.opaque = true;
      before.explicit = true;
    }
  }

  /** The directory at `parts`, made where the layer does not have it yet. */
  private parent(parts: readonly Name[]): DirectoryInode {
    let at = this.root;
    for (let i = 0; i < parts.length; i++) {
      const name = parts[i] as Name;
      const next = at.entries.get(name);
      if (next?.type === InodeType.directory) {
        at = next;
        continue;
      }
      if (next !== undefined && next.type !== "whiteout") {
        const what = next.type === InodeType.symlink ? "a symlink" : "not a directory";
        throw new Error(`its parent ${displayName(joined(parts.slice(0, i + 1)))} is ${what}`);
      }
      const made = implicitDirectory();
      if (next !== undefined) {
        made.opaque = true;
        made.explicit = true;
      }
      at.entries.set(name, made);
      at = made;
    }
    return at;
  }
}

const slash = Buffer.from("/");
const noBytes = Buffer.alloc(0);

function isMetadata(name: Name): boolean {
  return name.startsWith(metadataPrefix);
}

function linkFault(target: Uint8Array, what: string): string {
  return `hard link target ${displayName(target)} ${what}`;
}

/** A directory no entry describes. */
function implicitDirectory(): DirectoryInode {
  return {
    type: InodeType.directory,
    mode: 0o755,
    uid: 0,
    gid: 0,
    mtimeSec: 0,
    mtimeNsec: 0,
    xattrs: noXattrs,
    entries: new Map(),
    opaque: false,
    explicit: false,
  };
}

function describe(inode: DirectoryInode, metadata: Metadata): void {
  Object.assign(inode, metadata);
  inode.explicit = true;
}

function metadataOf(member: TarMember): Metadata {
  const { mode, uid, gid, mtimeSec, mtimeNsec, xattrs } = member;
  return {
    mode: mode & 0o7777,
    uid: ownerId("uid", uid),
    gid: ownerId("gid", gid),
    mtimeSec,
    mtimeNsec,
    xattrs,
  };
}

/** Linux's ids; the highest one means "no change" to chown and is nobody's. */
function ownerId(field: string, id: number): number {
  if (id < 0 || id >= 0xffff_ffff) throw new Error(`${field} ${id} is out of range`);
  return id;
}

/** Literals with every field spelled out: V8 keeps those in half the memory of spread ones, and there are many. */
function inodeOf(member: TarMember): LayerInode {
  const { mode, uid, gid, mtimeSec, mtimeNsec, xattrs } = metadataOf(member);
  switch (member.type) {
    case "file":
      return { type: InodeType.file, mode, uid, gid, mtimeSec, mtimeNsec, xattrs, content: undefined };
    case "symlink": {
      const { target } = member;
      if (target.length === 0) throw new Error("symlink without a target");
      if (target.length > maxPath)
        throw new Error(`symlink target of ${target.length} bytes, at most ${maxPath}`);
      return {
        type: InodeType.symlink,
        mode,
        uid,
        gid,
        mtimeSec,
        mtimeNsec,
        xattrs,
        target: Buffer.from(target),
      };
    }
    case "fifo":
      return { type: InodeType.fifo, mode, uid, gid, mtimeSec, mtimeNsec, xattrs, rdev: 0 };
    case "char":
    case "block":
      return {
        type: InodeType[member.type],
        mode,
        uid,
        gid,
        mtimeSec,
        mtimeNsec,
        xattrs,
        rdev: deviceNumber(member),
      };
    default:
      throw new Error(`a ${member.type} is no inode`);
  }
}

/** The kernel's 32-bit encoding: 12 bits of major between the low 8 and high 12 of minor. */
function deviceNumber({ devMajor, devMinor }: TarMember): number {
  if (devMajor < 0 || devMajor > 0xfff || devMinor < 0 || devMinor > 0xfffff) {
    throw new Error(`device ${devMajor}:${devMinor} is out of range`);
  }
  return ((devMinor & 0xff) | (devMajor << 8) | ((devMinor & ~0xff) << 12)) >>> 0;
}
