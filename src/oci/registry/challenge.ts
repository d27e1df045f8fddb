// WWW-Authenticate (RFC 9110, 11.6.1): the challenges of a response, in order.

export interface Challenge {
  /** In lower case. */
  readonly scheme: string;
  /** Names in lower case. */
  readonly parameters: Readonly<Record<string, string>>;
}

const token = "[!#$%&'*+.^_`|~0-9A-Za-z-]+";
const start = new RegExp(`^[\\s,]*(${token})(?:\\s+|(?=,)|$)`);
const parameter = new RegExp(`^[\\s,]*(${token})\\s*=\\s*(?:"((?:[^"\\\\]|\\\\.)*)"|(${token}))`);
/** A single value in place of parameters, of schemes that are not ours. */
const token68 = /^[\s,]*[A-Za-z0-9._~+/-]+=*(?=\s*(?:,|$))/;

/** Takes a header's values apart; what cannot be read ends the list. */
export function parseChallenges(headers: string | readonly string[] | undefined): Challenge[] {
  const challenges: Challenge[] = [];
  for (const header of typeof headers === "string" ? [headers] : (headers ?? [])) {
    let rest = header;
    for (let match = start.exec(rest); match !== null; match = start.exec(rest)) {
      rest = rest.slice(match[0].length);
      const parameters: Record<string, string> = {};
      for (let found = parameter.exec(rest); found !== null; found = parameter.exec(rest)) {
        parameters[(found[1] as string).toLowerCase()] =
          found[2]?.replace(/\\(.)/g, "$1") ?? (found[3] as string);
        rest = rest.slice(found[0].length);
      }
      challenges.push({ scheme: (match[1] as string).toLowerCase(), parameters });
      if (Object.keys(parameters).length === 0) rest = rest.replace(token68, "");
    }
  }
  return challenges;
}
