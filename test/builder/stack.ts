// Layers as the builder makes them, stacked and listed: tar bytes in, what a mount would show out.
import { mkdtempSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { afterAll } from "vitest";
import { convertLayer } from "../../src/builder/layer.js";
import { type DirectoryEntry, Image } from "../../src/imgfs/image.js";
import { allocatePages } from "../../src/sys/memory.js";

const folder = mkdtempSync(join(tmpdir(), "imgfs-stack-"));
afterAll(() => rmSync(folder, { recursive: true, force: true }));
let serial = 0;

/** Converts one layer tar; the path of its blob. */
export async function convert(tar: Uint8Array): Promise<string> {
  const path = join(folder, `layer-${serial++}`);
  writeFileSync(path, tar);
  const source = {
    bytes: { kind: "file", path, offset: 0, size: tar.length },
    mediaType: "",
    digest: undefined,
    diffId: undefined,
  } as const;
  await convertLayer({ source, target: `${path}.imgfs` });
  return `${path}.imgfs`;
}

/** Converts layers, lowest first, and merges them. */
export async function buildStack(tars: readonly Uint8Array[]): Promise<Image> {
  const paths: string[] = [];
  for (const tar of tars) paths.push(await convert(tar));
  return Image.stack(paths);
}

/** An inode as a test wants to see it. */
export interface Shown {
  type: "file" | "dir" | "symlink" | "char" | "block" | "fifo";
  mode: number;
  uid: number;
  gid: number;
  sec: number;
  nsec: number;
  nlink: number;
  size: number;
  row: number;
  rdev: number;
  /** Content of a file up to 64 KiB, target of a symlink; latin1. */
  text: string;
  xattrs: Record<string, string>;
}

const S_IFMT = 0o170000;
const types = new Map<number, Shown["type"]>([
  [0o010000, "fifo"],
  [0o020000, "char"],
  [0o040000, "dir"],
  [0o060000, "block"],
  [0o100000, "file"],
  [0o120000, "symlink"],
]);
const page = allocatePages(65536);

/** Everything in an image by path (latin1); the root is "". */
export function show(image: Image): Map<string, Shown> {
  const found = new Map<string, Shown>();
  const visit = (row: number, path: string): void => {
    const shown = showRow(image, row);
    found.set(path, shown);
    if (shown.type !== "dir") return;
    const entry: DirectoryEntry = { row: 0, type: 0, bytes: new Uint8Array(0), start: 0, end: 0 };
    for (let i = 0; i < image.entryCount(row); i++) {
      image.entry(row, i, entry);
      const name = Buffer.from(entry.bytes.subarray(entry.start, entry.end)).toString("latin1");
      visit(entry.row, path === "" ? name : `${path}/${name}`);
    }
  };
  visit(0, "");
  image.close();
  return found;
}

function showRow(image: Image, row: number): Shown {
  const type = types.get(image.mode(row) & S_IFMT) as Shown["type"];
  const size = image.size(row);
  let text = "";
  if (type === "symlink") text = Buffer.from(image.symlinkTarget(row)).toString("latin1");
  if (type === "file") {
    const length = image.read(row, 0, { address: page.address, bytes: page.bytes, start: 0 }, 65536);
    text = Buffer.from(page.bytes.subarray(0, length)).toString("latin1");
  }
  const xattrs = (image.xattrs(row) ?? []).map(({ name, value }) => [name, value.toString("latin1")]);
  return {
    type,
    mode: image.mode(row) & 0o7777,
    uid: image.uid(row),
    gid: image.gid(row),
    sec: image.mtimeSec(row),
    nsec: image.mtimeNsec(row),
    nlink: image.nlink(row),
    size,
    row,
    rdev: type === "char" || type === "block" ? image.rdev(row) : 0,
    text,
    xattrs: Object.fromEntries(xattrs) as Record<string, string>,
  };
}

/** The stack of layers, shown. */
export async function stack(...tars: readonly Uint8Array[]): Promise<Map<string, Shown>> {
  return show(await buildStack(tars));
}

/** Paths of a stack without the root, sorted; directories end with a slash, symlinks say where they point. */
export function paths(tree: ReadonlyMap<string, Shown>): string[] {
  return [...tree]
    .filter(([path]) => path !== "")
    .map(([path, { type, text }]) =>
      type === "dir" ? `${path}/` : type === "symlink" ? `${path} -> ${text}` : path,
    )
    .sort();
}
