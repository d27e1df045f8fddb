// Source references: `transport:rest`, as skopeo and podman write them. The table of transports is the whole grammar;
// one that is known but not there yet says so by name.
import { existsSync } from "node:fs";

/** A source reference taken apart. */
export interface Reference {
  readonly transport: Transport;
  /** Folder or file. */
  readonly path: string;
  /** Tag, or docker reference; undefined when the user chose none. */
  readonly selector: string | undefined;
  /** As written. */
  readonly text: string;
}

/** `selector`: what may follow the path after a colon, as it is called in messages; false for none. */
const transports = {
  oci: { form: "oci:DIR[:TAG]", selector: true },
  "docker-archive": { form: "docker-archive:FILE[:REF]", selector: true },
  tar: { form: "tar:FILE", selector: false },
} as const;

export type Transport = keyof typeof transports;

/** Transports of containers-transports(5) whose place is kept. */
const planned: readonly string[] = ["oci-archive", "dir", "docker", "docker-daemon", "containers-storage"];

function isTransport(text: string): text is Transport {
  return Object.hasOwn(transports, text);
}

const known = Object.values(transports)
  .map(({ form }) => form)
  .join(", ");

/**
 * Parses `oci:DIR[:TAG]`, `docker-archive:FILE[:REF]` or `tar:FILE`. The path ends at the first colon, as in
 * containers-transports(5), unless a longer one exists; `tar:` has no selector. Throws an Error that quotes the text.
 */
export function parseReference(text: string): Reference {
  const colon = text.indexOf(":");
  if (colon < 0) throw new Error(`${quote(text)} has no transport: write one of ${known}`);
  const transport = text.slice(0, colon);
  const rest = text.slice(colon + 1);
  if (planned.includes(transport)) {
    throw new Error(
      `transport ${quote(transport)} in ${quote(text)} is not supported yet: use one of ${known}`,
    );
  }
  if (!isTransport(transport)) {
    throw new Error(`unknown transport ${quote(transport)} in ${quote(text)}: use one of ${known}`);
  }
  const { form, selector } = transports[transport];
  const end = selector ? selectorStart(rest) : -1;
  const path = end < 0 ? rest : rest.slice(0, end);
  if (path === "") throw new Error(`${quote(text)} names no path: the form is ${form}`);
  if (end >= 0 && end === rest.length - 1)
    throw new Error(`${quote(text)} has an empty tag: the form is ${form}`);
  return { transport, path, selector: end < 0 ? undefined : rest.slice(end + 1), text };
}

/**
 * Index of the colon before the selector, or -1. Of several colons the first that ends an existing path counts: folders
 * may have colons in their names, and so may references (`registry:5000/name:tag`).
 */
function selectorStart(rest: string): number {
  if (existsSync(rest)) return -1;
  for (let at = rest.indexOf(":"); at >= 0; at = rest.indexOf(":", at + 1)) {
    if (existsSync(rest.slice(0, at))) return at;
  }
  return rest.indexOf(":");
}

function quote(text: string): string {
  return JSON.stringify(text);
}
