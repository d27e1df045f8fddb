// Failures of the store's commands have two texts: ours, and GrootFS's for who called the command by that name.
import { ExitCode, Failure } from "../failure.js";

interface GrootWords {
  readonly text: string;
  /** 1 unless given. */
  readonly exitCode?: number;
}

export class StoreFailure extends Failure {
  readonly groot: string;
  readonly grootCode: number;

  /** `message` is ours, without the program's name; GrootFS's text is the same unless given. */
  constructor(
    message: string,
    options: { exitCode?: number; groot?: string | GrootWords; hint?: string; cause?: unknown } = {},
  ) {
    const { exitCode = ExitCode.failure, groot = message, hint, cause } = options;
    super(exitCode, message, { ...(hint === undefined ? {} : { hint }), cause });
    this.name = "StoreFailure";
    this.groot = typeof groot === "string" ? groot : groot.text;
    this.grootCode = typeof groot === "string" ? 1 : (groot.exitCode ?? 1);
  }
}

/** Wrong usage, in words that both have. */
export function usage(text: string): StoreFailure {
  return new StoreFailure(text, { exitCode: ExitCode.usage });
}
