// What a fuzzer is made of: a way from a seed to an input, and a way to tell whether the code did right by it.

/** An input as it can be saved and replayed. */
export interface Input {
  /** What the bytes were made from; letters, digits and dashes. */
  readonly label: string;
  readonly bytes: Buffer;
}

export interface Kind {
  readonly name: string;
  /** To be awaited before anything else. */
  begin?(): Promise<void>;
  /** The input of a seed, the same each time. */
  make(seed: number): Input;
  /** Throws when the code under test does wrong; anything but a {@link Wrong} is the code's own doing. */
  run(input: Input): void | Promise<void>;
}

/** Something that must never be. */
export class Wrong extends Error {
  constructor(what: string, cause?: unknown) {
    super(
      cause === undefined
        ? what
        : `${what}: ${cause instanceof Error ? (cause.stack ?? cause.message) : cause}`,
    );
    this.name = "Wrong";
  }
}

export function must(holds: boolean, what: string): asserts holds {
  if (!holds) throw new Wrong(what);
}

/** Words of the engine's own exceptions: code that catches everything may make a message of them. */
const engineWords =
  /is not a function|is not iterable|cannot read prop|call stack|invalid array|invalid typed|out of bounds|undefined|\bnan\b|\[object|is not defined|ERR_|not a valid bigint|cannot mix bigint|must be of type|invalid string length|allocation failed/i;

/** One line for people, and not an exception of the engine's. */
export function mustBeMessage(message: string): void {
  // biome-ignore lint/suspicious/noControlCharactersInRegex: they are what must not be there
  must(message !== "" && !/[\x00-\x1f\x7f]/.test(message), `not one line: ${JSON.stringify(message)}`);
  must(message.length < 20_000, `a message of ${message.length} chars`);
  must(!engineWords.test(message), `not words for people: ${message}`);
}
