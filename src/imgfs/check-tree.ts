// Checks every record of the tree, by itself and against the others, and that the tables are the canonical ones:
// numbered by first use in the walk, with nothing unused. One pass over the entries in their order, then one over the
// inodes; time and memory are proportional to the tables, whatever they say.
import { displayName, nameOf } from "../base/bytes.js";
import type { Findings } from "./findings.js";
import type { Image } from "./image.js";
import * as L from "./layout.js";
import { compareBytes, isPath, nameHash, nameProblem } from "./names.js";

/** Ids that must first be used in the order 0, 1, 2, ... and all be used. */
class FirstUse {
  private next = 0;

  /** False for an id that skips one that was not used before. */
  see(id: number): boolean {
    if (id > this.next) return false;
    if (id === this.next) this.next++;
    return true;
  }

  get used(): number {
    return this.next;
  }
}

/** Checks the tree of an open image; damage goes to `findings`. */
export function checkTree(image: Image, findings: Findings): void {
  const { metadata } = image;
  const { bytes, u16, u32 } = metadata;
  const table = {
    directory: metadata.table("directory"),
    entry: metadata.table("entry"),
    names: metadata.table("names"),
    inode: metadata.table("inode"),
    targets: metadata.table("targets"),
    link: metadata.table("link"),
    owner: metadata.table("owner"),
    overflow: metadata.table("overflow"),
    xattrOffset: metadata.table("xattrOffset"),
    xattrs: metadata.table("xattrs"),
  };
  const isLayer = image.kind === "layer";
  const names = new Uint32Array(image.inodeCount);
  const subdirectories = new Uint32Array(image.directoryCount);
  const rows = new FirstUse();
  let directories = 1;
  let nameEnd = 0;
  let targetEnd = 0;
  let linkCount = 0;

  const checkEntry = (
    directory: number,
    index: number,
    previous: { hash: number; start: number; end: number },
  ): void => {
    const at = table.entry.at(index);
    const bad = (problem: string): void => findings.add("ENTRY", index, problem);
    const hash = u32[at >> 2] as number;
    const target = u32[(at >> 2) + 1] as number;
    const offset = u32[(at >> 2) + 2] as number;
    const length = bytes[at + L.EntryRecord.nameLength] as number;
    const type = bytes[at + L.EntryRecord.type] as number;
    if (u16[(at + L.EntryRecord.flags) >> 1] !== 0) bad("reserved field is not zero");
    checkTarget(directory, index, type, target, bad);
    if (offset > nameEnd) bad(`name at ${offset}, beyond what is used so far`);
    nameEnd = Math.max(nameEnd, offset + length);
    const start = table.names.range(offset, length);
    const end = start + length;
    const problem = nameProblem(bytes, start, end);
    if (problem !== undefined) bad(`${problem}: ${displayName(nameOf(bytes, start, end))}`);
    if (nameHash(bytes, start, end) !== hash) bad("the hash is not that of the name");
    const order =
      hash - previous.hash || compareBytes(bytes, start, end, bytes, previous.start, previous.end);
    if (order <= 0) bad(order === 0 ? "the name is there twice" : "out of order");
    previous.hash = hash;
    previous.start = start;
    previous.end = end;
  };

  const checkTarget = (
    directory: number,
    index: number,
    type: number,
    target: number,
    bad: (problem: string) => void,
  ): void => {
    switch (type) {
      case L.EntryType.directory:
        if (target !== directories) bad(`directory row ${target} instead of ${directories}`);
        directories++;
        subdirectories[directory] = (subdirectories[directory] as number) + 1;
        image.entryRow(directory, index);
        return;
      case L.EntryType.whiteout:
        if (!isLayer) bad("a whiteout in an index");
        if (target !== L.NONE) bad(`a whiteout of row ${target}`);
        return;
      case L.EntryType.link: {
        if (!isLayer) bad("a link to a lower layer in an index");
        if (target !== linkCount) bad(`link ${target} instead of ${linkCount}`);
        linkCount++;
        const path = image.linkTarget(index);
        if (!isPath(path)) bad(`link target ${displayName(nameOf(path))} is no path`);
        checkTargetPlace(u32[table.link.at(target) >> 2] as number, path.length, bad);
        return;
      }
      default:
        break;
    }
    if (image.entryRow(directory, index) !== target) return;
    if (!rows.see(target - image.directoryCount)) bad(`inode row ${target} before those below it`);
    if (names[target] === 0 && type === L.EntryType.symlink) {
      const at = table.inode.at(target) >> 2;
      checkTargetPlace(u32[at + 6] as number, u32[at + 7] as number, bad);
    }
    names[target] = (names[target] as number) + 1;
  };

  const checkTargetPlace = (offset: number, length: number, bad: (problem: string) => void): void => {
    if (offset !== targetEnd) bad(`target at ${offset} instead of ${targetEnd}`);
    targetEnd = offset + length;
  };

  let entryEnd = 0;
  for (let row = 0; row < image.directoryCount; row++) {
    findings.attempt("DIRECTORY", row, () => {
      const at = table.directory.at(row) >> 2;
      const flags = u32[at + 3] as number;
      const known = isLayer ? L.DIRECTORY_OPAQUE | L.DIRECTORY_IMPLIED : 0;
      if ((flags & ~known) !== 0) findings.add("DIRECTORY", row, `unknown flags ${flags}`);
      if (row === 0 && u32[at + 2] !== L.NONE)
        findings.add("DIRECTORY", row, "the root is named by an entry");
      image.parent(row);
      if (row > 0) checkSelf(image, row, u32[at + 2] as number, findings);
      const first = image.firstEntry(row);
      if (first !== entryEnd) findings.add("DIRECTORY", row, `first entry ${first} instead of ${entryEnd}`);
      const last = image.lastEntry(row, first);
      // Entries that an earlier directory had are not gone through again: that bounds the work.
      const from = Math.max(first, entryEnd);
      entryEnd = Math.max(entryEnd, last);
      const previous = { hash: -1, start: 0, end: 0 };
      for (let index = from; index < last; index++) {
        findings.attempt("ENTRY", index, () => checkEntry(row, index, previous));
      }
    });
  }
  findings.attempt("DIRECTORY", image.directoryCount, () => {
    const at = table.directory.at(image.directoryCount) >> 2;
    if (u32[at] !== table.entry.count || u32[at + 1] !== 0 || u32[at + 2] !== 0 || u32[at + 3] !== 0) {
      findings.add("DIRECTORY", image.directoryCount, "the end record is wrong");
    }
  });
  const expectAll = (section: string, what: string, used: number, count: number): void => {
    if (used !== count) findings.add(section, "", `${count} ${what}, ${used} used`);
  };
  expectAll("NAMES", "bytes", nameEnd, table.names.count);
  expectAll("TARGETS", "bytes", targetEnd, table.targets.count);
  expectAll("LINK", "links", linkCount, table.link.count);

  let wide = 0;
  let logicalBytes = 0;
  const checkedSets = new Set<number>();
  let xattrsLeft = table.xattrs.count;
  const checkSet = (row: number): void => {
    const set = image.xattrIndex(row);
    if (set === 0 || checkedSets.has(set)) return;
    checkedSets.add(set);
    xattrsLeft -= image.xattrBytes(set).length;
    // No byte is decoded twice: that bounds the work.
    if (xattrsLeft < 0) throw table.xattrOffset.corrupt(set - 1, "the set overlaps others");
    image.xattrs(row);
  };
  for (let row = 0; row < image.inodeCount; row++) {
    findings.attempt("INODE", row, () => {
      const at = table.inode.at(row);
      const bad = (problem: string): void => findings.add("INODE", row, problem);
      const flags = u16[(at + L.InodeRecord.flags) >> 1] as number;
      if ((flags & ~L.INODE_OVERFLOW) !== 0) bad(`unknown flags ${flags}`);
      if (flags !== 0) {
        if (u32[table.overflow.at(wide) >> 2] !== row)
          findings.add("OVERFLOW", wide, `is not that of row ${row}`);
        wide++;
        const fields = [u16[(at >> 1) + 1], u32[(at >> 2) + 1], u32[(at >> 2) + 2], u32[(at >> 2) + 4]];
        if (fields.some((field) => field !== 0) || (u32[(at >> 2) + 5] as number) >= 0x4000_0000) {
          bad("fields that OVERFLOW holds are not zero");
        }
      }
      const expected =
        row < image.directoryCount ? 2 + (subdirectories[row] as number) : (names[row] as number);
      if (expected === 0) bad("has no name");
      if (image.nlink(row) !== expected) bad(`link count ${image.nlink(row)}, but it has ${expected}`);
      image.mtimeSec(row);
      image.mtimeNsec(row);
      image.uid(row);
      checkSet(row);
      logicalBytes += checkByType(
        image,
        row,
        u32[(at >> 2) + 6] as number,
        u32[(at >> 2) + 7] as number,
        bad,
      );
    });
  }
  expectAll("OVERFLOW", "records", wide, table.overflow.count);
  if (logicalBytes !== image.logicalBytes) {
    findings.add("header", "logical_bytes", `${image.logicalBytes}, but files have ${logicalBytes}`);
  }
  checkOwners(image, table.owner.count, findings);
  checkXattrs(image, table.xattrOffset.count, table.xattrs.count, findings);
}

