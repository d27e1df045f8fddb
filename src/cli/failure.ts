// What a command says when it fails: one line, an exit code, perhaps a hint. The table of codes is printed at the
// end of every --help.

/** Exit codes, beside 0. */
export const ExitCode = {
  failure: 1,
  usage: 2,
  damage: 3,
  notFound: 10,
  /** A registry wants a login, does not take the one there is, or denies access. */
  refused: 12,
  mount: 32,
  interrupted: 130,
  terminated: 143,
} as const;

export const exitCodeHelp = `
Exit codes: 0 done, 1 failure, 2 wrong usage, 3 damage found by check, 10 image not found,
12 refused by a registry, 32 mount or unmount failed, 130 and 143 ended by SIGINT and SIGTERM.`;

/** A failure the user is told about in one line, without a stack. */
export class Failure extends Error {
  readonly exitCode: number;
  readonly hint: string | undefined;

  constructor(exitCode: number, message: string, options: { hint?: string; cause?: unknown } = {}) {
    super(message, { cause: options.cause });
    this.name = "Failure";
    this.exitCode = exitCode;
    this.hint = options.hint;
  }
}

/** The one-line text of any thrown value: its message, then those of its causes that add something. */
export function messageOf(cause: unknown): string {
  const parts: string[] = [];
  for (let error = cause; error !== undefined && error !== null; ) {
    const text = error instanceof Error ? error.message : String(error);
    if (!parts.some((part) => part.includes(text))) parts.push(text);
    error = error instanceof Error ? error.cause : undefined;
  }
  return parts.join(": ").replace(/\s*\n\s*/g, " ");
}
