// The commands and options as plain data, read from the declarations in program.ts: what shell completion and the man
// pages are made from, so that a new flag is in both the day it is declared.
import type { Argument, Command, Option } from "commander";
import { sourceForms } from "../oci/reference.js";

/** What a value is, as far as a shell can offer some. */
export type Value =
  /** A directory; anything that has a path; a directory or an .imgfs file; what no shell can know. */
  | { readonly kind: "directory" | "path" | "place" | "text" }
  /** One of these. */
  | { readonly kind: "words"; readonly words: readonly string[] }
  /** A path, perhaps after one of these. */
  | { readonly kind: "source"; readonly words: readonly string[] };

export interface OptionInfo {
  /** `-z`, `--lazy`, in this order; at least one. */
  readonly names: readonly string[];
  /** The value's name, brackets included where it may be left out; undefined when there is none. */
  readonly valueName: string | undefined;
  readonly takes: "nothing" | "a value" | "perhaps a value";
  readonly value: Value;
  readonly description: string;
  readonly defaultValue: string | undefined;
  readonly env: string | undefined;
}

export interface ArgumentInfo {
  readonly name: string;
  readonly required: boolean;
  readonly variadic: boolean;
  readonly description: string;
  /** By position from here on; of a variadic one the last goes for all that follow. */
  readonly values: readonly Value[];
}

export interface CommandInfo {
  readonly name: string;
  /** Forms in which it is called, without the program's name. */
  readonly usage: readonly string[];
  readonly description: string;
  readonly options: readonly OptionInfo[];
  readonly arguments: readonly ArgumentInfo[];
}

export interface Tree {
  readonly name: string;
  readonly description: string;
  /** Those that every command takes, and that stand alone. */
  readonly options: readonly OptionInfo[];
  readonly commands: readonly CommandInfo[];
}

const text: Value = { kind: "text" };
const path: Value = { kind: "path" };
const directory: Value = { kind: "directory" };
const source: Value = {
  kind: "source",
  words: sourceForms.split(", ").map((form) => form.replace(/:(\/\/)?.*/, ":$1")),
};

/** What a value is, by the name it is declared with; of several in one argument by command and name. */
const valuesByName: Readonly<Record<string, readonly Value[]>> = {
  dir: [directory],
  dest: [directory],
  mountpoint: [directory],
  upper: [directory],
  file: [path],
  image: [path],
  source: [source],
  "create image": [source],
  "pull image": [source],
  // An image, then more blobs or the mountpoint.
  "mount paths": [path, { kind: "place" }],
  "flatten dest": [path],
  // The destination, then a path inside the image.
  "extract paths": [directory, text],
};

/** The tree under the root command. Hidden options are left out. */
export function treeOf(root: Command): Tree {
  const options = optionsOf(root);
  const names = root.commands.map((command) => command.name());
  const help: CommandInfo = {
    name: "help",
    usage: ["help [COMMAND]"],
    description: "print how a command is used",
    options: [],
    arguments: [
      {
        name: "command",
        required: false,
        variadic: false,
        description: "which one",
        values: [{ kind: "words", words: names }],
      },
    ],
  };
  return {
    name: root.name(),
    description: root.description(),
    options: [...options, helpOption],
    commands: [...root.commands.map(commandOf), help],
  };
}

const helpOption: OptionInfo = {
  names: ["-h", "--help"],
  valueName: undefined,
  takes: "nothing",
  value: text,
  description: "print how the command is used",
  defaultValue: undefined,
  env: undefined,
};

function commandOf(command: Command): CommandInfo {
  const args = command.registeredArguments.map((argument) => argumentOf(command.name(), argument));
  const usage = command
    .usage()
    .split(/\n\s*imgfs \S+ /)
    .map((form) =>
      form
        .replace("[options]", "")
        .replace(/<(\S+?)>|\[[a-z.]+\]/g, (shown, name = shown) => name.toUpperCase()),
    );
  return {
    name: command.name(),
    usage: usage.map((words) => `${command.name()} ${words.trim()}`.trim()),
    description: command.description(),
    options: optionsOf(command),
    arguments: args,
  };
}

function optionsOf(command: Command): OptionInfo[] {
  return command.options.filter(({ hidden }) => !hidden).map(optionOf);
}

function optionOf(option: Option): OptionInfo {
  const valueName = /[<[](.+)[>\]]$/.exec(option.flags)?.[1];
  const shown: unknown = option.defaultValueDescription ?? option.defaultValue;
  return {
    names: [option.short, option.long].filter((name) => name !== undefined),
    valueName: option.required || valueName === undefined ? valueName : `[${valueName}]`,
    takes: option.required ? "a value" : option.optional ? "perhaps a value" : "nothing",
    value: choiceOf(option.argChoices, valueName) ?? valuesByName[valueName ?? ""]?.[0] ?? text,
    description: option.description,
    defaultValue: typeof shown === "string" ? shown : undefined,
    env: option.envVar,
  };
}

function argumentOf(command: string, argument: Argument): ArgumentInfo {
  const name = argument.name();
  const choice = choiceOf(argument.argChoices, undefined);
  return {
    name,
    required: argument.required,
    variadic: argument.variadic,
    description: argument.description,
    values: choice ? [choice] : (valuesByName[`${command} ${name}`] ?? valuesByName[name] ?? [text]),
  };
}

/** Declared choices, or those that the value's own name lists: `none|zstd[:level]`. */
function choiceOf(choices: readonly string[] | undefined, valueName: string | undefined): Value | undefined {
  const words =
    choices ?? (valueName?.includes("|") ? valueName.replace(/\[[^\]]*\]/g, "").split("|") : undefined);
  return words === undefined ? undefined : { kind: "words", words };
}
