// The comma list of `-o`, as mount(8), fstab and the FUSE helpers write it, sorted into what each entry means: a flag of
// the mount command by its long name, an option of the mount itself, or nothing to us.
// The flags come from the command's own table, so that a new flag is an option the day it is declared.
import type { KernelOptions } from "../fuse/channel.js";
import { mountFlagNames } from "../sys/mount-flags.js";

export interface ListedOption {
  readonly key: string;
  /** What follows the first `=`; undefined without one. */
  readonly value: string | undefined;
}

/** Splits a list at its commas. `\,` is a comma and `\\` a backslash; any other backslash stays as it is. */
export function parseOptionList(text: string): ListedOption[] {
  const entries = text.match(/(?:\\[\\,]|[^,])+/gs) ?? [];
  return entries.map((entry) => {
    const plain = entry.replace(/\\([\\,])/g, "$1");
    const at = plain.indexOf("=");
    return at < 0
      ? { key: plain, value: undefined }
      : { key: plain.slice(0, at), value: plain.slice(at + 1) };
  });
}

/** A flag of the command: its long name without dashes, and what it takes. */
export interface Flag {
  readonly name: string;
  readonly takes: "nothing" | "a value" | "perhaps a value";
}

export interface SortedOptions {
  /** Flags by long name with their values, in the order given; `false` takes a flag back. */
  readonly flags: readonly (readonly [string, string | true | false])[];
  readonly kernel: KernelOptions;
  /** The images of `lowerdir=`, in our order: the last on top. */
  readonly lower: readonly string[] | undefined;
  /** A reason to refuse, in one line: the first that was met. */
  readonly refused: string | undefined;
}

/** Names by which fuse-overlayfs and podman know our flags. */
const synonyms: ReadonlyMap<string, string> = new Map([
  ["upperdir", "upper"],
  ["workdir", "work"],
  ["uidmapping", "uid-map"],
  ["gidmapping", "gid-map"],
]);

/** What mount(8), systemd and fstab keep for themselves, and what is always so. */
const ignored =
  /^(_r?netdev|nofail|u?helper|(no)?auto|(no)?users?|(no)?owner|(no)?group|defaults|comment|default_permissions|nonempty|silent|loud|(no)?mand|(no)?iversion|[xX][-.].*)$/;

/** Sorts the entries of all `-o` lists. With `sloppy` unknown ones are dropped, as `mount -s` asks. */
export function sortOptions(
  options: readonly ListedOption[],
  table: readonly Flag[],
  sloppy = false,
): SortedOptions {
  const sorter = new Sorter(table);
  for (const option of options) sorter.take(option, sloppy);
  return sorter;
}

class Sorter implements SortedOptions {
  readonly flags: [string, string | true | false][] = [];
  readonly kernel: { -readonly [K in keyof KernelOptions]: KernelOptions[K] } = {};
  lower: readonly string[] | undefined;
  refused: string | undefined;
  private readonly table: ReadonlyMap<string, Flag>;

  constructor(table: readonly Flag[]) {
    this.table = new Map(table.map((flag) => [flag.name, flag]));
  }

  take({ key, value }: ListedOption, sloppy: boolean): void {
    if (this.takeFlag(key, value) || this.takeMountFlag(key, value) || this.takeKernel(key, value)) return;
    if (ignored.test(key) || sloppy) return;
    if (key === "remount") this.refuse("remount is not supported: unmount, then mount again");
    else this.refuse(`unknown option ${key}`);
  }

  private refuse(reason: string): void {
    this.refused ??= reason;
  }

  /** A flag by its long name, with `_` for `-` where one likes, or `no` before one that takes no value. */
  private takeFlag(key: string, value: string | undefined): boolean {
    const name = synonyms.get(key) ?? key.replaceAll("_", "-");
    const flag = this.table.get(name);
    if (flag === undefined) return this.takeBack(name, value);
    if (flag.takes === "nothing" && value !== undefined) this.refuse(`option ${key} takes no value`);
    else if (flag.takes === "a value" && (value === undefined || value === ""))
      this.refuse(`option ${key} needs a value`);
    else if (value === undefined) this.flags.push([name, true]);
    else for (const each of valuesOf(key, value)) this.flags.push([name, each]);
    return true;
  }

  private takeBack(name: string, value: string | undefined): boolean {
    const positive = name.startsWith("no") ? name.slice(2) : "";
    if (this.table.get(positive)?.takes !== "nothing") return false;
    if (value !== undefined) this.refuse(`option ${name} takes no value`);
    else this.flags.push([positive, false]);
    return true;
  }

  private takeMountFlag(key: string, value: string | undefined): boolean {
    const found = mountFlagNames.get(key);
    if (found === undefined) return false;
    if (value !== undefined) this.refuse(`option ${key} takes no value`);
    const { set = 0, clear = 0 } = this.kernel;
    this.kernel.set = found.on ? set | found.flag : set & ~found.flag;
    this.kernel.clear = found.on ? clear & ~found.flag : clear | found.flag;
    return true;
  }

  private takeKernel(key: string, value: string | undefined): boolean {
    switch (key) {
      case "allow_other":
      case "noallow_other":
        if (value !== undefined) this.refuse(`option ${key} takes no value`);
        this.kernel.allowOther = key === "allow_other";
        return true;
      case "max_read":
        if (!/^[1-9][0-9]{0,8}$/.test(value ?? "")) this.refuse("option max_read needs a number of bytes");
        else this.kernel.maxRead = Number(value);
        return true;
      case "fsname":
        if (!value) this.refuse("option fsname needs a value");
        else this.kernel.fsname = value;
        return true;
      case "subtype":
        if (!/^[\w.+-]+$/.test(value ?? "")) this.refuse("option subtype needs a name");
        else this.kernel.subtype = value as string;
        return true;
      case "lowerdir":
        this.lower = lowerOf(value ?? "");
        if (this.lower.length === 0) this.refuse("option lowerdir needs a value");
        return true;
      default:
        return false;
    }
  }
}

/** Maps of several ranges come as one value of three numbers each: `0:1000:1:1:100000:65536`. */
function valuesOf(key: string, value: string): readonly string[] {
  if (key !== "uidmapping" && key !== "gidmapping") return [value];
  return value.match(/[^:]+(?::[^:]*){0,2}/g) ?? [value];
}

/** overlayfs's list: the topmost first, colons between, `\:` for one in a name. */
function lowerOf(value: string): string[] {
  return (value.match(/(?:\\:|[^:])+/gs) ?? []).map((path) => path.replaceAll("\\:", ":")).reverse();
}
