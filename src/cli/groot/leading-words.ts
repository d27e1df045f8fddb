// `imgfs --store DIR create ...`: options of the store's commands that stand before the command. They are that command's
// and no other's, so they go behind its name.
import type { Command, Option } from "commander";

/** The words in the order in which our parser takes them; unchanged where the command has none of these. */
export function afterCommand(root: Command, words: readonly string[]): readonly string[] {
  const ofStore = root.commands.find((each) => each.name() === "list")?.options ?? [];
  const moved: string[] = [];
  const given: string[] = [];
  const kept: string[] = [];
  for (let at = 0; at < words.length; at++) {
    const word = words[at] as string;
    if (!/^-./.test(word)) {
      if (moved.length === 0 || !takesAll(root, word, given)) return words;
      return [...kept, word, ...moved, ...words.slice(at + 1)];
    }
    const option = find(root.options, word) ?? find(ofStore, word);
    const place = option === undefined || root.options.includes(option) ? kept : moved;
    place.push(word);
    if (place === moved) given.push(word);
    if (option?.required === true && !word.includes("=")) {
      at++;
      if (at < words.length) place.push(words[at] as string);
    }
  }
  return words;
}

/** Whether the command has these options: one of the store has all that go with the store, `check` its own --store. */
function takesAll(root: Command, name: string, words: readonly string[]): boolean {
  const options = root.commands.find((each) => each.name() === name)?.options ?? [];
  return words.every((word) => find(options, word) !== undefined);
}

function find(options: readonly Option[], word: string): Option | undefined {
  const name = word.split("=", 1)[0];
  return options.find(({ short, long }) => name === short || name === long);
}
