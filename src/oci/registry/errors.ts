// What can go wrong with a registry, told apart in code. Messages are one line that names registry, repository and
// object; what a server says in them is bounded and never a secret.

export type RegistryFailure =
  /** The registry says that there is no such image, manifest or blob. */
  | "absent"
  /** It wants a login, and there is none for it. */
  | "unauthorized"
  /** It does not take the login that there is. */
  | "refused"
  /** The login is good, and this object is not for it. */
  | "denied"
  /** It speaks plain HTTP, or its certificate cannot be trusted, and it was not declared insecure. */
  | "insecure"
  /** No connection, no answer, or only errors of the server, however often it was tried. */
  | "unreachable"
  /** It asks for fewer requests. */
  | "limited"
  /** registries.conf forbids it. */
  | "blocked"
  /** What came is not what was asked for: digest, size, form. */
  | "damaged"
  /** A file or program that says how to reach it. */
  | "configuration";

export class RegistryError extends Error {
  readonly kind: RegistryFailure;

  constructor(kind: RegistryFailure, message: string, options: { readonly cause?: unknown } = {}) {
    super(message, options);
    this.name = "RegistryError";
    this.kind = kind;
  }

  /** The same with the object in front that it is about. */
  within(subject: string): RegistryError {
    return new RegistryError(this.kind, `${subject}: ${this.message}`, { cause: this });
  }
}

const maxWords = 200;

/** Control characters, and those that change the direction or the line of a text. */
const unprintable = /[\p{Cc}\p{Cf}\u2028\u2029]+/gu;

/** What a server says, on one line, printable and short. */
export function wordsOf(text: string): string {
  const line = text.replace(unprintable, " ").trim();
  return line.length <= maxWords ? line : `${line.slice(0, maxWords)}...`;
}

/**
 * The words of an error response: the first of its errors (distribution-spec, error codes), or of a token server's
 * error; undefined where it has none. Anything else, such as a proxy's HTML, is left out.
 */
export function serverWords(body: string): string | undefined {
  let value: unknown;
  try {
    value = JSON.parse(body);
  } catch {
    return undefined;
  }
  if (typeof value !== "object" || value === null) return undefined;
  const { errors, details, error_description } = value as Record<string, unknown>;
  const first: unknown = Array.isArray(errors) ? errors[0] : undefined;
  if (typeof first === "object" && first !== null) {
    const { code, message } = first as Record<string, unknown>;
    return (
      wordsOf([code, message].filter((part) => typeof part === "string" && part !== "").join(": ")) ||
      undefined
    );
  }
  const other = [details, error_description].find((part) => typeof part === "string" && part !== "");
  return other === undefined ? undefined : wordsOf(other as string);
}
