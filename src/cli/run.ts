// Runs one command, and turns what it throws into one line and an exit code.
import { CommanderError } from "commander";
import { ExitCode, Failure, messageOf } from "./failure.js";
import { ClosedPipe, printError } from "./output.js";
import { type GlobalOptions, program, type StartMount } from "./program.js";

/** Runs the command line and returns the exit code. */
export async function run(argv: readonly string[], startMount: StartMount): Promise<number> {
  const root = program(startMount);
  try {
    await root.parseAsync(argv);
    return typeof process.exitCode === "number" ? process.exitCode : 0;
  } catch (cause) {
    if (cause instanceof ClosedPipe) return 0;
    if (cause instanceof CommanderError) return cause.exitCode === 0 ? 0 : ExitCode.usage;
    printError(`imgfs: ${messageOf(cause)}\n`);
    if (cause instanceof Failure && cause.hint !== undefined) printError(`hint: ${cause.hint}\n`);
    if (root.opts<GlobalOptions>().debug && cause instanceof Error) printError(`${cause.stack}\n`);
    return cause instanceof Failure ? cause.exitCode : ExitCode.failure;
  }
}
