// The `ls` command: a directory of an image, as ls(1) would show it, without a mount.
import { displayName } from "../base/bytes.js";
import { digestOf } from "../base/digest.js";
import { errnoText, FsError } from "../base/errno.js";
import type { Image } from "../imgfs/image.js";
import { type Child, childrenOf } from "../imgfs/look.js";
import { resolvePath } from "../imgfs/resolve.js";
import {
  deviceMajor,
  deviceMinor,
  S_IFBLK,
  S_IFCHR,
  S_IFDIR,
  S_IFLNK,
  S_IFMT,
  S_IFREG,
} from "../sys/stat.js";
import { ExitCode, Failure } from "./failure.js";
import { openTree } from "./open.js";
import { print, table } from "./output.js";

interface LsOptions {
  readonly long?: boolean;
  readonly recursive?: boolean;
  readonly json?: boolean;
}

export function ls(imagePath: string, path: string, options: LsOptions): void {
  const image = openTree(imagePath);
  try {
    const start = resolvePath(image, Buffer.from(path), options.long !== true);
    if ((image.mode(start) & S_IFMT) !== S_IFDIR) {
      show(image, [{ name: Buffer.from(path), row: start }], options, undefined);
      return;
    }
    walk(image, start, Buffer.from(path), options);
  } catch (cause) {
    if (!(cause instanceof FsError)) throw cause;
    throw new Failure(ExitCode.failure, `ls ${displayName(Buffer.from(path))}: ${errnoText(cause.code)}`);
  } finally {
    image.close();
  }
}

function walk(image: Image, top: number, topPath: Buffer, options: LsOptions): void {
  const pending: { row: number; path: Buffer }[] = [{ row: top, path: topPath }];
  for (let first = true; ; first = false) {
    const directory = pending.shift();
    if (directory === undefined) return;
    const entries = childrenOf(image, directory.row);
    if (options.recursive === true && options.json !== true) {
      print(`${first ? "" : "\n"}${displayName(directory.path)}:\n`);
    }
    show(image, entries, options, directory.path);
    if (options.recursive !== true) return;
    const below = entries.filter(({ row }) => (image.mode(row) & S_IFMT) === S_IFDIR);
    pending.unshift(...below.map(({ name, row }) => ({ row, path: joinPath(directory.path, name) })));
  }
}

function joinPath(folder: Buffer, name: Buffer): Buffer {
  const slash = folder.at(-1) === 0x2f ? "" : "/";
  return Buffer.concat([folder, Buffer.from(slash), name]);
}

function show(image: Image, listed: readonly Child[], options: LsOptions, folder: Buffer | undefined): void {
  if (options.json === true) {
    print(listed.map((item) => `${JSON.stringify(describe(image, item, folder))}\n`).join(""));
  } else if (options.long === true) {
    print(table(listed.map((item) => longRow(image, item))));
  } else {
    print(listed.map(({ name }) => `${displayName(name)}\n`).join(""));
  }
}

function longRow(image: Image, { name, row }: Child): string[] {
  const mode = image.mode(row);
  const type = mode & S_IFMT;
  const device = image.rdev(row);
  const size =
    type === S_IFCHR || type === S_IFBLK
      ? `${deviceMajor(device)}, ${deviceMinor(device)}`
      : String(image.size(row));
  const target = type === S_IFLNK ? ` -> ${displayName(image.symlinkTarget(row))}` : "";
  return [
    modeText(mode),
    String(image.nlink(row)),
    String(image.uid(row)),
    String(image.gid(row)),
    size,
    timeText(image.mtimeSec(row), image.mtimeNsec(row)),
    `${displayName(name)}${target}`,
  ];
}

function describe(image: Image, { name, row }: Child, folder: Buffer | undefined): Record<string, unknown> {
  const mode = image.mode(row);
  const digest = (mode & S_IFMT) === S_IFREG ? image.contentDigest(row) : undefined;
  const path = folder === undefined ? name : joinPath(folder, name);
  return {
    path: displayName(path),
    type: typeNames[(mode & S_IFMT) >> 12],
    mode: `0${(mode & 0o7777).toString(8)}`,
    nlink: image.nlink(row),
    uid: image.uid(row),
    gid: image.gid(row),
    size: image.size(row),
    mtime: timeText(image.mtimeSec(row), image.mtimeNsec(row)),
    inode: row + 1,
    ...((mode & S_IFMT) === S_IFLNK ? { target: displayName(image.symlinkTarget(row)) } : {}),
    ...(digest === undefined ? {} : { digest: digestOf(digest) }),
  };
}

const typeLetters: Readonly<Record<number, string>> = {
  1: "p",
  2: "c",
  4: "d",
  6: "b",
  8: "-",
  10: "l",
  12: "s",
};
const typeNames: Readonly<Record<number, string>> = {
  1: "fifo",
  2: "character device",
  4: "directory",
  6: "block device",
  8: "file",
  10: "symlink",
  12: "socket",
};

function modeText(mode: number): string {
  const triplet = (bits: number, special: boolean, letter: string): string => {
    const execute = (bits & 1) !== 0;
    const last = special ? (execute ? letter : letter.toUpperCase()) : execute ? "x" : "-";
    return `${bits & 4 ? "r" : "-"}${bits & 2 ? "w" : "-"}${last}`;
  };
  return [
    typeLetters[(mode & S_IFMT) >> 12] ?? "?",
    triplet((mode >> 6) & 7, (mode & 0o4000) !== 0, "s"),
    triplet((mode >> 3) & 7, (mode & 0o2000) !== 0, "s"),
    triplet(mode & 7, (mode & 0o1000) !== 0, "t"),
  ].join("");
}

/** RFC 3339 in UTC with nanoseconds; seconds since 1970 where a Date cannot say it. */
function timeText(seconds: number, nanoseconds: number): string {
  const fraction = nanoseconds === 0 ? "" : `.${String(nanoseconds).padStart(9, "0")}`;
  const date = new Date(seconds * 1000);
  if (Number.isNaN(date.getTime())) return `@${seconds}${fraction}`;
  return `${date.toISOString().slice(0, -5)}${fraction}Z`;
}
