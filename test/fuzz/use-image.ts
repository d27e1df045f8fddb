// Everything that an open image offers, used; what it said, as text.
import { displayName, nameOf } from "../../src/base/bytes.js";
import type { DirectoryEntry, Image } from "../../src/imgfs/image.js";
import * as L from "../../src/imgfs/layout.js";
import { nameProblem } from "../../src/imgfs/names.js";
import { resolvePath } from "../../src/imgfs/resolve.js";
import { type Elsewhere, runTask, type Work } from "../../src/imgfs/work.js";
import { SEEK_DATA, SEEK_HOLE } from "../../src/sys/files.js";
import { must } from "./kind.js";
import { checkGuards, guardedTarget, ROOM } from "./memory-source.js";

export interface Said {
  /** A line for each name, and what the inode says. */
  readonly tree: string;
  /** What files hold, as far as it was read. */
  readonly data: string;
  /** Names that a lookup did not find. */
  readonly lost: number;
}

/** Damaged trees may be no trees; but what an image can list is bounded by its tables. */
const STEPS = 200_000;

/** Throws what the image throws, and Wrong where it contradicts itself. `copyTo`: a descriptor for copies, or -1. */
export function useImage(image: Image, copyTo = -1): Said {
  const tree: string[] = [];
  const data: string[] = [];
  let lost = 0;
  let steps = 0;
  const entry: DirectoryEntry = { row: 0, type: 0, bytes: Buffer.alloc(0), start: 0, end: 0 };
  const queue: { row: number; path: string }[] = [{ row: 0, path: "" }];
  const isLayer = image.kind === "layer";
  tree.push(`/ ${inodeText(image, 0)}`);
  for (let next = queue.shift(); next !== undefined; next = queue.shift()) {
    const { row: directory, path } = next;
    must(image.path(directory).toString("latin1") === path, `path of directory ${directory}`);
    if (isLayer) tree.push(`${image.isOpaque(directory)} ${image.isImplied(directory)}`);
    const count = image.entryCount(directory);
    const first = image.firstEntry(directory);
    for (let i = 0; i < count; i++) {
      must(++steps < STEPS, "a walk without end");
      image.entry(directory, i, entry);
      const { row, type } = entry;
      must(nameProblem(entry.bytes, entry.start, entry.end) === undefined, "an entry without a name");
      const name = nameOf(entry.bytes, entry.start, entry.end);
      const nameBytes = Buffer.from(name, "latin1");
      const found = image.lookup(directory, nameBytes, 0, nameBytes.length);
      if (found !== row) {
        const other = image.find(directory, nameBytes, 0, nameBytes.length);
        if (other >= 0) {
          image.entryName(other, entry);
          must(nameOf(entry.bytes, entry.start, entry.end) === name, "a lookup found another name");
        }
        lost++;
      }
      const child = path === "" ? name : `${path}/${name}`;
      if (row < 0) {
        must(
          isLayer && (type === L.EntryType.whiteout || type === L.EntryType.link),
          `type ${type} without an inode`,
        );
        const target = type === L.EntryType.link ? displayName(image.linkTarget(first + i)) : "";
        tree.push(`${child} ${type} ${target}`);
        continue;
      }
      tree.push(`${child} ${type} ${inodeText(image, row)}`);
      if (type === L.EntryType.directory) {
        must(image.parent(row) === directory, `parent of directory ${row}`);
        queue.push({ row, path: child });
      } else if (type === L.EntryType.file) data.push(useFile(image, row, copyTo));
      else if (type === L.EntryType.symlink) followed(image, child);
    }
  }
  return { tree: tree.join("\n"), data: data.join("\n"), lost };
}

function inodeText(image: Image, row: number): string {
  const mode = image.mode(row);
  const xattrs = image.xattrs(row)?.map(({ name, value }) => `${name}=${value.toString("latin1")}`);
  const type = mode >>> 12;
  return [
    mode.toString(8),
    image.uid(row),
    image.gid(row),
    image.nlink(row),
    image.size(row),
    image.mtimeSec(row),
    image.mtimeNsec(row),
    image.rdev(row),
    xattrs?.join(",") ?? "",
    type === L.EntryType.symlink ? nameOf(image.symlinkTarget(row)) : "",
    type === L.EntryType.file ? Buffer.from(image.contentDigest(row) ?? []).toString("hex") : "",
  ].join(" ");
}

/** Paths through a symlink end somewhere, or in a proper error. */
function followed(image: Image, path: string): void {
  if (image.kind === "layer") return;
  try {
    resolvePath(image, Buffer.from(path, "latin1"), true);
  } catch (cause) {
    must(
      (cause as Error).name === "FsError" || (cause as Error).name === "Corrupt",
      `following ${path}: ${cause}`,
    );
    if ((cause as Error).name === "Corrupt") throw cause;
  }
}

const waiting: Work[] = [];

/** Work as a helper thread would do it, here. */
const elsewhere: Elsewhere = {
  begin: (work) => waiting.push(work) > 0,
  idle: () => false,
};

function finishWork(): void {
  for (const work of waiting.splice(0)) work.done(runTask(work.task));
}

function useFile(image: Image, row: number, copyTo: number): string {
  const size = image.size(row);
  const content = image.content(row);
  must(content >= 0 === size > 0, "a content of no bytes");
  const parts: string[] = [];
  // A damaged size may be any: the first bytes, some in the middle and the last ones.
  const middle = Math.max(0, Math.floor(size / 2) - 999);
  for (const [offset, length] of [
    [0, ROOM],
    [middle, 2000],
    [Math.max(0, size - 5000), 8192],
    [size, 1],
  ] as const) {
    image.prepare(row, offset, length, elsewhere);
    finishWork();
    const target = guardedTarget(length);
    const { bytes, start } = target;
    const got = image.read(row, offset, target, length);
    checkGuards(length);
    const wanted = Math.max(0, Math.min(length, size - offset));
    must(got === wanted, `a read at ${offset} of ${size} bytes gave ${got}, not ${wanted}`);
    parts.push(Buffer.from(bytes.buffer, bytes.byteOffset + start, got).toString("latin1"));
  }
  let at = 0;
  for (let i = 0; at >= 0 && at < size && i < 20; i++) {
    const hole = image.seek(row, at, SEEK_HOLE);
    const next = image.seek(row, at, SEEK_DATA);
    must(
      hole >= at && hole <= size && (next < 0 || (next >= at && next < size)),
      `seek from ${at}: ${hole} ${next}`,
    );
    must(hole === at || next === at, `byte ${at} is neither data nor hole`);
    parts.push(`${hole} ${next}`);
    at = hole === at ? next : hole;
  }
  let end = 0;
  image.dataRanges(row, (_fd, offset, from, length) => {
    must(
      length > 0 && from >= end && from + length <= size && offset >= 4096,
      `range ${offset} ${from} ${length}`,
    );
    end = from + length;
  });
  if (copyTo >= 0 && size < 1 << 20) {
    const task = image.copyTask(row, size, copyTo, false);
    if (task !== undefined) parts.push(JSON.stringify(runTask(task)));
  }
  return parts.join(" ");
}
