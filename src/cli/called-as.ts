// The forms in which other programs call the command, brought into our own:
//   mount.imgfs SRC MNT [-sfnv] [-N NS] [-o LIST] [-t TYPE]   mount(8), for `mount -t imgfs`
//   imgfs SRC MNT [-o LIST]                                   mount.fuse(8), for `mount -t fuse.imgfs`
//   imgfs -o LIST MNT                                         podman and others who know fuse-overlayfs
//   grootfs [FLAGS] COMMAND [ARG...]                          Cloud Foundry's Garden; groot/grootfs.ts reads these
// In the first three the exit codes are those of mount(8).
import { existsSync } from "node:fs";
import { ExitCode } from "./failure.js";

export interface Called {
  /** The words after `imgfs`. */
  readonly words: readonly string[];
  /** Exit codes as mount(8) has them. */
  readonly byMount: boolean;
  /** Said when it has worked, for `-v`. */
  readonly done?: string;
  /** The words are wrong: why. */
  readonly refused?: string;
  /** The mount namespace to go to first: a pid or a file. */
  readonly namespace?: string;
}

/** The first word by which bin/imgfs says that it was called as mount.imgfs. */
const HELPER_NAME = "mount.imgfs";

/** The first word by which bin/imgfs says that it was called as grootfs. */
export const GROOTFS = "grootfs";

/** Reads the words after the program's name; `commands` are the ones of ours. */
export function readWords(words: readonly string[], commands: ReadonlySet<string>): Called {
  const [first, second] = words;
  if (first === HELPER_NAME) return readHelperWords(words.slice(1));
  const isMount =
    first !== undefined &&
    (/^-[fo]/.test(first) ||
      (second !== undefined && !first.startsWith("-") && !commands.has(first) && looksLikeImage(first)));
  return isMount ? { words: ["mount", ...words], byMount: true } : { words, byMount: false };
}

/** A mistyped command is no image: an image has a slash, or is there. */
function looksLikeImage(word: string): boolean {
  return word.includes("/") || existsSync(word);
}

function readHelperWords(words: readonly string[]): Called {
  const places: string[] = [];
  const options: string[] = [];
  const more: string[] = [];
  let namespace: string | undefined;
  let verbose = false;
  const refuse = (refused: string): Called => ({ words: [], byMount: true, refused });
  for (let i = 0; i < words.length; i++) {
    const word = words[i] as string;
    if (word === "-h" || word === "--help") return { words: ["mount", "--help"], byMount: true };
    if (word === "-V" || word === "--version") return { words: ["--version"], byMount: true };
    if (!/^-./.test(word)) {
      places.push(word);
      continue;
    }
    for (let at = 1; at < word.length; at++) {
      const letter = word[at] as string;
      if (letter === "v") verbose = true;
      else if (letter === "s") more.push("--sloppy");
      else if (letter === "f") more.push("--fake");
      else if ("rw".includes(letter)) options.push("-o", letter === "r" ? "ro" : "rw");
      else if (letter === "n") continue;
      else if ("oNt".includes(letter)) {
        const value = word.slice(at + 1) || words[++i];
        if (value === undefined) return refuse(`option -${letter} needs a value`);
        if (letter === "o") options.push("-o", value);
        if (letter === "N") namespace = value;
        break;
      } else return refuse(`unknown option -${letter}`);
    }
  }
  const [source, mountpoint] = places;
  if (source === undefined || mountpoint === undefined || places.length > 2) {
    return refuse("usage: mount.imgfs IMAGE MOUNTPOINT [-sfnv] [-N NAMESPACE] [-o OPTIONS] [-t TYPE]");
  }
  return {
    words: ["mount", ...more, ...options, "--", source, mountpoint],
    byMount: true,
    ...(verbose ? { done: `${HELPER_NAME}: ${source} mounted on ${mountpoint}.\n` } : {}),
    ...(namespace === undefined ? {} : { namespace }),
  };
}

/** An exit code of ours as mount(8) has it: 1 wrong usage, 2 system error, 32 mount failure. */
export function mountExitCode(code: number): number {
  switch (code) {
    case ExitCode.usage:
      return 1;
    case ExitCode.failure:
      return 2;
    case ExitCode.notFound:
    case ExitCode.damage:
      return ExitCode.mount;
    default:
      return code;
  }
}
