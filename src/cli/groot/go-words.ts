// The words of GrootFS's command line, which is read by Go's flag package: `-store` is `--store`, and a flag without a
// value may have one, `--with-clean=true`.
import type { Command, Option } from "commander";

/** The words as our parser takes them. */
export function goWords(root: Command, words: readonly string[]): string[] {
  const read: string[] = [];
  let command: Command | undefined;
  for (let i = 0; i < words.length; i++) {
    const word = words[i] as string;
    if (word === "--") return [...read, ...words.slice(i)];
    if (!/^--?[a-z]/.test(word)) {
      command ??= root.commands.find((each) => each.name() === word);
      read.push(word);
      continue;
    }
    const [name = "", value] = split(word.replace(/^--?/, ""));
    const option = [...(command?.options ?? []), ...root.options].find((each) => names(each).includes(name));
    if (option === undefined) {
      read.push(word);
    } else if (option.required) {
      const given = value ?? words[++i];
      read.push(...(given === undefined ? [`--${name}`] : [`--${name}=${given}`]));
    } else {
      const negated = command?.options.some(({ long }) => long === `--no-${name}`);
      read.push(isFalse(value) && negated ? `--no-${name}` : longOf(option));
    }
  }
  return read;
}

function split(text: string): [string, string | undefined] {
  const at = text.indexOf("=");
  return at < 0 ? [text, undefined] : [text.slice(0, at), text.slice(at + 1)];
}

function names({ short, long }: Option): string[] {
  return [short?.slice(1), long?.slice(2)].filter((name) => name !== undefined);
}

function longOf({ short, long }: Option): string {
  return long ?? (short as string);
}

function isFalse(value: string | undefined): boolean {
  return value !== undefined && ["0", "f", "F", "false", "FALSE", "False"].includes(value);
}
