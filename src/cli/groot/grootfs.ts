// The command line as GrootFS has it, for who calls the program by that name: what went wrong is told on stdout, logs are
// lager's JSON on stderr, and the exit code is 1.
import { Command, CommanderError } from "commander";
import type { MountHere } from "../../store/mounts.js";
import { GROOTFS } from "../called-as.js";
import { messageOf } from "../failure.js";
import { ClosedPipe, print } from "../output.js";
import { version } from "../version.js";
import { addStoreCommands, addStoreGlobals, grootUsage, optionsOf } from "./declare.js";
import { goWords } from "./go-words.js";
import { makeCaller } from "./run-command.js";
import { StoreFailure } from "./store-failure.js";

export function grootfsProgram(mountHere?: MountHere): Command {
  const root = new Command(GROOTFS)
    .description("I am Groot! The store of imgfs, by GrootFS's commands.")
    .version(`${GROOTFS} version ${version}`, "-v, --version", "print the version")
    .helpOption("-h, --help", "show help")
    .option("--log-level <level>", "debug, info, error or fatal (default: fatal)")
    .option("--log-file <file>", "log to this file, at level info unless --log-level says otherwise");
  addStoreGlobals(root);
  addStoreCommands(root, "grootfs", mountHere);
  for (const command of [root, ...root.commands]) {
    command.exitOverride().configureOutput({ writeOut: print, writeErr: () => {}, outputError: () => {} });
  }
  return root;
}

/** Runs the words after the name; the exit code. `mountHere` as for {@link ../command-line.ts}. */
export async function runGrootfs(words: readonly string[], mountHere?: MountHere): Promise<number> {
  const root = grootfsProgram(mountHere);
  try {
    if (words.length === 0) root.outputHelp();
    else await root.parseAsync(goWords(root, words), { from: "user" });
    return typeof process.exitCode === "number" ? process.exitCode : 0;
  } catch (cause) {
    if (cause instanceof ClosedPipe) return 0;
    try {
      return tell(root, words, cause);
    } catch (again) {
      if (again instanceof ClosedPipe) return 1;
      throw again;
    }
  }
}

function tell(root: Command, words: readonly string[], cause: unknown): number {
  if (cause instanceof CommanderError) return tellUsage(root, words, cause);
  if (cause instanceof StoreFailure) {
    print(`${cause.groot}\n`);
    return cause.grootCode;
  }
  print(`${messageOf(cause)}\n`);
  return 1;
}

function tellUsage(root: Command, words: readonly string[], cause: CommanderError): number {
  if (cause.exitCode === 0) return 0;
  const named = goWords(root, words).find((word) => root.commands.some((each) => each.name() === word));
  const command = root.commands.find((each) => each.name() === named);
  const { code, message } = cause;
  if (code === "commander.unknownCommand") {
    print(`No help topic for '${/'([^']*)'/.exec(message)?.[1] ?? ""}'\n`);
    return 3;
  }
  if (
    command !== undefined &&
    (code === "commander.missingArgument" || code === "commander.excessArguments")
  ) {
    return tellArguments(command);
  }
  print(`Incorrect Usage: ${goUsageText(cause)}\n\n`);
  (command ?? root).outputHelp();
  return 1;
}

/** A wrong number of arguments is logged and told as the command's usage. */
function tellArguments(command: Command): number {
  const name = command.name();
  try {
    const { log } = makeCaller("grootfs", name, command.args, optionsOf(command));
    if (name === "delete") log.error("parsing-command", "id was not specified");
    else log.error("parsing-command", "invalid arguments", { args: command.args.map(withoutLogin) });
  } catch (cause) {
    if (!(cause instanceof StoreFailure)) throw cause;
    print(`${cause.groot}\n`);
    return cause.grootCode;
  }
  print(name === "delete" ? "id was not specified\n" : `invalid arguments - usage: ${grootUsage[name]}\n`);
  return 1;
}

/** An argument as a log may have it: the name of an image may have a login in it, which is an error of its own. */
function withoutLogin(word: string): string {
  return word.replace(/^(docker:\/*).*@(?!sha\d+:)/is, "$1...@");
}

/** What Go's flag package says. */
function goUsageText({ code, message }: CommanderError): string {
  const flag = /'[^']*?--?([a-z][\w-]*)/.exec(message)?.[1] ?? "";
  switch (code) {
    case "commander.unknownOption":
      return `flag provided but not defined: -${flag}`;
    case "commander.optionMissingArgument":
      return `flag needs an argument: -${flag}`;
    case "commander.invalidArgument": {
      const value = /argument '(.*)' is invalid/.exec(message)?.[1] ?? "";
      return `invalid value "${value}" for flag -${flag}: parse error`;
    }
    default:
      return message.replace(/^error: /, "");
  }
}
