// The peers of the interchange tests: the kernel's overlayfs and fuse-overlayfs over plain directories, and what a tree
// looks like, whoever shows it. All mounts go away with the test.
import { readFileSync } from "node:fs";
import { join, resolve } from "node:path";
import { setTimeout } from "node:timers/promises";
import { expect, it } from "vitest";
import { conformanceLayers } from "../conformance/image.js";
import {
  build,
  cannotMount,
  cleanLater,
  command,
  hasCommand,
  isRunning,
  run,
  scratch,
  scratchDirectory,
  shell,
  succeed,
} from "../e2e/mounted.js";
import { type Layers, writeLayout } from "../e2e/oci-writer.js";

const here = import.meta.dirname;
const mutate = join(here, "mutate.py");
const oracle = resolve(here, "../e2e/oracle.py");

/** Why no peer can be asked here, or undefined. */
export const noPeers: string | undefined =
  cannotMount ??
  (hasCommand("python3") ? undefined : "python3 is missing") ??
  (hasCommand("fuse-overlayfs") ? undefined : "fuse-overlayfs is missing") ??
  (/\boverlay$/m.test(readFileSync("/proc/filesystems", "utf8")) ? undefined : "no overlay filesystem");

/** A test that is red in CI where the others of its file would be skipped. */
export function mustRunInCi(what: string): void {
  const inCi = process.env["CI"] !== undefined && process.env["CI"] !== "";
  it.runIf(inCi)(`${what} is tested in CI`, () => expect(noPeers).toBeUndefined());
}

// ---------------------------------------------------------------- images

export interface Source {
  /** For imgfs. */
  readonly image: string;
  /** The same tree as a plain directory, a lower one for peers; never changed. */
  readonly plain: string;
}

/** The image of a directory, and its tree. */
export async function makeSourceOf(directory: string): Promise<Source> {
  return extracted(await build(`dir:${directory}`));
}

async function extracted(image: string): Promise<Source> {
  const plain = scratch("plain");
  await succeed(command, ["extract", image, plain]);
  return { image, plain };
}

/** The image of the conformance tests unless others are given, and its tree. */
export async function makeSource(layers: Layers = conformanceLayers()): Promise<Source> {
  const layout = scratchDirectory("layout");
  writeLayout(layout, layers);
  return extracted(await build(`oci:${layout}`));
}

// ---------------------------------------------------------------- mounts

export interface Peer {
  readonly path: string;
  unmount(): Promise<void>;
}

export interface Place {
  readonly lower: string;
  readonly upper: string;
  readonly work: string;
}

/** New directories for an upper and its workdir, beside each other in `folder`. */
export async function makePlace(lower: string, folder = scratchDirectory("place")): Promise<Place> {
  const place = { lower, upper: join(folder, "upper"), work: join(folder, "work") };
  await shell(`mkdir '${place.upper}' '${place.work}'`);
  return place;
}

/** Ends a mount, also where another process of the machine looks at it just then. */
async function unmount(path: string): Promise<void> {
  for (let i = 0; ; i++) {
    const { code, stderr } = await run("umount", [path]);
    if (code === 0) return;
    if (i === 100 || !stderr.includes("busy")) throw new Error(`umount ${path}: ${stderr}`);
    await setTimeout(50);
  }
}

/** Mounts the kernel's overlayfs with further options, each with its comma: ",userxattr". */
export async function kernelOverlay({ lower, upper, work }: Place, options = ""): Promise<Peer> {
  const path = scratchDirectory("kernel");
  cleanLater(path, scratch("no-pid"));
  const where = `lowerdir=${lower},upperdir=${upper},workdir=${work}${options}`;
  await succeed("mount", ["-t", "overlay", "overlay", "-o", where, path]);
  return { path, unmount: () => unmount(path) };
}

