// `imgfs run IMAGE COMMAND ARG...`: what follows the image is the command's, options too, as docker and podman have it.
// The parser of the command line takes options wherever they stand, so a `--` goes in front of the command.
import type { Command, Option } from "commander";

/** The words with `--` after the image; undefined when they are not of `run`. */
export function containerWords(root: Command, words: readonly string[]): readonly string[] | undefined {
  const run = root.commands.find((each) => each.name() === "run");
  const first = nextOperand(words, 0, root.options);
  if (run === undefined || words[first] !== "run") return undefined;
  const image = nextOperand(words, first + 1, [...root.options, ...run.options]);
  if (image >= words.length - 1 || words.slice(0, image + 2).includes("--")) return words;
  return [...words.slice(0, image + 1), "--", ...words.slice(image + 1)];
}

/** The place of the first word from `from` on that is neither an option nor an option's value. */
function nextOperand(words: readonly string[], from: number, options: readonly Option[]): number {
  let at = from;
  for (; at < words.length; at++) {
    const word = words[at] as string;
    if (!/^-./.test(word)) break;
    // `--name=value`, and `-nvalue`, are one word.
    const option = options.find(({ short, long }) => word === short || word === long);
    if (option?.required === true) at++;
  }
  return at;
}
