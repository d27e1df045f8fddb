// The names an image has in a layout or archive: tags, docker references, digests, positions; and the choice by one.

/** What the part after the path says: a name, a digest, a position among the images, or a name and one of these. */
export interface Selector {
  readonly name: string | undefined;
  readonly digest: string | undefined;
  readonly position: number | undefined;
}

/** Takes `NAME`, `@DIGEST`, `@N`, `NAME@DIGEST` or `NAME@N` apart. */
export function parseSelector(text: string): Selector {
  const match = /^(.*)@(?:(\d{1,9})|([a-z0-9]+:[0-9A-Fa-f]+))$/.exec(text);
  if (match === null) return { name: text, digest: undefined, position: undefined };
  const [, name, position, digest] = match;
  return {
    name: name === "" ? undefined : name,
    digest,
    position: position === undefined ? undefined : Number(position),
  };
}

/** A docker reference with everything that may be left out: `debian` is `docker.io/library/debian:latest`. */
export function fullName(reference: string): string {
  const slash = reference.indexOf("/");
  const first = slash < 0 ? "" : reference.slice(0, slash);
  const isHost = /[.:]/.test(first) || first === "localhost";
  const path = isHost ? reference : `docker.io/${reference}`;
  const full = /^docker\.io\/[^/]+$/.test(path) ? path.replace("/", "/library/") : path;
  return /:[^/]*$/.test(full) ? full : `${full}:latest`;
}