/** Mounts fuse-overlayfs, and ends it. */
export async function fuseOverlay({ lower, upper, work }: Place, options = ""): Promise<Peer> {
  const path = scratchDirectory("fuse-overlayfs");
  cleanLater(path, scratch("no-pid"));
  const where = `lowerdir=${lower},upperdir=${upper},workdir=${work}${options}`;
  await succeed("fuse-overlayfs", ["-o", where, path]);
  const pid = Number(await succeed("pgrep", ["-f", "-n", `^fuse-overlayfs .*${path}$`]));
  const end = async (): Promise<void> => {
    await unmount(path);
    // It holds its directories until then, and with them a mount that they lie in. Where another mount namespace has a
    // copy of its mount that is when that ends.
    for (let i = 0; i < 300 && isRunning(pid); i++) await setTimeout(50);
  };
  return { path, unmount: end };
}

// ---------------------------------------------------------------- trees

/** What a tree shows: a line for each path with its type, mode, owner, times, size, content, xattrs and hard links. */
export async function look(path: string, leaveOut: readonly string[] = []): Promise<string[]> {
  return linesOf(await succeed("python3", [oracle, "tree", path, "--loose"]), leaveOut);
}

/** The lines of such a text. */
export function linesOf(text: string, leaveOut: readonly string[]): string[] {
  return text
    .trimEnd()
    .split("\n")
    .map((line) => trimmed(line, leaveOut));
}

/** A line without some of its fields; `dir.nlink` is a field of directories alone. */
function trimmed(line: string, leaveOut: readonly string[]): string {
  const row = JSON.parse(line) as Record<string, unknown>;
  for (const left of leaveOut) {
    if (left === "marks") row["xattrs"] = withoutMarks(row["xattrs"] as Record<string, string>);
    const [type, field] = left.includes(".") ? left.split(".") : [row["type"], left];
    if (row["type"] === type) delete row[field as string];
  }
  return JSON.stringify(row);
}

function withoutMarks(xattrs: Record<string, string>): Record<string, string> {
  const mark = /^(user\.(overlay|imgfs)|trusted\.overlay)\./;
  return Object.fromEntries(Object.entries(xattrs).filter(([name]) => !mark.test(name)));
}

/** What peers show otherwise than a plain directory would, with or without imgfs: left out of comparisons with them. */
export const faults = {
  kernel: [
    // Subdirectories of a merged directory are not counted.
    "dir.nlink",
  ],
  /** What it shows of an upper directory that imgfs has written. */
  kernelOverOurs: [
    "dir.nlink",
    // The link that imgfs keeps in its workdir, of what has several names below or can carry no mark, is counted.
    "nlink",
    // Marks are xattrs like others to it, but for those in trusted. or, with userxattr, in user.
    "marks",
  ],
  /** The same of fuse-overlayfs, to which user.overlay. is hidden. */
  fuseOverlayfsOverOurs: ["nlink", "marks"],
  fuseOverlayfs: [
    // Not counted either; of what it made or linked itself the count is that of before, and of FIFOs always 1.
    "nlink",
    // A symlink that is copied up gets the time of that.
    "symlink.mtime",
  ],
} as const;

/** What must not be done to a peer: options of mutate.py. */
export const limits = {
  /** A hard link of the lower tree is broken when it is copied up. */
  followingKernel: ["--without", "links"],
  /** And a directory of the lower tree moves only with redirect_dir=on. */
  kernel: ["--refused", "EXDEV", "--without", "links"],
  /**
   * Over FUSE it says ESTALE of a file whose first name has gone, until its cache is dropped; and what it copies up loses
   * setuid, setgid and capabilities, because a chown cannot tell a FUSE filesystem that it is to keep them.
   */
  kernelOnFuse: ["--without", "linking", "--without", "setid"],
  /**
   * The same without a remedy. Names that begin with `.wh.` are no names, and it dies where that in front of one makes it
   * too long; a directory exchanged with a file is taken for one; FIFOs and devices cannot be changed (EIO).
   */
  fuseOverlayfs: [
    "--refused",
    "EXDEV",
    "--without",
    "links",
    "--without",
    "names",
    "--without",
    "exchange",
  ].concat(["--without", "special"]),
} as const;

/** Changes a tree by chance (mutate.py). */
export function change(tree: string, seed: number, count: number, ...options: string[]): Promise<string> {
  return succeed("python3", [mutate, String(seed), String(count), tree, ...options]);
}