function checkSelf(image: Image, row: number, self: number, findings: Findings): void {
  const parent = image.parent(row);
  const first = image.firstEntry(parent);
  if (self < first || self >= image.lastEntry(parent, first)) {
    findings.add("DIRECTORY", row, `named by entry ${self}, which is not its parent's`);
  } else if (image.entryType(self) !== L.EntryType.directory || image.entryRow(parent, self) !== row) {
    findings.add("DIRECTORY", row, `named by entry ${self}, which names something else`);
  }
}

/** Checks size, data and aux by type; the bytes a file has. */
function checkByType(
  image: Image,
  row: number,
  data: number,
  aux: number,
  bad: (problem: string) => void,
): number {
  const size = image.size(row);
  const type = image.mode(row) >>> 12;
  if (type === L.EntryType.symlink) {
    const target = image.symlinkTarget(row);
    if (size !== target.length) bad(`size ${size} of a symlink of ${target.length} bytes`);
    return 0;
  }
  if (aux !== 0) bad("reserved field is not zero");
  if (type === L.EntryType.file) {
    image.content(row);
    return size;
  }
  if (size !== 0) bad(`size ${size} of what is no file`);
  const isDevice = type === L.EntryType.char || type === L.EntryType.block;
  if (!isDevice && data !== 0) bad("device number of what is no device");
  return 0;
}

