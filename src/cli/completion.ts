// The `completion` command: a script that a shell reads, made from the command tree.
import type { Command } from "commander";
import { bashCompletion } from "./completion-bash.js";
import { fishCompletion } from "./completion-fish.js";
import { zshCompletion } from "./completion-zsh.js";
import { print } from "./output.js";
import { treeOf } from "./tree.js";

const scripts = { bash: bashCompletion, zsh: zshCompletion, fish: fishCompletion } as const;

export type Shell = keyof typeof scripts;

/** Prints the script for `shell`. */
export function completion(shell: Shell, root: Command): void {
  print(scripts[shell](treeOf(root)));
}
