// The canonical walk over a layer's tree, filling tables.
import type { Name } from "../base/bytes.js";
import { bytesOf, displayName } from "../base/bytes.js";
import type { StoredContent } from "./contents.js";
import * as L from "./layout.js";
import { isPath, nameHash, nameProblem } from "./names.js";
import { emptyFields, type InodeFields, TreeTables } from "./tables.js";
import { type DirectoryInode, InodeType, type LayerEntry, type LayerInode, type Xattr } from "./tree.js";
import { encodeXattrs } from "./xattrs.js";

export interface WalkedTree {
  readonly tables: TreeTables;
  /** Ids of the contents that the tree refers to, in the order the tables number them. */
  readonly order: readonly number[];
  /** Sum of file sizes, each inode once. */
  readonly logicalBytes: number;
}

interface SortedEntry {
  readonly name: Name;
  readonly hash: number;
  readonly entry: LayerEntry;
}

/** Metadata of a directory that no layer describes. */
export const implied = { mode: 0o755, uid: 0, gid: 0, mtimeSec: 0, mtimeNsec: 0, xattrs: [] } as const;

const scratch = Buffer.alloc(L.NAME_MAX);

/** Tables of the tree under `root`, contents left out. Throws an Error naming what no image can hold. */
export function tablesOfTree(root: DirectoryInode, stored: readonly StoredContent[]): WalkedTree {
  const tables = new TreeTables({
    entries: 1024,
    directories: 256,
    inodes: 1024,
    names: 16384,
    contents: 1024,
  });
  const order: number[] = [];
  const contentIds = new Int32Array(stored.length).fill(-1);
  const rows = new Map<LayerInode, number>();
  const xattrSets = new Map<readonly Xattr[], number>();
  let logicalBytes = 0;
  const fields = emptyFields();

  const common = (given: LayerInode): InodeFields => {
    checkInode(given);
    const inode = given.type === InodeType.directory && !given.explicit ? { ...given, ...implied } : given;
    let set = xattrSets.get(inode.xattrs);
    if (set === undefined) {
      set = tables.xattrSet(encodeXattrs(inode.xattrs));
      if (inode.xattrs.length > 0) xattrSets.set(inode.xattrs, set);
    }
    // Linux knows one mode of a symlink; what a tar header says of it is dropped, so that equal trees are equal bytes.
    fields.mode = inode.type | (inode.type === InodeType.symlink ? 0o777 : inode.mode);
    fields.owner = tables.ownerId(inode.uid, inode.gid);
    fields.xattrs = set;
    fields.size = 0;
    fields.mtimeSec = inode.mtimeSec;
    fields.mtimeNsec = inode.mtimeNsec;
    fields.data = 0;
    fields.aux = 0;
    return fields;
  };

  const addDirectory = (parent: number, selfEntry: number, directory: DirectoryInode): void => {
    if (rows.has(directory)) throw new Error("a directory has two names");
    const flags =
      (directory.opaque ? L.DIRECTORY_OPAQUE : 0) | (directory.explicit ? 0 : L.DIRECTORY_IMPLIED);
    rows.set(directory, tables.addDirectory(parent, selfEntry, flags, common(directory)));
  };

  const addInode = (inode: Exclude<LayerInode, DirectoryInode>): number => {
    const known = rows.get(inode);
    if (known !== undefined) return known;
    common(inode);
    switch (inode.type) {
      case InodeType.file:
        fields.data = L.NONE;
        if (inode.content !== undefined) {
          const { id } = inode.content;
          const content = stored[id];
          if (content === undefined) throw new Error(`content ${id} of ${stored.length}`);
          if (contentIds[id] === -1) contentIds[id] = order.push(id) - 1;
          fields.data = contentIds[id] as number;
          fields.size = content.size;
          logicalBytes += content.size;
        }
        break;
      case InodeType.symlink:
        fields.data = tables.targets.append(inode.target);
        fields.aux = inode.target.length;
        fields.size = inode.target.length;
        break;
      default:
        fields.data = inode.rdev;
    }
    const row = tables.addInode(fields);
    rows.set(inode, row);
    return row;
  };

  const queue: DirectoryInode[] = [root];
  addDirectory(0, L.NONE, root);
  for (let row = 0; row < queue.length; row++) {
    tables.beginEntries(row);
    for (const { name, hash, entry } of sortEntries((queue[row] as DirectoryInode).entries)) {
      let target: number;
      let type: number;
      switch (entry.type) {
        case InodeType.directory:
          target = queue.length;
          type = L.EntryType.directory;
          addDirectory(row, tables.entries.count, entry);
          queue.push(entry);
          break;
        case "whiteout":
          target = L.NONE;
          type = L.EntryType.whiteout;
          break;
        case "link":
          if (!isPath(entry.target))
            throw new Error(`link to ${displayName(entry.target)}, which is no path`);
          target = tables.addLink(entry.target);
          type = L.EntryType.link;
          break;
        default:
          target = addInode(entry);
          type = entry.type >>> 12;
      }
      const length = scratch.write(name, "latin1");
      tables.addEntry(row, type, target, hash, scratch, 0, length);
    }
  }
  if (!Number.isSafeInteger(logicalBytes)) throw new Error("its files have 2^53 bytes or more together");
  return { tables, order, logicalBytes };
}

function sortEntries(entries: ReadonlyMap<Name, LayerEntry>): SortedEntry[] {
  const sorted: SortedEntry[] = [];
  for (const [name, entry] of entries) {
    const bytes = bytesOf(name);
    const problem = nameProblem(bytes, 0, bytes.length);
    if (problem !== undefined) throw new Error(`${problem}: ${displayName(name)}`);
    sorted.push({ name, hash: nameHash(bytes, 0, bytes.length), entry });
  }
  return sorted.sort((a, b) => a.hash - b.hash || (a.name < b.name ? -1 : 1));
}

function checkInode(inode: LayerInode): void {
  const within = (what: string, value: number, max: number): void => {
    if (!(Number.isInteger(value) && value >= 0 && value <= max))
      throw new Error(`${what} ${value} is out of range`);
  };
  within("mode", inode.mode, 0o7777);
  within("uid", inode.uid, 0xffff_fffe);
  within("gid", inode.gid, 0xffff_fffe);
  within("nanosecond", inode.mtimeNsec, 999_999_999);
  if (!Number.isSafeInteger(inode.mtimeSec)) throw new Error(`mtime ${inode.mtimeSec} is out of range`);
  if (inode.type === InodeType.symlink) {
    if (inode.target.length === 0 || inode.target.length > L.PATH_MAX || inode.target.includes(0)) {
      throw new Error(`symlink target of ${inode.target.length} bytes is none`);
    }
  } else if (inode.type !== InodeType.file && inode.type !== InodeType.directory) {
    within("device", inode.rdev, 0xffff_ffff);
  }
}