/** Goes through inodes in the order of the walk, which is that of the entries. */
function inWalkOrder(image: Image, visit: (row: number) => void): void {
  const seen = new Uint8Array(image.inodeCount);
  const { u32 } = image.metadata;
  const entries = image.metadata.table("entry");
  visit(0);
  for (let index = 0; index < entries.count; index++) {
    const at = entries.at(index);
    const row = u32[(at >> 2) + 1] as number;
    if (image.entryType(index) >= L.EntryType.whiteout || row >= seen.length || seen[row] === 1) continue;
    seen[row] = 1;
    visit(row);
  }
}

function checkOwners(image: Image, count: number, findings: Findings): void {
  const owners = new FirstUse();
  findings.attempt("OWNER", "", () => {
    const different = new Set<string>();
    inWalkOrder(image, (row) => {
      const index = image.ownerIndex(row);
      if (!owners.see(index)) findings.add("OWNER", index, "used before those below it");
      different.add(`${image.uid(row)}:${image.gid(row)}`);
    });
    if (owners.used !== count) findings.add("OWNER", "", `${count} owners, ${owners.used} used`);
    if (different.size !== count)
      findings.add("OWNER", "", `${count} owners, ${different.size} of them different`);
  });
}

function checkXattrs(image: Image, offsets: number, heap: number, findings: Findings): void {
  const sets = new FirstUse();
  findings.attempt("XATTR_OFFSET", "", () => {
    const { u32 } = image.metadata;
    const table = image.metadata.table("xattrOffset");
    if (u32[table.at(0) >> 2] !== 0) findings.add("XATTR_OFFSET", 0, "is not 0");
    if (u32[table.at(offsets - 1) >> 2] !== heap)
      findings.add("XATTR_OFFSET", offsets - 1, "is not the end of XATTRS");
    inWalkOrder(image, (row) => {
      const set = image.xattrIndex(row);
      if (set > 0 && !sets.see(set - 1)) findings.add("XATTR_OFFSET", set - 1, "used before those below it");
    });
    if (sets.used !== offsets - 1) findings.add("XATTR_OFFSET", "", `${offsets - 1} sets, ${sets.used} used`);
  });
}
