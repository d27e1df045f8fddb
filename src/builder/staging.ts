// A destination folder while a build writes to it. Files are made under temporary names, `.tmp-<pid>-<random>-<name>`,
// and renamed when all of them are complete, so a name without that prefix is always a whole file.
// Invariant: after discard() the folder is as it was, but for what publish() has renamed.
import { randomBytes } from "node:crypto";
import { readdirSync, renameSync, rmdirSync, rmSync } from "node:fs";
import { dirname, join, resolve } from "node:path";
import { syncFolder, writeSynced } from "../base/durable.js";
import { makeFolders } from "../base/folders.js";

const temporaryName = /^\.tmp-(\d+)-/;

export class Staging {
  readonly folder: string;
  /** The highest folder this object has made. */
  private readonly made: string | undefined;
  private readonly temporaries = new Map<string, string>();
  private readonly prefix = `.tmp-${process.pid}-${randomBytes(4).toString("hex")}-`;

  /** Makes the folder if it is not there, and removes what builds of dead processes have left in it. */
  constructor(folder: string) {
    this.folder = resolve(folder);
    this.made = makeFolders(this.folder);
    sweep(this.folder);
  }

  /** The path under which to make the file `name`. */
  temporary(name: string): string {
    const path = join(this.folder, this.prefix + name);
    this.temporaries.set(name, path);
    return path;
  }

  /** Where the file `name` is before it is published. */
  pathOf(name: string): string {
    const path = this.temporaries.get(name);
    if (path === undefined) throw new Error(`no temporary file for ${name}`);
    return path;
  }

  /** Makes a small file, complete and synced, to be published later. */
  write(name: string, bytes: Uint8Array): void {
    writeSynced(this.temporary(name), bytes, "wx", 0o644);
  }

  /** Gives a file its name, replacing one that is there, and returns its path. The file has been synced by its maker. */
  publish(name: string, as = name): string {
    const target = join(this.folder, as);
    renameSync(this.pathOf(name), target);
    this.temporaries.delete(name);
    return target;
  }

  /** Makes the renames durable. */
  sync(): void {
    syncFolder(this.folder);
  }

  /** Removes what was not published, and the folder when it was made here and is empty. */
  discard(): void {
    // By prefix: the maker of a file may keep another one beside it.
    for (const name of readdirSync(this.folder)) {
      if (name.startsWith(this.prefix)) rmSync(join(this.folder, name), { force: true, recursive: true });
    }
    this.temporaries.clear();
    if (this.made === undefined) return;
    for (let folder = this.folder; ; folder = dirname(folder)) {
      try {
        rmdirSync(folder);
      } catch {
        return;
      }
      if (folder === this.made) return;
    }
  }
}

function sweep(folder: string): void {
  for (const name of readdirSync(folder)) {
    const pid = Number(temporaryName.exec(name)?.[1]);
    if (pid > 0 && !isAlive(pid)) rmSync(join(folder, name), { force: true, recursive: true });
  }
}

function isAlive(pid: number): boolean {
  try {
    process.kill(pid, 0);
    return true;
  } catch (cause) {
    return (cause as NodeJS.ErrnoException).code !== "ESRCH";
  }
}
